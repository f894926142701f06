"""What is done to an array: each workload is timed, and checks what it reads.

The array is one-dimensional, of words, and has been filled. Random places are looked up a few hundred at a time, so
that it is the memory that is timed and not the interpreter. They, and what is right there, are made beforehand: they
must not take of the memory that a side is given.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from contents import BLOCK, STRETCH, Contents, check
from numerics import multiply, sort

#: Places that are looked up at once.
_AT_ONCE = 256
#: Threads at once, at most.
_THREADS = 2
#: 64 KiB, and which word of them is read, by how many threads do it.
_STEP, _OFFSETS = 16 * STRETCH, {1: 7, 2: 8 * STRETCH + 7}


class Work:
    """What is done, prepared, and the threads that do it. To be used in a ``with`` block, which ends them.

    The threads are started at once: under a limit of memory that is reached, the kernel makes none, and does not wait.

    Parameters
    ----------
    contents : Contents
    words : int
        How many the array has.
    count : int
        How many words are looked up in each of the scattered workloads.
    """

    def __init__(self, contents: Contents, words: int, count: int) -> None:
        self._threads = ThreadPoolExecutor(_THREADS)
        gate = threading.Barrier(_THREADS)
        list(self._threads.map(lambda _: gate.wait(), range(_THREADS)))
        self.contents = contents
        self.blocks = words // BLOCK
        self.sums = [contents.sum(block) for block in range(self.blocks)]
        # Other places for two threads than for one: what one has looked up is in DRAM.
        self.places = {
            (name, threads): places
            for threads in (1, 2)
            for name, places in {
                "strided": np.arange(0, words, _STEP) + _OFFSETS[threads],
                "uniform": np.random.default_rng([1, threads]).integers(0, words, count),
                "zipf": _popular(words, count, threads),
                "update": _once(words, count, threads),
            }.items()
        }
        self.right = {which: contents.at(places) for which, places in self.places.items()}
        self.got = np.zeros(max(map(len, self.places.values())), "u8")

    def __enter__(self) -> Work:
        return self

    def __exit__(self, *_: object) -> None:
        self._threads.shutdown()

    def together(self, threads: int, total: int, do: Callable[[int, int], None]) -> float:
        """Have each thread do its share of so many steps, from one number up to another -> seconds, of all of it."""
        bounds = [total * number // threads for number in range(threads + 1)]
        if threads == 1:
            begun = time.perf_counter()
            do(0, total)
            return time.perf_counter() - begun
        gate = threading.Barrier(threads + 1)

        def share(number: int) -> None:
            gate.wait()
            do(bounds[number], bounds[number + 1])

        shares = [self._threads.submit(share, number) for number in range(threads)]
        gate.wait()
        begun = time.perf_counter()
        for done in shares:
            done.result()
        return time.perf_counter() - begun


def _once(words: int, count: int, threads: int) -> np.ndarray:
    """Words that are all different: of two threads that add to the same at once, one may be lost."""
    random = np.random.default_rng([3, threads])
    return random.permutation(np.unique(random.integers(0, words, count)))


def _popular(words: int, count: int, threads: int) -> np.ndarray:
    """Words of stretches of 4 KiB that are as popular as Zipf's law has it (0.99): always the same ones."""
    stretches = words // STRETCH
    order = np.random.default_rng(2).permutation(stretches)
    random = np.random.default_rng([2, threads])
    weights = np.cumsum(np.arange(1, stretches + 1) ** -0.99)
    ranks = np.searchsorted(weights, random.random(count) * weights[-1])
    return order[ranks] * STRETCH + random.integers(0, STRETCH, count)


def fill(array: np.ndarray, work: Work, threads: int) -> tuple[float, int]:
    """Write everything once -> seconds, and how many bytes."""

    def write(first: int, end: int) -> None:
        for block in range(first, end):
            work.contents.write(array, block)

    return work.together(threads, work.blocks, write), array.nbytes


def scan(array: np.ndarray, work: Work, threads: int) -> tuple[float, int]:
    """Read everything once, in order -> seconds, and how many bytes."""
    sums = [0] * work.blocks

    def read(first: int, end: int) -> None:
        for block in range(first, end):
            sums[block] = int(array[block * BLOCK : (block + 1) * BLOCK].sum())

    seconds = work.together(threads, work.blocks, read)
    check(sums == work.sums, "scan")
    return seconds, array.nbytes


