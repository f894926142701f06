"""What copy on write costs: a program's first writes after a fork, and a pool that only reads.

    python benchmarks/forking.py [--rounds 5]

Both sides alternate; medians, and the ratio of medians. What is compared with is plain memory for the writes, which the
kernel copies page by page, and a memory whose children share its arrays (``fork="share"``) for the pool.
"""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import os
import statistics
import time
from collections.abc import Callable, Iterator

import numpy as np

import thermocline as tc

MIB = 1 << 20
#: Bytes of the array that is written, and of the one that the pool reads, which has half of that as DRAM.
WRITTEN, READ = 64 * MIB, 256 * MIB
WORKERS, ROWS = 4, 64


@contextlib.contextmanager
def forked(look: Callable[[], object]) -> Iterator[None]:
    """While a child is there, which has looked at something first."""
    ready, end = os.pipe(), os.pipe()
    child = os.fork()
    if not child:
        look()
        os.write(ready[1], b".")
        os.close(end[1])
        os.read(end[0], 1)
        os._exit(0)
    os.read(ready[0], 1)
    yield
    os.close(end[1])
    os.waitpid(child, 0)
    for fd in (*ready, end[0]):
        os.close(fd)


def write(array: np.ndarray, *, reads: bool) -> float:
    """Seconds that a program takes to write to each page of an array after a fork."""
    with forked(array.sum if reads else lambda: None):
        begun = time.perf_counter()
        array[:: 4096 // array.itemsize] += 1
        return time.perf_counter() - begun


def first_writes(rounds: int) -> None:
    """Beside plain memory, with a child that has read the array, and with one that has not."""
    print(f"{'first write of 64 MiB after a fork':<40}{'plain (ms)':>12}{'tiered (ms)':>13}{'ratio':>8}")
    with tc.Memory("dram=256MiB, zstd=64MiB") as memory:
        plain, tiered = np.ones(WRITTEN // 8), memory.full(WRITTEN // 8, 1.0)
        for reads in (False, True):
            one, other = [], []
            for _ in range(rounds):
                one.append(write(plain, reads=reads))
                other.append(write(tiered, reads=reads))
            _say("the child has read it" if reads else "the child has not touched it", one, other)
        del tiered


_array: list[np.ndarray] = []


def _sum(row: int) -> float:
    return float(_array[0][row].sum())


def read(fork: str) -> float:
    """Seconds that a pool takes to sum up the rows of an array, three times over."""
    with tc.Memory(f"dram={READ // 2}, zstd={READ}", fork=fork) as memory:
        _array[:] = [memory.empty((ROWS, READ // ROWS // 8))]
        _array[0][:] = np.arange(READ // ROWS // 8)
        with multiprocessing.get_context("fork").Pool(WORKERS) as pool:
            begun = time.perf_counter()
            for _ in range(3):
                pool.map(_sum, range(ROWS), chunksize=1)
            taken = time.perf_counter() - begun
        _array.clear()
        return taken


def reading_pool(rounds: int) -> None:
    """Four workers, and an array twice the size of DRAM."""
    print(f"\n{'a pool of 4 that reads, 256 MiB in 128':<40}{'share (ms)':>12}{'copy (ms)':>13}{'ratio':>8}")
    share, copy = [], []
    for _ in range(rounds):
        share.append(read("share"))
        copy.append(read("copy"))
    _say("three times over", share, copy)


def _say(what: str, one: list[float], other: list[float]) -> None:
    first, second = statistics.median(one), statistics.median(other)
    print(f"{what:<40}{first * 1e3:>12.1f}{second * 1e3:>13.1f}{second / first:>8.2f}", flush=True)


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    first_writes(arguments.rounds)
    reading_pool(arguments.rounds)


if __name__ == "__main__":
    main()
