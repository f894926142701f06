"""Flags, strides, alignment and byte order of large arrays are NumPy's."""

import numpy as np

for dtype in ("u1", "f4", "f8", "c16", ">i4", "S7", "U3", "M8[s]", "i4,f8"):
    a = np.zeros(300_000, dtype)
    print(dtype, a.flags.aligned, a.flags.owndata, a.flags.writeable, a.strides, a.ctypes.data % 16, a.nbytes)
f = np.asfortranarray(np.arange(100_000).reshape(100, 1000))
print(f.flags.f_contiguous, f.strides, int(f[:, 3].sum()))
r = np.require(f, requirements=["C", "W", "O", "A"])
r[0, 0] = 5
print(r.flags.c_contiguous, f[0, 0])
print(
    np.shares_memory(f, f.T), np.may_share_memory(f, r), np.byte_bounds(f)[1] > 0 if hasattr(np, "byte_bounds") else ""
)
locked = np.ones(200_000)
locked.flags.writeable = False
try:
    locked += 1
except ValueError as error:
    print(error)
