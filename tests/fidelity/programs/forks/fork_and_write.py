"""A forked child has the arrays as they were; what either writes, the other does not see: os.fork, os.waitpid."""

import os

import numpy as np

a = np.arange(800_000)
b = a * 2
child = os.fork()
if not child:
    a += 1
    np.save("child.npy", a[::1000])
    ok = bool((b == 2 * (a - 1)).all())
    os._exit(7 if ok else 8)
a[:] = -1
b[:] = -2
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
seen = np.load("child.npy")
print(seen[:5], seen[-1], int(a.sum()), int(b.sum()))
