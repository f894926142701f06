"""A child that works on arrays is stopped and continued from outside: SIGSTOP, SIGCONT, WUNTRACED."""

import os
import signal

import numpy as np

a = np.arange(500_000)
reader, writer = os.pipe()
child = os.fork()
if not child:
    for k in range(12):
        a += 1
        os.write(writer, b".")
    os._exit(int(a[0]))
for _ in range(3):
    os.read(reader, 1)
    os.kill(child, signal.SIGSTOP)
    _, status = os.waitpid(child, os.WUNTRACED)
    print(os.WIFSTOPPED(status))
    os.kill(child, signal.SIGCONT)
    print(os.WIFCONTINUED(os.waitpid(child, os.WCONTINUED)[1]))
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), int(a[0]))
