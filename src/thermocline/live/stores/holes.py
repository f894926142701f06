"""The free space of a pool: contiguous holes, found by size and merged with their neighbours.

The smallest hole that holds a piece is cut (best fit). A hole is a word in either of two sorted sets, by place and by
length, and so takes some 20 bytes of the pager's memory: with pages of random length there is one for every four or
five of them. (TLSF's boundary tags take none, but they are in the free space itself, which is given back to the kernel
here; and a list for every length, with dictionaries for what the tags say, takes 500.) The end of the space that was
never used is kept apart and used last (Lea's "wilderness"), because the first touch of memory is what costs most.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable

from thermocline.errors import StoreError
from thermocline.live.stores.words import Words

#: Bits of a length, and of a start: together a word. Longer stretches are holes side by side.
_LENGTH_BITS, _START_BITS = 24, 40
_LONGEST = (1 << _LENGTH_BITS) - 1
_START_MASK = (1 << _START_BITS) - 1


class Holes:
    """Free space, counted in quanta. Every operation takes about the same short time, whatever the size of the
    space.

    Parameters
    ----------
    quanta : int
        The size of the space.

    Attributes
    ----------
    grown : set of int
        The starts of holes that have taken in released space: what there is for a trim to look at. The caller
        removes those it has seen to.
    """

    def __init__(self, quanta: int) -> None:
        self.quanta = quanta
        self._clear()

    def _clear(self) -> None:
        self.grown = Words()
        self._frontier = 0  # where the wilderness begins
        self._by_start = Words()  # start, length
        self._by_length = Words()  # length, start

    def take(self, length: int) -> int | None:
        """Cut a piece out of the smallest hole that holds it -> its start, or None when no hole does."""
        fitting = self._by_length.at_or_above(length << _START_BITS)
        if fitting is not None:
            start, whole = fitting & _START_MASK, fitting >> _START_BITS
            grown = start in self.grown
            self._remove(start, whole)
            if whole > length:
                self._insert(start + length, whole - length)
                if grown:
                    self.grown.add(start + length)
            return start
        start = self._frontier
        if start + length > self.quanta:
            return None
        self._frontier = start + length
        return start

    def take_longest(self) -> tuple[int, int] | None:
        """Take the longest hole, whole -> its start and length, or None when nothing is free."""
        rest = self.quanta - self._frontier
        longest = self._by_length.below(1 << _LENGTH_BITS + _START_BITS)
        if rest > 0 and (longest is None or rest >= longest >> _START_BITS):
            self._frontier = self.quanta
            return self.quanta - rest, rest
        if longest is None:
            return None
        start, length = longest & _START_MASK, longest >> _START_BITS
        self._remove(start, length)
        return start, length

    def give(self, start: int, length: int) -> None:
        """Return a piece and merge it with the holes beside it."""
        before = self._by_start.below(start << _LENGTH_BITS)
        if before is not None:
            first, size = before >> _LENGTH_BITS, before & _LONGEST
            if first + size == start and size + length <= _LONGEST:
                self._remove(first, size)
                start, length = first, size + length
        size = self._length(start + length)
        if size and length + size <= _LONGEST:
            self._remove(start + length, size)
            length += size
        self._insert(start, length)
        self.grown.add(start)

    def end(self, start: int) -> int:
        """Where the free space ends that the hole at `start` begins: the wilderness after it included."""
        end = start + self._length(start)
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
            self._give_stretch(end, start)
            end = start + length
        self._give_stretch(end, used)
        self._frontier = max(end, used)

    def _give_stretch(self, start: int, end: int) -> None:
        """Return what is between two places, however long."""
        for first in range(start, end, _LONGEST):
            self.give(first, min(end - first, _LONGEST))

    def _length(self, start: int) -> int:
        """How long the hole is that begins there; 0: none does."""
        word = self._by_start.at_or_above(start << _LENGTH_BITS)
        return word & _LONGEST if word is not None and word >> _LENGTH_BITS == start else 0

    def _insert(self, start: int, length: int) -> None:
        self._by_start.add(start << _LENGTH_BITS | length)
        self._by_length.add(length << _START_BITS | start)

    def _remove(self, start: int, length: int) -> None:
        self._by_start.discard(start << _LENGTH_BITS | length)
        self._by_length.discard(length << _START_BITS | start)
        self.grown.discard(start)
