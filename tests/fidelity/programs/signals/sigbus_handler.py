"""A program with handlers of its own for SIGSEGV and SIGBUS gets none while arrays are used: faulthandler."""

import faulthandler
import mmap
import os
import signal

import numpy as np

seen = []
signal.signal(signal.SIGBUS, lambda *_: seen.append("bus"))
a = np.arange(900_000)
print(int((a * 3).sum()), seen)
signal.signal(signal.SIGBUS, signal.SIG_DFL)
faulthandler.enable(all_threads=False)
print(int((a * 5)[::-1].sum()), faulthandler.is_enabled())
with open("short", "wb") as file:
    file.truncate(mmap.PAGESIZE)
file = open("short", "r+b")
view = mmap.mmap(file.fileno(), mmap.PAGESIZE)
os.truncate("short", 0)
view[0]
