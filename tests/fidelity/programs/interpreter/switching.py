"""Threads that switch every microsecond make, write and free arrays; a low recursion limit is reached in between."""

import sys
import threading

import numpy as np

sys.setswitchinterval(1e-6)
totals = [0.0] * 4


def recurse(n: int) -> float:
    return float(np.ones(20_000).sum()) + (recurse(n - 1) if n else 0.0)


def work(k: int) -> None:
    for step in range(25):
        a = np.full(30_000, k + step)
        b = a[::-1].copy()
        a += b
        totals[k] += float(a.sum())
        try:
            recurse(10_000)
        except RecursionError:
            totals[k] += 1


sys.setrecursionlimit(120)
keep = np.arange(400_000)
threads = [threading.Thread(target=work, args=(k,)) for k in range(4)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(totals, int(keep.sum()))
