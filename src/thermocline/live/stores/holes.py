"""The free space of a pool: contiguous holes, found by size and merged with their neighbours.

Segregated lists as in TLSF (Masmano, Ripoll, Crespo and Real, "TLSF: a new dynamic memory allocator for
real-time systems", ECRTS 2004): a list of holes per size and a bitmap of the lists that are not empty, so
that the best fit is one shift and one bit scan. TLSF groups sizes in two levels to keep its bitmaps in
machine words. A Python integer is as long as we like, so every size has a list of its own here and the fit is
exact. What TLSF's boundary tags say is asked of the holes in order (`ranges`): tags would be in memory that is given
back to the kernel. The end of the space that was never used is kept apart and used last (Lea's "wilderness"), because
the first touch of memory is what costs most.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable

from thermocline.errors import StoreError
from thermocline.live.stores.ranges import Ranges


class Holes:
    """Free space, counted in quanta. Every operation takes the same short time, whatever the size of the
    space.

    Parameters
    ----------
    quanta : int
        The size of the space.
    most : int
        The longest piece that is ever asked for. Holes at least so long share a list.

    Attributes
    ----------
    grown : dict of int to None
        The starts of holes that have taken in released space: what there is for a trim to look at. The caller
        removes those it has seen to.
    """

    def __init__(self, quanta: int, most: int) -> None:
        self.quanta = quanta
        self._most = most
        self._clear()

    def _clear(self) -> None:
        self.grown: dict[int, None] = {}
        self._frontier = 0  # where the wilderness begins
        self._holes = Ranges()
        self._lists: list[set[int]] = [set() for _ in range(self._most + 1)]
        self._filled = 0  # bit n: self._lists[n] is not empty

    def take(self, length: int) -> int | None:
        """Cut a piece out of the smallest hole that holds it -> its start, or None when no hole does."""
        fitting = self._filled >> length
        if fitting:
            start = self._pop((fitting & -fitting).bit_length() - 1 + length)
            whole = self._holes.cut(start, length)
            grown = self.grown.pop(start, 0) is None
            if whole > length:
                self._list(start + length, whole - length)
                if grown:
                    self.grown[start + length] = None
            return start
        start = self._frontier
        if start + length > self.quanta:
            return None
        self._frontier = start + length
        return start

    def take_longest(self) -> tuple[int, int] | None:
        """Take a whole hole of the longest kind -> its start and length, or None when nothing is free."""
        rest = self.quanta - self._frontier
        longest = self._filled.bit_length() - 1
        if rest > 0 and rest >= longest:
            self._frontier = self.quanta
            return self.quanta - rest, rest
        if longest < 0:
            return None
        start = self._pop(longest)
        self.grown.pop(start, None)
        return start, self._holes.cut(start, self.quanta)

    def give(self, start: int, length: int) -> None:
        """Return a piece and merge it with the holes beside it."""
        before = self._holes.before(start)
        if before is not None:
            length += self._remove(before)
            self.grown.pop(before, None)
            start = before
        after = start + length
        if self._holes.length(after):
            length += self._remove(after)
            self.grown.pop(after, None)
        self._holes.insert(start, length)
        self._list(start, length)
        self.grown[start] = None

    def end(self, start: int) -> int:
        """Where the free space ends that the hole at `start` begins: the wilderness after it included."""
        end = start + self._holes.length(start)
        return self.quanta if end == self._frontier else end

    def rebuild(self, taken: Iterable[tuple[int, int]], used: int) -> None:
        """Start again: all is free but these (start, length) pieces, and the wilderness begins at `used` or
        later.

        Raises
        ------
        StoreError
            EIO: the pieces overlap or are outside the space.
        """
        self._clear()
        end = 0
        for start, length in sorted(taken):
            if start < end or start + length > self.quanta:
                raise StoreError(errno.EIO, f"two pages of the pool overlap at quantum {start}")
            if start > end:
                self.give(end, start - end)
            end = start + length
        if end < used:
            self.give(end, used - end)
        self._frontier = max(end, used)

    def _list(self, start: int, length: int) -> None:
        """Put a hole on the list of its size."""
        size = min(length, self._most)
        self._lists[size].add(start)
        self._filled |= 1 << size

    def _remove(self, start: int) -> int:
        """Forget the hole that begins there -> its length."""
        length = self._holes.cut(start, self.quanta)
        size = min(length, self._most)
        self._lists[size].remove(start)
        if not self._lists[size]:
            self._filled ^= 1 << size
        return length

    def _pop(self, size: int) -> int:
        """Take any hole off the list of a size -> its start."""
        start = self._lists[size].pop()
        if not self._lists[size]:
            self._filled ^= 1 << size
        return start
