"""What is done to an array: each workload is timed, and checks what it reads.

The array is one-dimensional, of words, and has been filled. Random places are looked up a few hundred at a time, so
that it is the memory that is timed and not the interpreter.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import numpy as np
from contents import BLOCK, STRETCH, Contents

#: Places that are looked up at once.
_AT_ONCE = 256


class WrongError(Exception):
    """A word is not what was written."""


def _check(right: bool, what: str) -> None:
    if not right:
        raise WrongError(what)


def fill(array: np.ndarray, contents: Contents, count: int) -> tuple[float, int]:
    """Write everything once -> seconds, and how many bytes."""
    begun = time.perf_counter()
    for block in range(len(array) // BLOCK):
        contents.write(array, block)
    return time.perf_counter() - begun, array.nbytes


def scan(array: np.ndarray, contents: Contents, count: int) -> tuple[float, int]:
    """Read everything once, in order -> seconds, and how many bytes."""
    sums = []
    begun = time.perf_counter()
    for block in range(len(array) // BLOCK):
        sums.append(int(array[block * BLOCK : (block + 1) * BLOCK].sum()))
    seconds = time.perf_counter() - begun
    _check(sums == [contents.sum(block) for block in range(len(sums))], "scan")
    return seconds, array.nbytes


def strided(array: np.ndarray, contents: Contents, count: int) -> tuple[float, int]:
    """Read one word of each 64 KiB, in order -> seconds, and how many words."""
    step = 16 * STRETCH
    places = np.arange(0, len(array), step) + 7
    begun = time.perf_counter()
    got = array[7::step].copy()
    seconds = time.perf_counter() - begun
    _check(bool((got == contents.at(places)).all()), "strided")
    return seconds, len(places)


def _lookups(array: np.ndarray, contents: Contents, places: np.ndarray, what: str) -> tuple[float, int]:
    got = np.empty(len(places), "u8")
    begun = time.perf_counter()
    for start in range(0, len(places), _AT_ONCE):
        part = slice(start, start + _AT_ONCE)
        got[part] = array[places[part]]
    seconds = time.perf_counter() - begun
    _check(bool((got == contents.at(places)).all()), what)
    return seconds, len(places)


def uniform(array: np.ndarray, contents: Contents, count: int) -> tuple[float, int]:
    """Read words anywhere -> seconds, and how many."""
    return _lookups(array, contents, np.random.default_rng(1).integers(0, len(array), count), "uniform")


def zipf(array: np.ndarray, contents: Contents, count: int) -> tuple[float, int]:
    """Read words of stretches of 4 KiB that are as popular as Zipf's law has it (0.99) -> seconds, and how many."""
    random = np.random.default_rng(2)
    stretches = len(array) // STRETCH
    weights = np.cumsum(np.arange(1, stretches + 1) ** -0.99)
    ranks = np.searchsorted(weights, random.random(count) * weights[-1])
    places = random.permutation(stretches)[ranks] * STRETCH + random.integers(0, STRETCH, count)
    return _lookups(array, contents, places, "zipf")


def update(array: np.ndarray, contents: Contents, count: int) -> tuple[float, int]:
    """Read, change and write words anywhere -> seconds, and how many. They are as before in the end."""
    places = np.unique(np.random.default_rng(3).integers(0, len(array), count))
    places = np.random.default_rng(4).permutation(places)

    def add(amount: int) -> float:
        begun = time.perf_counter()
        for start in range(0, len(places), _AT_ONCE):
            array[places[start : start + _AT_ONCE]] += np.uint64(amount)
        return time.perf_counter() - begun

    seconds = add(1)
    _check(bool((array[places] == contents.at(places) + np.uint64(1)).all()), "update")
    add((1 << 64) - 1)
    return seconds, len(places)


Workload = Callable[[np.ndarray, Contents, int], tuple[float, int]]
#: In the order in which they are run.
WORKLOADS: dict[str, Workload] = {
    "fill": fill,
    "scan": scan,
    "strided": strided,
    "uniform": uniform,
    "zipf": zipf,
    "update": update,
}


def run(array: np.ndarray, contents: Contents, count: int) -> Iterator[tuple[str, float, int]]:
    """All of them -> name, seconds, and bytes or words."""
    for name, workload in WORKLOADS.items():
        yield (name, *workload(array, contents, count))
