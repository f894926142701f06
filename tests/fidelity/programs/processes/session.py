"""Process groups, sessions and a pseudo-terminal: a child leads its own and gets the terminal's signals."""

import os
import pty
import signal

import numpy as np

a = np.arange(600_000)
pid, master = pty.fork()
if not pid:
    signal.alarm(60)
    a += 1
    print("tty", os.isatty(0), os.getsid(0) == os.getpid(), int(a.sum()), flush=True)
    signal.pause()
text = b""
while not text.endswith(b"\n"):
    text += os.read(master, 1000)
os.write(master, b"\x03")
a[:] = 0
_, status = os.waitpid(pid, 0)
print(text, os.waitstatus_to_exitcode(status))
