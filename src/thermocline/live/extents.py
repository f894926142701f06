"""Free ranges of an address space, in units: cut on allocation, merged with their neighbours on return.

The smallest range that holds a request is cut (best fit). Ranges are kept by their exact length, and the lengths that
there are in order: ranges of n different lengths are n * n / 2 units together, so there are few lengths however many
ranges there are. The end of the space that was never used is taken last, so that the rows of tables that are indexed
by page stay dense.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable
from typing import Self


class Extents:
    """Free ranges of ``size`` units."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._frontier = 0
        self._length: dict[int, int] = {}
        self._start_by_end: dict[int, int] = {}
        #: Length -> the starts of the ranges of that length; and the lengths, ascending.
        self._starts: dict[int, dict[int, None]] = {}
        self._lengths: list[int] = []

    @classmethod
    def around(cls, size: int, taken: Iterable[tuple[int, int]]) -> Self:
        """What is left of ``size`` units beside ranges that are taken: start and length of each."""
        made = cls(size)
        for start, length in sorted(taken):
            if made._frontier < start:
                made._insert(made._frontier, start - made._frontier)
            made._frontier = start + length
        return made

    def allocate(self, length: int) -> int | None:
        """Cut ``length`` units from the smallest free range that holds them -> its start, or None."""
        at = bisect_left(self._lengths, length)
        if at < len(self._lengths):
            whole = self._lengths[at]
            # popitem(), because a dictionary looks for its first key behind all that were deleted before it.
            start, _ = self._starts[whole].popitem()
            self._forget(start, whole)
            if whole > length:
                self._insert(start + length, whole - length)
            return start
        start = self._frontier
        if start + length > self.size:
            return None
        self._frontier += length
        return start

    def free(self, start: int, length: int) -> range:
        """Return units and merge them with what is free beside them -> the free range that they are in now."""
        before = self._start_by_end.get(start)
        if before is not None:
            length += self._remove(before)
            start = before
        if start + length in self._length:
            length += self._remove(start + length)
        if start + length == self._frontier:
            self._frontier = start
            return range(start, self.size)
        self._insert(start, length)
        return range(start, start + length)

    def ranges(self) -> list[range]:
        """Every free range."""
        free = [range(start, start + length) for start, length in self._length.items()]
        return [*free, range(self._frontier, self.size)]

    def _insert(self, start: int, length: int) -> None:
        self._length[start] = length
        self._start_by_end[start + length] = start
        starts = self._starts.get(length)
        if starts is None:
            starts = self._starts[length] = {}
            insort(self._lengths, length)
        starts[start] = None

    def _remove(self, start: int) -> int:
        length = self._length[start]
        del self._starts[length][start]
        self._forget(start, length)
        return length

    def _forget(self, start: int, length: int) -> None:
        """Take a range that is no longer among those of its length out of the rest."""
        del self._length[start]
        del self._start_by_end[start + length]
        if not self._starts[length]:
            del self._starts[length]
            del self._lengths[bisect_left(self._lengths, length)]