def strided(array: np.ndarray, work: Work, threads: int) -> tuple[float, int]:
    """Read one word of each 64 KiB, in order -> seconds, and how many words."""
    offset = _OFFSETS[threads]
    got = work.got[: len(work.places["strided", threads])]

    def read(first: int, end: int) -> None:
        got[first:end] = array[first * _STEP + offset : end * _STEP : _STEP]

    seconds = work.together(threads, len(got), read)
    check((got == work.right["strided", threads]).all(), "strided")
    return seconds, len(got)


def _lookups(array: np.ndarray, work: Work, threads: int, name: str) -> tuple[float, int]:
    places = work.places[name, threads]
    got = work.got[: len(places)]

    def read(first: int, end: int) -> None:
        for start in range(first, end, _AT_ONCE):
            part = slice(start, min(start + _AT_ONCE, end))
            got[part] = array[places[part]]

    seconds = work.together(threads, len(places), read)
    check((got == work.right[name, threads]).all(), name)
    return seconds, len(places)


def uniform(array: np.ndarray, work: Work, threads: int) -> tuple[float, int]:
    """Read words anywhere -> seconds, and how many."""
    return _lookups(array, work, threads, "uniform")


def zipf(array: np.ndarray, work: Work, threads: int) -> tuple[float, int]:
    """Read words of stretches of 4 KiB, popular and not -> seconds, and how many."""
    return _lookups(array, work, threads, "zipf")


def update(array: np.ndarray, work: Work, threads: int) -> tuple[float, int]:
    """Read, change and write words anywhere -> seconds, and how many. They are as before in the end."""
    places = work.places["update", threads]

    def add(amount: int) -> float:
        def change(first: int, end: int) -> None:
            for start in range(first, end, _AT_ONCE):
                array[places[start : min(start + _AT_ONCE, end)]] += np.uint64(amount)

        return work.together(threads, len(places), change)

    seconds = add(1)
    check((array[places] == work.right["update", threads] + np.uint64(1)).all(), "update")
    add((1 << 64) - 1)
    return seconds, len(places)


def product(array: np.ndarray, work: Work, threads: int) -> tuple[float, int]:
    """A matrix product, block by block, of matrices that fill the array -> seconds, and 1. Nothing stays as it was."""
    seconds, right = multiply(array)
    check(right, "product")
    return seconds, 1


def sorting(array: np.ndarray, work: Work, threads: int) -> tuple[float, int]:
    """Fill it with random numbers, sort it in place -> seconds of the sort, and 1. Nothing stays as it was."""
    seconds, right = sort(array)
    check(right, "sort")
    return seconds, 1


@dataclass(frozen=True)
class Workload:
    """A workload, in how many threads, and in what its time is told (see `figure`)."""

    run: Callable[[np.ndarray, Work, int], tuple[float, int]]
    unit: str
    threads: int = 1

    def figure(self, array: np.ndarray, work: Work) -> float:
        """Do it -> GB/s of bytes, us for each word, or seconds for the whole."""
        seconds, amount = self.run(array, work, self.threads)
        return {"GB/s": 1e-9 * amount / seconds, "us": 1e6 * seconds / amount, "s": seconds}[self.unit]


_PLAIN = {
    "fill": Workload(fill, "GB/s"),
    "scan": Workload(scan, "GB/s"),
    "a word each 64 KiB": Workload(strided, "us"),
    "uniform reads": Workload(uniform, "us"),
    "Zipf reads": Workload(zipf, "us"),
    "read-modify-write": Workload(update, "us"),
}
#: They make their own contents.
ALGORITHMS = {"matrix product": Workload(product, "s"), "sort": Workload(sorting, "s")}
#: In the order in which they are run.
WORKLOADS: dict[str, Workload] = {
    **_PLAIN,
    **{f"{name}, 2 threads": Workload(workload.run, workload.unit, 2) for name, workload in _PLAIN.items()},
    **ALGORITHMS,
}
#: What it makes a difference for whether a file is cached.
SCATTERED = {name for name, workload in WORKLOADS.items() if workload.run in {strided, uniform, zipf, update}}
#: Those that read or write in order: what a file's readahead is good for.
IN_ORDER = {name for name, workload in WORKLOADS.items() if workload.run in {fill, scan, product, sorting}}
