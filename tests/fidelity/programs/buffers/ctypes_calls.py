"""C functions on the memory of arrays: memcpy, qsort with a callback, memmove, read(2), a pointer that is kept."""

import ctypes
import os

import numpy as np

libc = ctypes.CDLL(None, use_errno=True)
a = np.arange(300_000)[::-1].copy()
b = np.zeros_like(a)
libc.memcpy(ctypes.c_void_p(b.ctypes.data), a.ctypes.data_as(ctypes.c_void_p), ctypes.c_size_t(a.nbytes))
print(
    np.array_equal(a, b),
    libc.memcmp(ctypes.c_void_p(a.ctypes.data), ctypes.c_void_p(b.ctypes.data), ctypes.c_size_t(a.nbytes)),
)
small = (np.arange(5000) * 7919 % 5003).astype("i4")
compare = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_int), ctypes.POINTER(ctypes.c_int))(
    lambda x, y: x[0] - y[0]
)
libc.qsort(ctypes.c_void_p(small.ctypes.data), ctypes.c_size_t(small.size), ctypes.c_size_t(4), compare)
print(bool((np.diff(small) >= 0).all()), int(small.sum()))
ctypes.memmove(b.ctypes.data + 80, b.ctypes.data, 800_000)
ctypes.memset(b.ctypes.data, 255, 16)
print(b[:12], ctypes.string_at(a.ctypes.data, 9), bytes(ctypes.cast(a.ctypes.data, ctypes.POINTER(ctypes.c_ubyte))[:3]))
array = (ctypes.c_long * 200_000).from_buffer(b)
array[5] = 42
print(b[5], np.ctypeslib.as_array(array).sum() == b[:200_000].sum(), type(np.ctypeslib.as_ctypes(a[:3])).__name__)
pointer = np.ctypeslib.ndpointer("i8", 1, flags="C_CONTIGUOUS")
print(np.array_equal(np.ctypeslib.as_array(a.ctypes.data_as(ctypes.POINTER(ctypes.c_long)), (300_000,)), a))
a.tofile("a")
fd = os.open("a", os.O_RDONLY)
b[:] = 0
print(os.readv(fd, [b]), np.array_equal(a, b))
os.close(fd)
del array
