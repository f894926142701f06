"""Functions of the C library by ctypes, with arrays as buffers: read, write, fread, strlen."""

import ctypes
import os

import numpy as np

libc = ctypes.CDLL(None, use_errno=True)
libc.fopen.restype = ctypes.c_void_p
a = np.arange(400_000)
fd = os.open("f", os.O_RDWR | os.O_CREAT)
print(libc.write(fd, ctypes.c_void_p(a.ctypes.data), ctypes.c_size_t(a.nbytes)))
os.lseek(fd, 0, 0)
b = np.zeros_like(a)
np.ones(500_000)
print(libc.read(fd, ctypes.c_void_p(b.ctypes.data), ctypes.c_size_t(b.nbytes)), np.array_equal(a, b))
b[:] = 0
np.ones(500_000)
stream = ctypes.c_void_p(libc.fopen(b"f", b"r"))
print(libc.fread(ctypes.c_void_p(b.ctypes.data), 8, a.size, stream), np.array_equal(a, b), libc.fclose(stream))
text = np.full(200_000, ord("x"), "u1")
text[-1] = 0
print(libc.strlen(ctypes.c_void_p(text.ctypes.data)))
print(libc.read(fd, ctypes.c_void_p(8), ctypes.c_size_t(100)), os.strerror(ctypes.get_errno()))
os.close(fd)
