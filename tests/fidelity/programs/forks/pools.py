"""Pools of all three start methods read an array of their parent, or are sent it: multiprocessing."""

import multiprocessing

import numpy as np

TABLE = np.arange(1_000_000, dtype="f8") if __name__ == "__main__" else None


def row_sum(k: int) -> float:
    return -1.0 if TABLE is None else float(TABLE[k::10].sum())


def scaled(array: np.ndarray) -> np.ndarray:
    array *= 2
    return array


if __name__ == "__main__":
    for method in ("fork", "forkserver", "spawn"):
        with multiprocessing.get_context(method).Pool(2) as pool:
            print(method, pool.map(row_sum, range(4)))
            back = pool.map(scaled, [TABLE[:200_000], TABLE[200_000:400_000]])
            print([float(array.sum()) for array in back], float(TABLE.sum()))
