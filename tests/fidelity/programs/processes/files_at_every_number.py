"""os.dup2 onto every number, select on descriptors up to 1,023, inheritable ones: what was written is what is read."""

import os
import select

import numpy as np

a = np.arange(500_000)
base = os.open("f", os.O_CREAT | os.O_RDWR)
for number in range(10, 120):
    os.dup2(base, number)
b = a * 2
for number in range(10, 120, 10):
    os.pwrite(number, b"%4d" % number, number * 4)
    a += 1
print(os.fstat(base).st_size, int(a.sum()), int(b.sum()))
reader, writer = os.pipe()
high = os.dup2(reader, 1000)
os.write(writer, b[:5])
print(select.select([high], [writer], [], 1)[0] == [high], os.readv(high, [a[:5]]), a[:6])
if not os.fork():
    print(os.pread(100, 4, 400), int((a + b).sum()), flush=True)
    os._exit(0)
print(os.wait()[1])
