; The filter between NumPy and tiered memory: the four functions of a NEP 49 handler (@malloc, @calloc, @realloc, @free)
; and the four they share (@ask, @release, @enter, @collect).
;
; A block below the threshold, and an address outside the arena, go to NumPy's own function by a tail call: a compare
; and a jump. Everything else enters Python, by @ask or @release.
;
; Why not ctypes callbacks? Because handlers are called with exceptions pending (an array is freed while an exception
; passes through), and a ctypes callback cannot give a pending exception back: whatever it restores, ctypes takes for an
; error of the callback, prints and clears. The interpreter then crashes. Here the exception is put aside before Python
; is entered and put back after it has been left.
;
; The code uses nothing but its arguments: all it needs is in the %State that NumPy passes to every function of a
; handler as its context. So there is nothing to link or to relocate, and the same code can be compiled when it is
; needed or beforehand (plain.py).
;
; NumPy promises to call a handler with the GIL held, and does not always keep it: numpy.fromstring() resizes its result
; without (array_from_text). So @ask and @release, through which every way into Python leads, take the GIL for themselves;
; a thread that has it already has it twice (PyGILState_Ensure nests).

%State = type {
  i64,  ;  0 threshold         blocks of at least so many bytes are tiered; all ones: none
  i64,  ;  1 low               the arena's first address
  i64,  ;  2 span              its length in bytes
  i64,  ;  3 open              0: Python must not be entered (a forked child; the interpreter shuts down)
  ptr,  ;  4 original_context  NumPy's own functions, and the context they were called with
  ptr,  ;  5 original_malloc
  ptr,  ;  6 original_calloc
  ptr,  ;  7 original_realloc
  ptr,  ;  8 original_free
  ptr,  ;  9 ask               the functions of this file that others of this file call
  ptr,  ; 10 release
  ptr,  ; 11 enter
  ptr,  ; 12 collect
  ptr,  ; 13 err_fetch         CPython's stable ABI
  ptr,  ; 14 err_restore
  ptr,  ; 15 err_normalize
  ptr,  ; 16 call_function
  ptr,  ; 17 build_value
  ptr,  ; 18 as_ssize_t
  ptr,  ; 19 list_append
  ptr,  ; 20 dec_ref
  ptr,  ; 21 add_pending_call
  ptr,  ; 22 is_true
  ptr,  ; 23 thread_ident
  ptr,  ; 24 gil_ensure
  ptr,  ; 25 gil_release
  ptr,  ; 26 serve             Python: serve(pointer, nbytes) -> address | 0 | -1
  ptr,  ; 27 drain             Python: drain() frees the blocks in the backlog
  ptr,  ; 28 backlog           Python list of addresses to free
  ptr,  ; 29 errors            Python list of (thread, exception) that serve and drain could not raise
  ptr,  ; 30 courier           Python object whose truth value raises them
  ptr,  ; 31 format_serve      "KK"
  ptr,  ; 32 format_drain      "": the arguments are not passed on
  ptr,  ; 33 format_address    "K"
  ptr   ; 34 format_error      "kO"
}

; malloc(state, bytes). Null when tiered memory is exhausted.
define ptr @malloc(ptr %state, i64 %bytes) nounwind section ".text.malloc" {
  %threshold = load i64, ptr %state
  %small = icmp ult i64 %bytes, %threshold
  br i1 %small, label %original, label %tiered

tiered:
  %ask.at = getelementptr %State, ptr %state, i64 0, i32 9
  %ask = load ptr, ptr %ask.at
  %block = call i64 %ask(ptr %state, i64 0, i64 %bytes)
  %declined = icmp eq i64 %block, -1
  br i1 %declined, label %original, label %served

served:
  %address = inttoptr i64 %block to ptr
  ret ptr %address

original:
  %context.at = getelementptr %State, ptr %state, i64 0, i32 4
  %context = load ptr, ptr %context.at
  %malloc.at = getelementptr %State, ptr %state, i64 0, i32 5
  %malloc = load ptr, ptr %malloc.at
  %plain = musttail call ptr %malloc(ptr %context, i64 %bytes)
  ret ptr %plain
}

