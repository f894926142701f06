"""Every way to exit in a child of fork, with the arrays alive: sys.exit, os._exit, SystemExit, atexit order."""

import atexit
import os
import sys

import numpy as np

a = np.ones(600_000)


def child(how: int) -> None:
    a[:] = how
    atexit.register(lambda: os.write(1, b"atexit %d\n" % int(a[0])))
    if how == 0:
        return
    if how == 1:
        sys.exit("a message")
    if how == 2:
        sys.exit(300)
    if how == 3:
        os._exit(7)
    if how == 4:
        raise SystemExit(None)
    if how == 5:
        sys.exit(-1)
    if how == 6:
        raise ValueError("uncaught")


for how in range(7):
    pid = os.fork()
    if not pid:
        atexit._clear()
        child(how)
        sys.exit()
    print(how, os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
atexit.register(lambda: print("last", float(a.sum()), float(np.ones(300_000).sum())))
atexit.register(divmod, 1, 0)
sys.exit("the end")
