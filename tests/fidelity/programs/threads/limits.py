"""A thread's stack size, its native id and its excepthook are the program's: threading."""

import sys
import threading

import numpy as np

threading.stack_size(256 * 1024)
threading.excepthook = lambda args: print("hook", args.exc_type.__name__, args.exc_value, args.thread.name)


def fail() -> None:
    np.ones(500_000)[600_000]


thread = threading.Thread(target=fail, name="failing")
thread.start()
thread.join()
threading.excepthook = threading.__excepthook__
thread = threading.Thread(target=lambda: np.zeros(400_000).reshape(3, -1), name="reshaping")
thread.start()
thread.join()
print([t.name for t in threading.enumerate()], sys.getswitchinterval(), float(np.ones(300_000).sum()))
