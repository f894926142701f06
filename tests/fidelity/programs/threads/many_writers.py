"""Sixteen threads write to parts of one array and make arrays of their own: threading, ThreadPoolExecutor."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np

whole = np.zeros((16, 20_000))


def fill(k: int) -> float:
    for step in range(4):
        own = np.full(20_000, float(k + step))
        whole[k] += np.sort(own + np.arange(20_000) % 7)
    return float(whole[k].sum())


with ThreadPoolExecutor(16) as pool:
    print(list(pool.map(fill, range(16))))
print(float(whole.sum()))
