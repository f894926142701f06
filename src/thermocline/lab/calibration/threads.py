"""What a thread of a program does without a fault: touches of what is there, naps, and requests to the pager."""

from __future__ import annotations

import mmap
import time

import numpy as np

from thermocline.lab.calibration.samples import Samples
from thermocline.memory import Memory
from thermocline.virtual.costs import Cost

_STRIDE = 64 << 10
_TOUCHED_BYTES = 32 << 20
_NAP = 100_000  # nanoseconds

_clock = time.perf_counter_ns


def hit(rounds: int) -> Cost:
    """A touch of a page that is mapped, in C: one word of each of many pages, as a gather reads them.

    Shared memory, as the arena is: private memory may have huge pages, which reach further in the TLB.
    """
    words = np.frombuffer(mmap.mmap(-1, _TOUCHED_BYTES), np.uint64)
    words[:] = 1
    order = np.random.default_rng(0).permutation(_TOUCHED_BYTES // _STRIDE) * (_STRIDE // words.itemsize)
    found = np.empty(order.size, words.dtype)
    samples = Samples()
    for _ in range(20 * rounds):
        begun = _clock()
        np.take(words, order, out=found, mode="clip")  # the default mode would copy first
        samples.add((_clock() - begun) / order.size)
    return samples.cost()


def think(rounds: int) -> Cost:
    """How much longer a thread sleeps than it asked to (clock_nanosleep(2))."""
    samples = Samples()
    for _ in range(100 * rounds):
        begun = _clock()
        time.sleep(_NAP / 1e9)
        samples.add(max(_clock() - begun - _NAP, 0))
    return samples.cost()


def request(rounds: int) -> Cost:
    """Half of the way of a request to the pager and back: advice of which there is nothing to do."""
    samples = Samples()
    with Memory("dram=1MiB") as memory:
        array = memory.zeros(1)
        for _ in range(50 * rounds):
            begun = _clock()
            memory.advise(array, "normal")
            samples.add((_clock() - begun) / 2)
        del array
    return samples.cost()
