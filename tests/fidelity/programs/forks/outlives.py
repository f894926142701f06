"""A child goes on with its arrays when its parent has ended, and writes what it has: os.fork, os.setsid."""

import os
import sys

import numpy as np

a = np.arange(600_000)
alive, parent = os.pipe()
over, finished = os.pipe()
watcher = os.fork()
if watcher:
    # Is what the shell waits for: it ends when the grandchild, whose parent is gone by then, has.
    os.close(finished)
    os.close(parent)
    os.waitpid(watcher, 0)
    os.read(over, 1)
    print(np.fromfile("late", a.dtype)[:4], os.path.getsize("late"))
    sys.exit(3)
if not os.fork():
    os.setsid()
    os.close(parent)
    os.read(alive, 1)
    a += 1
    a.tofile("late")
    os._exit(0)
a[:] = 9
os._exit(0)
