; What a forked child is told when it touches a tiered array: a signal handler, for SIGSEGV. No Python can run there: the
; thread that faults may hold the GIL, or never have had it.
;
; A handler is given no argument of ours, so what it needs is at an address that is known beforehand (see fence.py).

%Fence = type {
  i64,  ; 0 low        touches from here
  i64,  ; 1 high       to here are met
  ptr,  ; 2 message    what is said to whoever does
  i64,  ; 3 length     in bytes
  ptr,  ; 4 write      write(2)
  ptr,  ; 5 sigaction  sigaction(2)
  ptr,  ; 6 raise      raise(3)
  ptr,  ; 7 default    a struct sigaction: what ends the process
  ptr   ; 8 previous   a struct sigaction: whose business any other fault is
}

; handler(signal, info, context): returns to the instruction that faulted, which faults again.
define void @handler(i32 %signal, ptr %info, ptr %context) nounwind section ".text.handler" {
entry:
  %fence = inttoptr i64 33736968110080 to ptr
  %low.at = getelementptr %Fence, ptr %fence, i64 0, i32 0
  %low = load i64, ptr %low.at
  %high.at = getelementptr %Fence, ptr %fence, i64 0, i32 1
  %high = load i64, ptr %high.at
  %sigaction.at = getelementptr %Fence, ptr %fence, i64 0, i32 5
  %sigaction = load ptr, ptr %sigaction.at
  %code.at = getelementptr i8, ptr %info, i64 8
  %code = load i32, ptr %code.at
  %address.at = getelementptr i8, ptr %info, i64 16
  %address = load i64, ptr %address.at
  %faulted = icmp sgt i32 %code, 0
  %above = icmp uge i64 %address, %low
  %below = icmp ult i64 %address, %high
  %within = and i1 %above, %below
  %ours = and i1 %faulted, %within
  br i1 %ours, label %say, label %pass

say:
  %message.at = getelementptr %Fence, ptr %fence, i64 0, i32 2
  %message = load ptr, ptr %message.at
  %length.at = getelementptr %Fence, ptr %fence, i64 0, i32 3
  %length = load i64, ptr %length.at
  %write.at = getelementptr %Fence, ptr %fence, i64 0, i32 4
  %write = load ptr, ptr %write.at
  %written = call i64 %write(i32 2, ptr %message, i64 %length)
  %default.at = getelementptr %Fence, ptr %fence, i64 0, i32 7
  %default = load ptr, ptr %default.at
  %ends = call i32 %sigaction(i32 %signal, ptr %default, ptr null)
  ret void

pass:
  %previous.at = getelementptr %Fence, ptr %fence, i64 0, i32 8
  %previous = load ptr, ptr %previous.at
  %restored = call i32 %sigaction(i32 %signal, ptr %previous, ptr null)
  br i1 %faulted, label %again, label %sent

sent:  ; by kill(2): nothing will fault again
  %raise.at = getelementptr %Fence, ptr %fence, i64 0, i32 6
  %raise = load ptr, ptr %raise.at
  %raised = call i32 %raise(i32 %signal)
  br label %again

again:
  ret void
}
