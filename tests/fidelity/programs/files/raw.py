"""tofile, fromfile (with counts, offsets and separators), memmap, readinto, a file object in every mode."""

import io
import os

import numpy as np

a = np.arange(500_000)
a.tofile("raw")
print(
    os.path.getsize("raw"), np.fromfile("raw", "i8", count=3, offset=8000), np.array_equal(np.fromfile("raw", "i8"), a)
)
with open("raw", "r+b") as file:
    file.seek(800)
    print(np.fromfile(file, "i8", 5), file.tell())
    file.seek(0, os.SEEK_END)
    a[::1000].tofile(file)
    print(file.tell())
with open("raw", "rb", buffering=0) as file:
    b = np.zeros(500_500, "i8")
    print(file.readinto(b), np.array_equal(b[:500_000], a), file.readinto(b), file.readinto(b[:0]))
with open("raw", "rb") as file:
    b[:] = 0
    print(file.readinto(memoryview(b)[10:].cast("B")), int(b[9]), int(b[11]))
with open("copy", "wb") as file:
    print(file.write(a), file.write(a[:0]), file.write(a.data[5:8]))
a[:2000].tofile("text", sep=",", format="%d")
print(int(np.fromfile("text", "i8", sep=",").sum()))
m = np.memmap("mapped", "f4", "w+", shape=(300, 1000))
m[:] = np.arange(1000)
m.flush()
print(float(np.memmap("mapped", "f4", "r", offset=4000)[:1000].sum()), io.BytesIO(a).getbuffer().nbytes)
try:
    np.fromfile("raw", "i8", count=-5, offset=-1)
except (ValueError, OSError) as error:
    print(type(error).__name__, error)
with open("copy", "rb") as file:
    try:
        a.tofile(file)
    except OSError as error:
        print(type(error).__name__, error)
