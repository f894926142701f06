"""Arrays of Python objects hold their references: reference counts, gc, sorting, strings."""

import gc
import sys

import numpy as np

token = ["token"]
before = sys.getrefcount(token)
a = np.full(300_000, token, dtype=object)
print(sys.getrefcount(token) - before)
b = np.concatenate([a, a])
del a
print(sys.getrefcount(token) - before)
b[:100] = None
del b
gc.collect()
print(sys.getrefcount(token) - before)
words = np.array([str(k % 1000) for k in range(200_000)], dtype=object)
print(words.sum()[:10], np.unique(words)[:4].tolist(), sorted(set(words))[:3])
strings = np.array([str(k) for k in range(100_000)], dtype=np.dtypes.StringDType())
print(strings.nbytes, np.strings.str_len(strings).sum(), (strings + "x")[77_777])
