"""Under ulimit -n 90: files are opened until there are no more, and a child has as many.

Started by: prlimit --nofile=90:90
"""

import os

import numpy as np

a = np.arange(500_000)
files = []
while len(files) < 20:
    files.append(os.open("f", os.O_CREAT | os.O_RDWR))
print(len(files), int((a + 1).sum()))
if not os.fork():
    print(os.open("f", os.O_RDWR) > 0, int((a + 2).sum()), flush=True)
    os._exit(0)
print(os.wait()[1])
