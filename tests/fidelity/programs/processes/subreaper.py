"""A process that adopts orphans (PR_SET_CHILD_SUBREAPER) meets those of its children, and no others: os.wait.

Settings: full, 4k, user, library
"""

import ctypes
import os
import signal
import subprocess

ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)
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
print(sorted(seen), float(a.sum()))
