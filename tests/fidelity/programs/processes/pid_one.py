"""PID 1 of a container reaps children until there are none, orphans among them: os.wait, ChildProcessError.

Started by: unshare --pid --fork --mount-proc
Settings: full, library
"""

import os
import signal
import subprocess

import numpy as np

signal.signal(signal.SIGALRM, lambda *_: (print("os.wait() hangs", flush=True), os._exit(3)))
a = np.ones(600_000)
a += 1
orphan = subprocess.Popen(["sh", "-c", "sh -c 'exit 4' & exit 3"])
seen = []
signal.alarm(20)
try:
    while True:
        seen.append(os.waitstatus_to_exitcode(os.wait()[1]))
except ChildProcessError as error:
    print(error)
orphan.returncode = 0
print(sorted(set(seen)), float(a.sum()))
child = os.fork()
if not child:
    a *= 2
    os._exit(int(a[5]))
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
