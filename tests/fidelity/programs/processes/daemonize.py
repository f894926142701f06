"""The double fork of daemon(7), streams to /dev/null, descriptors closed: the daemon works on its arrays."""

import os
import sys

import numpy as np

a = np.arange(500_000)
reader, writer = os.pipe()
if os.fork():
    os.close(writer)
    print(os.read(reader, 100).decode())
    os.wait()
    sys.exit(4)
os.setsid()
if os.fork():
    os._exit(0)
os.chdir("/")
os.umask(0)
keep = os.dup2(writer, 50)
os.closerange(3, 50)
os.closerange(51, 4096)
null = os.open(os.devnull, os.O_RDWR)
for stream in range(3):
    os.dup2(null, stream)
a *= 3
b = np.ones(300_000) + a[:300_000]
os.write(50, f"{int(a.sum())} {float(b.sum())} {null}".encode())
os._exit(0)
