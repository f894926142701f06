"""A daemon closes all descriptors that it does not know, then opens files of its own: os.closerange."""

import os

import numpy as np

a = np.arange(600_000)
os.closerange(3, 4096)
files = [open(f"file{k}", "w") for k in range(30)]
print([file.fileno() for file in files][:3])
for k, file in enumerate(files):
    a += 1
    b = a[::2] * k
    file.write(f"{k} {int(b.sum())}\n")
for file in files:
    file.close()
print(int(a.sum()))
