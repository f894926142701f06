"""SIGCHLD comes for the program's own children, as often as ever, and os.wait meets no others."""

import os
import signal

import numpy as np

caught = []


def reap(*_: object) -> None:
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if not pid:
            return
        caught.append((pid, os.waitstatus_to_exitcode(status)))


signal.signal(signal.SIGCHLD, reap)
a = np.arange(700_000)
mine = []
for k in range(5):
    child = os.fork()
    if not child:
        os._exit(k + int(a[k]))
    mine.append(child)
    a[:100] = np.arange(100)
while len(caught) < 5:
    a[100:] += 1
print(sorted(status for _, status in caught), sorted(pid for pid, _ in caught) == sorted(mine))
try:
    os.wait()
except ChildProcessError as error:
    print(error)
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
if not os.fork():
    os._exit(1)
try:
    print(os.wait())
except ChildProcessError as error:
    print(error, float(np.ones(400_000).sum()))
