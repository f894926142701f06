"""The errno that ctypes keeps for the program outlives the arrays that are made and freed meanwhile: ctypes."""

import ctypes

import numpy as np

libc = ctypes.CDLL(None, use_errno=True)
libc.close(-1)
kept = [np.ones(50_000 + size) for size in range(0, 400_000, 20_000)]
print(ctypes.get_errno())
while kept:
    kept.pop()
    np.empty(2_000_000)[:] = 1
print(ctypes.get_errno())
