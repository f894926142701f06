"""Free ranges of an address space, in units: cut on allocation, merged with their neighbours on return.

Ranges are kept by size in powers of two (a buddy allocator's lists, without its rounding). The end of the space that
was never used is taken last, so that the rows of tables that are indexed by page stay dense.
"""

from __future__ import annotations


class Extents:
    """Free ranges of ``size`` units."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._frontier = 0
        self._length: dict[int, int] = {}
        self._start_by_end: dict[int, int] = {}
        self._bins: list[dict[int, None]] = [{} for _ in range(size.bit_length() + 1)]

    def allocate(self, length: int) -> int | None:
        """Cut ``length`` units from a free range that holds them -> its start, or None."""
        if length > self.size:
            return None
        smallest = length.bit_length()
        for start in self._bins[smallest]:
            if self._length[start] >= length:
                return self._cut(start, length)
        for larger in self._bins[smallest + 1 :]:
            if larger:
                return self._cut(next(iter(larger)), length)
        start = self._frontier
        if start + length > self.size:
            return None
        self._frontier += length
        return start

    def free(self, start: int, length: int) -> None:
        """Return units and merge them with what is free beside them."""
        before = self._start_by_end.get(start)
        if before is not None:
            length += self._remove(before)
            start = before
        if start + length in self._length:
            length += self._remove(start + length)
        if start + length == self._frontier:
            self._frontier = start
        else:
            self._insert(start, length)

    def _cut(self, start: int, length: int) -> int:
        whole = self._remove(start)
        if whole > length:
            self._insert(start + length, whole - length)
        return start

    def _insert(self, start: int, length: int) -> None:
        self._length[start] = length
        self._start_by_end[start + length] = start
        self._bins[length.bit_length()][start] = None

    def _remove(self, start: int) -> int:
        length = self._length.pop(start)
        del self._start_by_end[start + length]
        del self._bins[length.bit_length()][start]
        return length
