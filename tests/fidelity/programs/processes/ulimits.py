"""Limits that the program sets for itself: open files, file size."""

import os
import resource
import signal

import numpy as np

a = np.arange(400_000)
resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, resource.RLIM_INFINITY))
b = a + 1
try:
    a.tofile("large")
except OSError as error:
    print(error.errno)
print(os.path.getsize("large"), int(b.sum()))
resource.setrlimit(resource.RLIMIT_NOFILE, (20, 20))
files = []
try:
    while True:
        files.append(open("large", "rb"))
except OSError as error:
    print(error, len(files) > 5)
c = np.sort(a)[::-1] * 2
print(int(c.sum()), int(np.fromfile(files[0], "i8", 1000).sum()))
for file in files:
    file.close()
signal.signal(signal.SIGXCPU, lambda *_: print("xcpu"))
