; A thread that touches pages and times every touch. It has nothing to do with Python while it runs: it needs no GIL, so
; a touch that waits for its page delays no other thread, and no other thread lengthens a touch.
;
; The code uses nothing but its argument: all it needs is in the %Probe that it is called with. So there is nothing to
; link or to relocate.

%Time = type { i64, i64 }  ; struct timespec: seconds, nanoseconds

%Probe = type {
  ptr,  ;  0 words        the thread's own word of 8 bytes in page 0
  i64,  ;  1 page_shift   the next page's is 1 << page_shift bytes on
  ptr,  ;  2 accesses     an i32 for each touch: page << 1 | write
  i64,  ;  3 count        how many
  ptr,  ;  4 shadow       an i64 for each page: what the thread wrote last there
  ptr,  ;  5 nanoseconds  an i32 for each touch: how long it took
  i64,  ;  6 think        nanoseconds to sleep before each touch
  ptr,  ;  7 get_time     clock_gettime(3)
  ptr,  ;  8 sleep        clock_nanosleep(3)
  i64,  ;  9 stop         others write here: if not 0, no more touches
  i64,  ; 10 done         touches so far
  i64   ; 11 mismatches   reads so far that did not find what was written last
}

; probe(probe). Between the two looks at the clock there is the touch and nothing else: what it takes is fetched before,
; and what comes of it is put away behind.
define void @probe(ptr %probe) nounwind section ".text.probe" {
entry:
  %pause = alloca %Time
  %before = alloca %Time
  %after = alloca %Time
  %words.at = getelementptr %Probe, ptr %probe, i64 0, i32 0
  %words = load ptr, ptr %words.at
  %page_shift.at = getelementptr %Probe, ptr %probe, i64 0, i32 1
  %page_shift = load i64, ptr %page_shift.at
  %accesses.at = getelementptr %Probe, ptr %probe, i64 0, i32 2
  %accesses = load ptr, ptr %accesses.at
  %count.at = getelementptr %Probe, ptr %probe, i64 0, i32 3
  %count = load i64, ptr %count.at
  %shadow.at = getelementptr %Probe, ptr %probe, i64 0, i32 4
  %shadow = load ptr, ptr %shadow.at
  %nanoseconds.at = getelementptr %Probe, ptr %probe, i64 0, i32 5
  %nanoseconds = load ptr, ptr %nanoseconds.at
  %think.at = getelementptr %Probe, ptr %probe, i64 0, i32 6
  %think = load i64, ptr %think.at
  %get_time.at = getelementptr %Probe, ptr %probe, i64 0, i32 7
  %get_time = load ptr, ptr %get_time.at
  %sleep.at = getelementptr %Probe, ptr %probe, i64 0, i32 8
  %sleep = load ptr, ptr %sleep.at
  %stop.at = getelementptr %Probe, ptr %probe, i64 0, i32 9
  %done.at = getelementptr %Probe, ptr %probe, i64 0, i32 10
  %mismatches.at = getelementptr %Probe, ptr %probe, i64 0, i32 11
  %thinks = icmp ne i64 %think, 0
  %think.seconds = udiv i64 %think, 1000000000
  %think.rest = urem i64 %think, 1000000000
  %pause.rest.at = getelementptr %Time, ptr %pause, i64 0, i32 1
  br label %next

next:
  %touch = phi i64 [ 0, %entry ], [ %touched, %put_away ]
  %over = icmp eq i64 %touch, %count
  br i1 %over, label %end, label %wanted

wanted:
  br i1 %thinks, label %lean_back, label %look

lean_back:
  store i64 %think.seconds, ptr %pause
  store i64 %think.rest, ptr %pause.rest.at
  br label %doze

doze:
  ; A signal (EINTR) ends the sleep early, and what is left of it takes the place of %pause. The clock is
  ; CLOCK_MONOTONIC, the time relative.
  %woken = call i32 %sleep(i32 1, i32 0, ptr %pause, ptr %pause)
  %interrupted = icmp eq i32 %woken, 4
  br i1 %interrupted, label %doze, label %look

look:
  %stop = load atomic i64, ptr %stop.at monotonic, align 8
  %stopped = icmp ne i64 %stop, 0
  br i1 %stopped, label %end, label %fetch

fetch:
  %access.at = getelementptr i32, ptr %accesses, i64 %touch
  %access = load i32, ptr %access.at
  %kind = and i32 %access, 1
  %writes = icmp ne i32 %kind, 0
  %page.short = lshr i32 %access, 1
  %page = zext i32 %page.short to i64
  %offset = shl i64 %page, %page_shift
  %word = getelementptr i8, ptr %words, i64 %offset
  %last.at = getelementptr i64, ptr %shadow, i64 %page
  %last = load i64, ptr %last.at
  %new = add i64 %last, 1
  %got_before = call i32 %get_time(i32 1, ptr %before)
  br i1 %writes, label %write, label %read

write:
  store volatile i64 %new, ptr %word, align 8
  br label %put_away

read:
  %found = load volatile i64, ptr %word, align 8
  br label %put_away

put_away:
  %is = phi i64 [ %new, %write ], [ %found, %read ]
  %should_be = phi i64 [ %new, %write ], [ %last, %read ]
  %got_after = call i32 %get_time(i32 1, ptr %after)
  store i64 %should_be, ptr %last.at
  %mismatch = icmp ne i64 %is, %should_be
  %one_more = zext i1 %mismatch to i64
  %mismatches.before = load i64, ptr %mismatches.at
  %mismatches = add i64 %mismatches.before, %one_more
  store i64 %mismatches, ptr %mismatches.at
  %before.seconds = load i64, ptr %before
  %before.rest.at = getelementptr %Time, ptr %before, i64 0, i32 1
  %before.rest = load i64, ptr %before.rest.at
  %after.seconds = load i64, ptr %after
  %after.rest.at = getelementptr %Time, ptr %after, i64 0, i32 1
  %after.rest = load i64, ptr %after.rest.at
  %seconds = sub i64 %after.seconds, %before.seconds
  %whole = mul i64 %seconds, 1000000000
  %rest = sub i64 %after.rest, %before.rest
  %took = add i64 %whole, %rest
  %long = icmp ugt i64 %took, 4294967295
  %shown = select i1 %long, i64 4294967295, i64 %took
  %shown.short = trunc i64 %shown to i32
  %nanoseconds.of_it = getelementptr i32, ptr %nanoseconds, i64 %touch
  store i32 %shown.short, ptr %nanoseconds.of_it
  %touched = add i64 %touch, 1
  store i64 %touched, ptr %done.at
  br label %next

end:
  ret void
}
