"""numba: prange, reductions, guvectorize, cfunc, and arrays that are made and returned by compiled code.

Needs: numba
"""

import numba
import numpy as np


@numba.njit(parallel=True)
def scaled(a, factor):
    out = np.empty_like(a)
    for k in numba.prange(a.size):
        out[k] = a[k] * factor + k
    return out


@numba.njit(parallel=True)
def total(a):
    s = 0.0
    for k in numba.prange(a.size):
        s += a[k]
    return s


@numba.njit(nogil=True)
def made(n):
    a = np.zeros((n, 3))
    for k in range(n):
        a[k, k % 3] = k
    return a.T.copy(), a[::2]


@numba.guvectorize(["f8[:], f8[:]"], "(n)->()")
def spread(row, out):
    out[0] = row.max() - row.min()


@numba.vectorize(["f8(f8, f8)"], target="parallel")
def hypotenuse(x, y):
    return (x * x + y * y) ** 0.5


@numba.njit
def bad(a):
    return a.reshape((7, 11))


a = np.arange(400_000, dtype="f8")
print(scaled(a, 2.0)[[0, 5, -1]], total(np.floor(a)), [part.sum() for part in made(100_000)])
print(spread(a.reshape(-1, 1000)).sum(), hypotenuse(a, a[::-1]).sum().round(3))
try:
    bad(a)
except ValueError as error:
    print(error)
