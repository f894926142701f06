"""System calls on the buffers of arrays: mmap.write, os.pwritev, os.preadv, sendfile, splice, copy_file_range."""

import mmap
import os
import socket
import threading

import numpy as np

a = np.arange(400_000)
fd = os.open("f", os.O_RDWR | os.O_CREAT, 0o640)
print(os.pwritev(fd, [a[:1000], a[1000:]], 0), os.fstat(fd).st_size)
b = np.zeros_like(a)
print(os.preadv(fd, [b[:7], b[7:]], 0), np.array_equal(a, b))
os.ftruncate(fd, 4_000_000)
with mmap.mmap(fd, 4_000_000) as view:
    view.write(a)
    view.seek(8 * 1000)
    print(np.frombuffer(view.read(80), "i8"), view.find(a[5000:5003].tobytes()))
copy = os.open("g", os.O_RDWR | os.O_CREAT, 0o600)
print(os.copy_file_range(fd, copy, 1_000_000, 8, 16), os.sendfile(copy, fd, 0, 4096))
one, other = socket.socketpair()
got = np.zeros(500_000, "u1")


def receive() -> None:
    filled = 0
    while filled < got.size and (n := other.recv_into(got[filled:])):
        filled += n


thread = threading.Thread(target=receive)
thread.start()
with open("f", "rb") as file:
    print(one.sendfile(file, 16, 500_000))
one.close()
thread.join()
other.close()
print(np.array_equal(got, a[2:].view("u1")[:500_000]))
for bad in (lambda: os.write(copy, a[::2]), lambda: os.readv(copy, [b"x"]), lambda: os.pread(fd, -1, 0)):
    try:
        bad()
    except (ValueError, BufferError, TypeError, OSError) as error:
        print(type(error).__name__, error)
os.close(fd)
os.close(copy)
