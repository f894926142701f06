"""What programs do to their memory: the same touches for the kernel, for us, and for the model.

A trace is made for a *room*, the pages that the fast node has for it, so that it does the same to rooms of all sizes.
It has one or more processes. What a process touches comes in pieces, all reads or all writes: arrays of page numbers,
the process's own, from 0 on. The same seed gives the same touches.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

#: Touches in a piece, at most.
PIECE = 256
#: Exponent of the Zipf distribution: that of YCSB.
_THETA = 0.99
#: How often pages that are in use are touched for each page that comes new, where both go on at once.
_HOT_PER_NEW = 4

Piece = tuple[bool, NDArray[np.int64]]


@dataclass(frozen=True)
class Process:
    """One process of a trace.

    Attributes
    ----------
    pages : int
        Those that it may touch.
    hot : int
        The first pages, so many of them, are those that it uses all the time; 0: there is no such difference.
    pieces : callable
        Makes its touches: whether they are writes, and which pages.
    """

    pages: int
    hot: int
    pieces: Callable[[], Iterator[Piece]]


def growth(room: int) -> list[Process]:
    """A program that fills twice the room, once, and never looks back."""
    return [Process(2 * room, 0, lambda: _pieces(np.arange(2 * room), True))]


def zipf(room: int) -> list[Process]:
    """Twice the room, written by a Zipf distribution, ten times as often as there are pages.

    All are writes: the kernel gives a page that was only ever read the one page of zeros that all programs share.
    """

    def pieces() -> Iterator[Piece]:
        generator = np.random.default_rng(1)
        places = generator.permutation(2 * room)
        return _pieces(places[_ranks(generator, 2 * room, 20 * room)], True)

    return [Process(2 * room, 0, pieces)]


def phases(room: int) -> list[Process]:
    """Three quarters of the room in use, then three other quarters, then the first again; each touched eight times."""
    size = room * 3 // 4

    def pieces() -> Iterator[Piece]:
        generator = np.random.default_rng(2)
        for start in (0, size, 0):
            yield from _pieces(start + np.arange(size), True)
            yield from _alternately(start + generator.integers(0, size, 7 * size))

    return [Process(2 * size, 0, pieces)]


def scan(room: int) -> list[Process]:
    """A third of the room is in use all the time, while twice the room of new pages go by."""
    hot = room // 3

    def pieces() -> Iterator[Piece]:
        generator = np.random.default_rng(3)
        yield from _pieces(np.arange(hot), True)
        yield from _alternately(generator.integers(0, hot, 4 * hot))
        for start in range(hot, hot + 2 * room, PIECE):
            yield from _alternately(generator.integers(0, hot, _HOT_PER_NEW * PIECE))
            yield True, np.arange(start, min(start + PIECE, hot + 2 * room))

    return [Process(hot + 2 * room, hot, pieces)]


def two(room: int) -> list[Process]:
    """One process fills three quarters of the room and goes on using them; another grows to one and a half rooms."""
    size = room * 3 // 4

    def server() -> Iterator[Piece]:
        generator = np.random.default_rng(4)
        yield from _pieces(np.arange(size), True)
        yield from _alternately(generator.integers(0, size, 12 * size))

    return [Process(size, size, server), Process(room * 3 // 2, 0, lambda: _pieces(np.arange(room * 3 // 2), True))]


TRACES: dict[str, Callable[[int], list[Process]]] = {
    "growth": growth,
    "zipf": zipf,
    "phases": phases,
    "scan": scan,
    "two": two,
}


def _pieces(pages: NDArray[np.int64], write: bool) -> Iterator[Piece]:
    for start in range(0, len(pages), PIECE):
        yield write, pages[start : start + PIECE]


def _alternately(pages: NDArray[np.int64]) -> Iterator[Piece]:
    """Read a piece, write the next."""
    for number, (_, piece) in enumerate(_pieces(pages, False)):
        yield bool(number % 2), piece


def _ranks(generator: np.random.Generator, items: int, count: int) -> NDArray[np.int64]:
    """Ranks from 0 on, as a Zipf distribution draws them."""
    weights = 1 / np.arange(1, items + 1) ** _THETA
    drawn = np.searchsorted(np.cumsum(weights) / weights.sum(), generator.random(count))
    return np.minimum(drawn, items - 1).astype(np.int64)