; calloc(state, items, size). Tiered memory is zero already. Null also when the product overflows.
define ptr @calloc(ptr %state, i64 %items, i64 %size) nounwind section ".text.calloc" {
  %product = call { i64, i1 } @llvm.umul.with.overflow.i64(i64 %items, i64 %size)
  %bytes = extractvalue { i64, i1 } %product, 0
  %overflow = extractvalue { i64, i1 } %product, 1
  br i1 %overflow, label %impossible, label %possible

impossible:
  ret ptr null

possible:
  %threshold = load i64, ptr %state
  %small = icmp ult i64 %bytes, %threshold
  br i1 %small, label %original, label %tiered

tiered:
  %ask.at = getelementptr %State, ptr %state, i64 0, i32 9
  %ask = load ptr, ptr %ask.at
  %block = call i64 %ask(ptr %state, i64 0, i64 %bytes)
  %declined = icmp eq i64 %block, -1
  br i1 %declined, label %original, label %served

served:
  %address = inttoptr i64 %block to ptr
  ret ptr %address

original:
  %context.at = getelementptr %State, ptr %state, i64 0, i32 4
  %context = load ptr, ptr %context.at
  %calloc.at = getelementptr %State, ptr %state, i64 0, i32 6
  %calloc = load ptr, ptr %calloc.at
  %plain = musttail call ptr %calloc(ptr %context, i64 %items, i64 %size)
  ret ptr %plain
}

; realloc(state, block, bytes). Null leaves the old block as it was. Python finds and fills the new block; the old one
; is let go here, so that no signal can come between the two.
define ptr @realloc(ptr %state, ptr %old, i64 %bytes) nounwind section ".text.realloc" {
  %pointer = ptrtoint ptr %old to i64
  %low.at = getelementptr %State, ptr %state, i64 0, i32 1
  %low = load i64, ptr %low.at
  %span.at = getelementptr %State, ptr %state, i64 0, i32 2
  %span = load i64, ptr %span.at
  %offset = sub i64 %pointer, %low
  %ours = icmp ult i64 %offset, %span
  %ask.at = getelementptr %State, ptr %state, i64 0, i32 9
  %ask = load ptr, ptr %ask.at
  br i1 %ours, label %tiered, label %foreign

foreign:
  %threshold = load i64, ptr %state
  %small = icmp ult i64 %bytes, %threshold
  br i1 %small, label %original, label %adopt

adopt:
  %adopted = call i64 %ask(ptr %state, i64 %pointer, i64 %bytes)
  switch i64 %adopted, label %let_go [
    i64 -1, label %original
    i64 0, label %exhausted
  ]

let_go:
  ; NumPy keeps freed blocks of less than 1024 bytes in a cache, by their size. This one's is not known here, so it is
  ; given as the largest there is: that goes to free().
  %let_go.context.at = getelementptr %State, ptr %state, i64 0, i32 4
  %let_go.context = load ptr, ptr %let_go.context.at
  %free.at = getelementptr %State, ptr %state, i64 0, i32 8
  %free = load ptr, ptr %free.at
  call void %free(ptr %let_go.context, ptr %old, i64 -1)
  %adopted.address = inttoptr i64 %adopted to ptr
  ret ptr %adopted.address

original:
  %context.at = getelementptr %State, ptr %state, i64 0, i32 4
  %context = load ptr, ptr %context.at
  %realloc.at = getelementptr %State, ptr %state, i64 0, i32 7
  %realloc = load ptr, ptr %realloc.at
  %plain = musttail call ptr %realloc(ptr %context, ptr %old, i64 %bytes)
  ret ptr %plain

tiered:
  %open.at = getelementptr %State, ptr %state, i64 0, i32 3
  %open = load i64, ptr %open.at
  %closed = icmp eq i64 %open, 0
  br i1 %closed, label %exhausted, label %move

move:
  %moved = call i64 %ask(ptr %state, i64 %pointer, i64 %bytes)
  switch i64 %moved, label %compare [
    i64 -1, label %exhausted
    i64 0, label %exhausted
  ]

compare:
  %stays = icmp eq i64 %moved, %pointer
  br i1 %stays, label %done, label %leave

leave:
  %release.at = getelementptr %State, ptr %state, i64 0, i32 10
  %release = load ptr, ptr %release.at
  call void %release(ptr %state, i64 %pointer)
  br label %done

done:
  %moved.address = inttoptr i64 %moved to ptr
  ret ptr %moved.address

exhausted:
  ret ptr null
}

; free(state, block, bytes)
define void @free(ptr %state, ptr %block, i64 %bytes) nounwind section ".text.free" {
  %pointer = ptrtoint ptr %block to i64
  %low.at = getelementptr %State, ptr %state, i64 0, i32 1
  %low = load i64, ptr %low.at
  %span.at = getelementptr %State, ptr %state, i64 0, i32 2
  %span = load i64, ptr %span.at
  %offset = sub i64 %pointer, %low
  %ours = icmp ult i64 %offset, %span
  br i1 %ours, label %tiered, label %original

original:
  %context.at = getelementptr %State, ptr %state, i64 0, i32 4
  %context = load ptr, ptr %context.at
  %free.at = getelementptr %State, ptr %state, i64 0, i32 8
  %free = load ptr, ptr %free.at
  musttail call void %free(ptr %context, ptr %block, i64 %bytes)
  ret void

tiered:
  %open.at = getelementptr %State, ptr %state, i64 0, i32 3
  %open = load i64, ptr %open.at
  %closed = icmp eq i64 %open, 0
  br i1 %closed, label %leak, label %let_go

let_go:
  %release.at = getelementptr %State, ptr %state, i64 0, i32 10
  %release = load ptr, ptr %release.at
  call void %release(ptr %state, i64 %pointer)
  ret void

leak:
  ret void
}

