"""Numbers for slots: which are taken and which can be handed out."""

from __future__ import annotations

import errno
from array import array
from collections.abc import Iterable

from thermocline.errors import StoreError

#: Bits of a word, and their logarithm.
_BITS, _SHIFT = 64, 6
_FULL = (1 << _BITS) - 1


class Slots:
    """Hands out the integers from 1 to `most`, the lowest free one first.

    Lowest first keeps tables and files short, and slots that are reserved together lie together. A number that was
    given back is a bit; a bit of the level above says that a word has any, and so on up to a single word. So it takes
    an eighth of a byte a number, and a step a level to find the lowest.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self._clear()

    def _clear(self) -> None:
        self._next = 1
        self._levels = [array("Q")]
        while _BITS ** len(self._levels) <= self.most:
            self._levels.append(array("Q"))

    def reserve(self) -> int:
        """Take the lowest free number; StoreError (ENOSPC) when all are taken."""
        top = self._levels[-1]
        if top and top[0]:
            slot = 0
            for level in reversed(self._levels):
                word = level[slot]
                slot = slot << _SHIFT | (word & -word).bit_length() - 1
            self._unmark(slot)
            return slot
        if self._next > self.most:
            raise StoreError(errno.ENOSPC, f"all {self.most} slots of the store are taken")
        self._next += 1
        return self._next - 1

    def release(self, slot: int) -> None:
        """Give a number back."""
        for level in self._levels:
            at, bit = slot >> _SHIFT, 1 << (slot & _BITS - 1)
            if at >= len(level):
                level.frombytes(bytes((at + 1 - len(level)) * level.itemsize))
            level[at] |= bit
            slot = at

    def recover(self, taken: Iterable[int]) -> None:
        """Start again with exactly these numbers taken."""
        self._clear()
        for number in sorted(taken):
            for free in range(self._next, number):
                self.release(free)
            self._next = number + 1

    def _unmark(self, slot: int) -> None:
        for level in self._levels:
            at, bit = slot >> _SHIFT, 1 << (slot & _BITS - 1)
            level[at] &= ~bit
            if level[at]:
                break
            slot = at
