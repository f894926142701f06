"""A pytest plugin: the allocator, installed in this process, and two sources for it.

NumPy's functions are replaced once in a process and for good. So the files of this directory are not collected
with the other tests: `test_numpy_allocator` runs them in a process of their own, with this plugin.
"""

import gc
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import numpy.typing as npt
import pytest
from arena import Arena, reserve

from thermocline import numpy_allocator

Array = npt.NDArray[Any]
Handler = Callable[[int, FrameType | None], object]

MIN = 1 << 16
HALF = 1 << 32
LOW = reserve(2 * HALF)
HIGH = LOW + 2 * HALF

freed_in_child_hook: list[Array] = []
os.register_at_fork(after_in_child=freed_in_child_hook.clear)  # runs before the allocator's own hook

numpy_allocator.install(LOW, HIGH)


class SignalledError(Exception):
    """What a signal handler raises here."""


@contextmanager
def sources() -> Iterator[tuple[Arena, Arena]]:
    first, second = Arena(LOW, LOW + HALF), Arena(LOW + HALF, HIGH)
    for source in (first, second):
        numpy_allocator.register_source(source, source.low, source.high)
    try:
        yield first, second
    finally:
        for source in (first, second):
            numpy_allocator.unregister_source(source)


@pytest.fixture
def both() -> Iterator[tuple[Arena, Arena]]:
    """Two sources, none active; all blocks must have come back at the end."""
    with sources() as pair:
        yield pair
        gc.collect()
        assert [source.live() for source in pair] == [0, 0]


@pytest.fixture
def arena(both: tuple[Arena, Arena]) -> Iterator[Arena]:
    """A source that is active for arrays of MIN bytes."""
    with numpy_allocator.tiered(both[0], MIN):
        yield both[0]


@contextmanager
def handling(number: int, handler: Handler) -> Iterator[None]:
    before = signal.signal(number, handler)
    try:
        yield
    finally:
        signal.signal(number, before)


def address(array: Array) -> int:
    return int(array.ctypes.data)


def is_tiered(array: Array, source: Arena | None = None) -> bool:
    low, high = (source.low, source.high) if source else (LOW, HIGH)
    return low <= address(array) < high


def do_nothing(*_: object) -> None:
    pass


def raise_signalled(*_: object) -> None:
    raise SignalledError("from the handler")