; ask(state, pointer, bytes) -> what serve(pointer, bytes) answers: an address, 0 (exhausted) or -1 (not tiered).
define i64 @ask(ptr %state, i64 %pointer, i64 %bytes) nounwind section ".text.ask" {
  %ensure.at = getelementptr %State, ptr %state, i64 0, i32 24
  %ensure = load ptr, ptr %ensure.at
  %gil = call i32 %ensure()
  %type = alloca ptr
  %value = alloca ptr
  %traceback = alloca ptr
  %fetch.at = getelementptr %State, ptr %state, i64 0, i32 13
  %fetch = load ptr, ptr %fetch.at
  call void %fetch(ptr %type, ptr %value, ptr %traceback)
  %enter.at = getelementptr %State, ptr %state, i64 0, i32 11
  %enter = load ptr, ptr %enter.at
  %serve.at = getelementptr %State, ptr %state, i64 0, i32 26
  %serve = load ptr, ptr %serve.at
  %format.at = getelementptr %State, ptr %state, i64 0, i32 31
  %format = load ptr, ptr %format.at
  %answer = call i64 %enter(ptr %state, ptr %serve, ptr %format, i64 %pointer, i64 %bytes)
  %restore.at = getelementptr %State, ptr %state, i64 0, i32 14
  %restore = load ptr, ptr %restore.at
  %saved.type = load ptr, ptr %type
  %saved.value = load ptr, ptr %value
  %saved.traceback = load ptr, ptr %traceback
  call void %restore(ptr %saved.type, ptr %saved.value, ptr %saved.traceback)
  %let_go.at = getelementptr %State, ptr %state, i64 0, i32 25
  %let_go = load ptr, ptr %let_go.at
  call void %let_go(i32 %gil)
  ret i64 %answer
}

; release(state, pointer): the block goes on the backlog, and drain() frees what is there. When Python cannot be
; entered just now (the recursion limit), the block waits there for the next drain.
define void @release(ptr %state, i64 %pointer) nounwind section ".text.release" {
  %ensure.at = getelementptr %State, ptr %state, i64 0, i32 24
  %ensure = load ptr, ptr %ensure.at
  %gil = call i32 %ensure()
  %type = alloca ptr
  %value = alloca ptr
  %traceback = alloca ptr
  %fetch.at = getelementptr %State, ptr %state, i64 0, i32 13
  %fetch = load ptr, ptr %fetch.at
  call void %fetch(ptr %type, ptr %value, ptr %traceback)
  %build.at = getelementptr %State, ptr %state, i64 0, i32 17
  %build = load ptr, ptr %build.at
  %address_format.at = getelementptr %State, ptr %state, i64 0, i32 33
  %address_format = load ptr, ptr %address_format.at
  %address = call ptr (ptr, ...) %build(ptr %address_format, i64 %pointer)
  %lost = icmp eq ptr %address, null
  br i1 %lost, label %done, label %note

note:
  %append.at = getelementptr %State, ptr %state, i64 0, i32 19
  %append = load ptr, ptr %append.at
  %backlog.at = getelementptr %State, ptr %state, i64 0, i32 28
  %backlog = load ptr, ptr %backlog.at
  %appended = call i32 %append(ptr %backlog, ptr %address)
  %drop.at = getelementptr %State, ptr %state, i64 0, i32 20
  %drop = load ptr, ptr %drop.at
  call void %drop(ptr %address)
  %noted = icmp eq i32 %appended, 0
  br i1 %noted, label %free, label %done

free:
  %enter.at = getelementptr %State, ptr %state, i64 0, i32 11
  %enter = load ptr, ptr %enter.at
  %drain.at = getelementptr %State, ptr %state, i64 0, i32 27
  %drain = load ptr, ptr %drain.at
  %format.at = getelementptr %State, ptr %state, i64 0, i32 32
  %format = load ptr, ptr %format.at
  %answer = call i64 %enter(ptr %state, ptr %drain, ptr %format, i64 0, i64 0)
  br label %done

done:
  %restore.at = getelementptr %State, ptr %state, i64 0, i32 14
  %restore = load ptr, ptr %restore.at
  %saved.type = load ptr, ptr %type
  %saved.value = load ptr, ptr %value
  %saved.traceback = load ptr, ptr %traceback
  call void %restore(ptr %saved.type, ptr %saved.value, ptr %saved.traceback)
  %let_go.at = getelementptr %State, ptr %state, i64 0, i32 25
  %let_go = load ptr, ptr %let_go.at
  call void %let_go(i32 %gil)
  ret void
}

