"""A large array of zeros of which little is touched: np.zeros, np.roll, np.nonzero."""

import numpy as np

a = np.zeros((2000, 2000))
print(a.nbytes, float(a.sum()), a.any())
a[::500, ::500] = 1
print(np.nonzero(a)[0][:4].tolist(), float(np.roll(a, 3, 0).sum()), int(np.count_nonzero(a)))
b = np.zeros_like(a[:, :200])
print(bool((b == 0).all()), np.empty((0, 5)).shape)
