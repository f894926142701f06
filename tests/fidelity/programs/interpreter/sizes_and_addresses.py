"""What an array says of itself: sys.getsizeof, the array interface, DLPack, buffers, pickled size, identity of data."""

import ctypes
import sys

import numpy as np

a = np.arange(400_000)
b = np.from_dlpack(a)
print(sys.getsizeof(a), a.__array_interface__["strides"], a.__array_interface__["data"][1], b.flags.writeable)
print(np.shares_memory(a, b), a.data.nbytes, a.data.format, a.data.c_contiguous, a.ctypes.data == a[0:].ctypes.data)
print(a.__dlpack_device__(), a.base, a[5:].base is a, ctypes.sizeof(ctypes.c_char * a.nbytes))
empty = np.empty(0)
print(empty.nbytes, np.empty((3, 0, 5)).sum(), np.lib.array_utils.byte_bounds(a)[1] - a.ctypes.data)
a.setflags(write=False)
try:
    np.from_dlpack(a)[0] = 1
except (ValueError, BufferError) as error:
    print(type(error).__name__, error)
