"""ProcessPoolExecutor sends arrays to and fro, raises what a worker raised, and tells of a worker that died."""

import os
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool

import numpy as np

DATA = np.linspace(0, 1, 500_000)


def moments(k: int) -> tuple[int, float, np.ndarray]:
    part = DATA[k * 100_000 : (k + 1) * 100_000]
    return k, float(part.mean()), np.sort(part)[::-1]


def fail(k: int) -> None:
    raise ValueError(f"no {k}")


if __name__ == "__main__":
    with ProcessPoolExecutor(2) as pool:
        for k, mean, array in sorted(
            (f.result() for f in as_completed(pool.submit(moments, k) for k in range(5))), key=lambda r: r[0]
        ):
            print(k, round(mean, 6), array.flags.writeable, array[:2])
        try:
            pool.submit(fail, 3).result()
        except ValueError as error:
            print(error)
    with ProcessPoolExecutor(1) as pool:
        try:
            pool.submit(os._exit, 3).result()
        except BrokenProcessPool as error:
            print(type(error).__name__)
