"""sys.settrace, sys.setprofile and audit hooks see the program's own lines and calls, and no others."""

import sys
import threading

import numpy as np

events: list[str] = []


def trace(frame, event, arg):
    events.append(f"{event} {frame.f_code.co_name} {frame.f_code.co_filename.rsplit('/', 1)[-1]}")
    return trace


def profile(frame, event, arg) -> None:
    if event.startswith("c_"):
        events.append(f"{event} {getattr(arg, '__name__', arg)}")
    else:
        trace(frame, event, arg)


def work() -> float:
    a = np.empty(300_000)
    a[:] = 1
    b = a + a
    del a
    return float(b.sum())


work()
sys.settrace(trace)
work()
sys.settrace(None)
print(*events, sep="\n")
events.clear()
threading.setprofile(profile)
thread = threading.Thread(target=work)
thread.start()
thread.join()
threading.setprofile(None)
sys.setprofile(profile)
work()
sys.setprofile(None)
print(*events, sep="\n")
audited: list[str] = []
sys.addaudithook(lambda event, args: audited.append(event))
work()
print(audited)
