"""Two algorithms over a whole array: a matrix product, block by block, and a sort. Both know what must come out."""

from __future__ import annotations

import time

import numpy as np

#: Rows of the transposed right matrix that are multiplied at once: of 117 KiB each where the array has 2 GiB.
_PANEL = 512
#: The left matrix has so many times fewer rows than the right one, and is multiplied in two halves.
_FLAT = 24
_CHUNK = 1 << 17


def multiply(words: np.ndarray) -> tuple[float, bool]:
    """C = A B, with A, B (transposed) and C side by side in an array of words -> seconds, and whether C is right.

    The elements are small whole numbers in float64, so that every sum is exact. C is right if C x = A (B x) for a
    random x (Freivalds).
    """
    numbers = words.view("f8")
    size = int((len(numbers) * _FLAT / (_FLAT + 2)) ** 0.5)
    rows = max(size // _FLAT, 1)
    right = numbers[: size * size].reshape(size, size)
    left = numbers[size * size :][: rows * size].reshape(rows, size)
    result = numbers[size * (size + rows) :][: rows * size].reshape(rows, size)
    random = np.random.default_rng(5)
    probe = random.integers(1, 16, size).astype("f8")
    right_probe = np.zeros(size)
    for start in range(0, size, _PANEL):
        panel = right[start : start + _PANEL]
        panel[:] = random.integers(0, 16, panel.shape, dtype="u1")
        right_probe += probe[start : start + _PANEL] @ panel
    expected = np.zeros(rows)
    for start in range(0, rows, _PANEL):
        panel = left[start : start + _PANEL]
        panel[:] = random.integers(0, 16, panel.shape, dtype="u1")
        expected[start : start + _PANEL] = panel @ right_probe

    half = -(-rows // 2)
    begun = time.perf_counter()
    for first in range(0, rows, half):
        some = left[first : first + half]
        for start in range(0, size, _PANEL):
            result[first : first + half, start : start + _PANEL] = some @ right[start : start + _PANEL].T
    seconds = time.perf_counter() - begun
    got = np.concatenate([result[start : start + _PANEL] @ probe for start in range(0, rows, _PANEL)])
    return seconds, bool((got == expected).all())


def sort(words: np.ndarray) -> tuple[float, bool]:
    """Fill the array with random numbers, and sort it in place -> seconds of the sort, and whether it is sorted.

    It is if it is in order and its sum is the same, modulo 2**64.
    """
    random = np.random.default_rng(6)
    with np.errstate(over="ignore"):
        before = np.uint64(0)
        for start in range(0, len(words), _CHUNK):
            part = words[start : start + _CHUNK]
            part[:] = random.integers(0, 10**6, len(part), dtype="u8")
            before += part.sum()
        begun = time.perf_counter()
        words.sort()
        seconds = time.perf_counter() - begun
        after, last = np.uint64(0), np.uint64(0)
        for start in range(0, len(words), _CHUNK):
            part = words[start : start + _CHUNK]
            if part[0] < last or (part[1:] < part[:-1]).any():
                return seconds, False
            after += part.sum()
            last = part[-1]
    return seconds, bool(before == after)
