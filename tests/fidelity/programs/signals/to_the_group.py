"""A signal that the program sends to its own process group comes to it once, and to its children: os.killpg."""

import os
import signal

import numpy as np

caught = []
for number in (signal.SIGUSR1, signal.SIGTERM, signal.SIGWINCH):
    signal.signal(number, lambda number, _: caught.append(number))
a = np.arange(600_000)
ready, tell = os.pipe()
child = os.fork()
if not child:
    os.write(tell, b"x")
    while len(caught) < 3:
        a += 1
    os._exit(int(sum(caught)))
os.read(ready, 1)
for number in (signal.SIGUSR1, signal.SIGTERM, signal.SIGWINCH):
    os.killpg(0, number)
    a += 1
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), sorted(caught), int(a[0]))