; enter(state, function, format, pointer, bytes) -> the integer that the Python function answers, or -1.
; No exception is pending. A call that raises is made once more: what a signal handler raises is not about the
; allocation. It is sent to the program afterwards, when it can no longer hit a call of ours. When the second call raises
; as well (the recursion limit), the answer is -1.
define i64 @enter(ptr %state, ptr %function, ptr %format, i64 %pointer, i64 %bytes) nounwind section ".text.enter" {
entry:
  %call.at = getelementptr %State, ptr %state, i64 0, i32 16
  %call = load ptr, ptr %call.at
  br label %attempt

attempt:
  %again = phi i1 [ false, %entry ], [ true, %failed ]
  %answer = call ptr (ptr, ptr, ...) %call(ptr %function, ptr %format, i64 %pointer, i64 %bytes)
  %raised = icmp eq ptr %answer, null
  br i1 %raised, label %failed, label %answered

failed:
  %collect.at = getelementptr %State, ptr %state, i64 0, i32 12
  %collect = load ptr, ptr %collect.at
  call void %collect(ptr %state)
  br i1 %again, label %send, label %attempt

answered:
  %as_integer.at = getelementptr %State, ptr %state, i64 0, i32 18
  %as_integer = load ptr, ptr %as_integer.at
  %integer = call i64 %as_integer(ptr %answer)
  %drop.at = getelementptr %State, ptr %state, i64 0, i32 20
  %drop = load ptr, ptr %drop.at
  call void %drop(ptr %answer)
  br i1 %again, label %send, label %done

send:
  %late = phi i64 [ %integer, %answered ], [ -1, %failed ]
  %pending.at = getelementptr %State, ptr %state, i64 0, i32 21
  %pending = load ptr, ptr %pending.at
  %is_true.at = getelementptr %State, ptr %state, i64 0, i32 22
  %is_true = load ptr, ptr %is_true.at
  %courier.at = getelementptr %State, ptr %state, i64 0, i32 30
  %courier = load ptr, ptr %courier.at
  %queued = call i32 %pending(ptr %is_true, ptr %courier)
  br label %done

done:
  %result = phi i64 [ %integer, %answered ], [ %late, %send ]
  ret i64 %result
}

; collect(state): the pending exception, which has no caller to go to, is added to the errors. They are sent by
; Py_AddPendingCall(PyObject_IsTrue, courier): the main thread raises them as soon as it runs Python again.
define void @collect(ptr %state) nounwind section ".text.collect" {
  %type = alloca ptr
  %value = alloca ptr
  %traceback = alloca ptr
  %fetch.at = getelementptr %State, ptr %state, i64 0, i32 13
  %fetch = load ptr, ptr %fetch.at
  call void %fetch(ptr %type, ptr %value, ptr %traceback)
  %normalize.at = getelementptr %State, ptr %state, i64 0, i32 15
  %normalize = load ptr, ptr %normalize.at
  call void %normalize(ptr %type, ptr %value, ptr %traceback)
  %drop.at = getelementptr %State, ptr %state, i64 0, i32 20
  %drop = load ptr, ptr %drop.at
  %old.type = load ptr, ptr %type
  call void %drop(ptr %old.type)
  %old.traceback = load ptr, ptr %traceback
  call void %drop(ptr %old.traceback)
  %ident.at = getelementptr %State, ptr %state, i64 0, i32 23
  %ident = load ptr, ptr %ident.at
  %thread = call i64 %ident()
  %build.at = getelementptr %State, ptr %state, i64 0, i32 17
  %build = load ptr, ptr %build.at
  %format.at = getelementptr %State, ptr %state, i64 0, i32 34
  %format = load ptr, ptr %format.at
  %exception = load ptr, ptr %value
  %error = call ptr (ptr, ...) %build(ptr %format, i64 %thread, ptr %exception)
  call void %drop(ptr %exception)
  %lost = icmp eq ptr %error, null
  br i1 %lost, label %done, label %note

note:
  %append.at = getelementptr %State, ptr %state, i64 0, i32 19
  %append = load ptr, ptr %append.at
  %errors.at = getelementptr %State, ptr %state, i64 0, i32 29
  %errors = load ptr, ptr %errors.at
  %appended = call i32 %append(ptr %errors, ptr %error)
  call void %drop(ptr %error)
  br label %done

done:
  %clear.at = getelementptr %State, ptr %state, i64 0, i32 14
  %clear = load ptr, ptr %clear.at
  call void %clear(ptr null, ptr null, ptr null)
  ret void
}

declare { i64, i1 } @llvm.umul.with.overflow.i64(i64, i64)
