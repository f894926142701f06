"""Daemon threads are in the middle of array work when the interpreter ends: exit status and output as ever."""

import atexit
import sys
import threading

import numpy as np

started = threading.Barrier(4)


def work() -> None:
    a = np.ones(300_000)
    started.wait()
    while True:
        a = a + np.ones(300_000)
        a -= 1


atexit.register(lambda: print("atexit", float(np.ones(400_000).sum())))
for _ in range(3):
    threading.Thread(target=work, daemon=True).start()
started.wait()
print("main is over", flush=True)
sys.exit(5)
