"""A child that works on arrays is stopped and continued from outside: SIGSTOP, SIGCONT, WUNTRACED."""

import os
import signal

import numpy as np

a = np.arange(500_000)
told, teller = os.pipe()
asked, asker = os.pipe()
child = os.fork()
if not child:
    for _ in range(4):
        a += 1
        os.write(teller, b".")
        os.read(asked, 1)
    os._exit(int(a[0]))
for _ in range(4):
    os.read(told, 1)
    os.kill(child, signal.SIGSTOP)
    _, status = os.waitpid(child, os.WUNTRACED)
    print(os.WIFSTOPPED(status))
    os.kill(child, signal.SIGCONT)
    print(os.WIFCONTINUED(os.waitpid(child, os.WCONTINUED)[1]))
    os.write(asker, b".")
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), int(a[0]))
