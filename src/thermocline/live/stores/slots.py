"""Numbers for slots: which are taken and which can be handed out."""

from __future__ import annotations

import errno
from collections.abc import Iterable
from heapq import heappop, heappush

from thermocline.errors import StoreError


class Slots:
    """Hands out the integers from 1 to `most`, the lowest free one first.

    Lowest first keeps tables and files short, and slots that are reserved together lie together. A heap makes
    it O(log n); it holds only numbers that were given back.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self._next = 1
        self._free: list[int] = []

    def reserve(self) -> int:
        """Take the lowest free number; StoreError (ENOSPC) when all are taken."""
        if self._free:
            return heappop(self._free)
        if self._next > self.most:
            raise StoreError(errno.ENOSPC, f"all {self.most} slots of the store are taken")
        self._next += 1
        return self._next - 1

    def release(self, slot: int) -> None:
        """Give a number back."""
        heappush(self._free, slot)
        if len(self._free) == self._next - 1:  # none is taken: millions of numbers need not be remembered
            self._next = 1
            self._free.clear()

    def recover(self, taken: Iterable[int]) -> None:
        """Start again with exactly these numbers taken."""
        numbers = set(taken)
        self._next = max(numbers, default=0) + 1
        self._free = [slot for slot in range(1, self._next) if slot not in numbers]  # ascending: a heap
