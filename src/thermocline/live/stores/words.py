"""A sorted set of integers of 64 bits, at 8 bytes each, where a set of Python's takes a hundred.

They are in sorted blocks of bounded size. To find one is a binary search among the blocks and one within; to add one
moves what is behind it in its block.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Iterator, MutableSet


class Words(MutableSet[int]):
    """Integers from 0 to 2**64 - 1.

    Parameters
    ----------
    most : int
        Integers of a block. To move half of 512 costs what a binary search does.
    """

    def __init__(self, most: int = 512) -> None:
        self._most = most
        self._blocks: list[array[int]] = []
        #: The last of each block.
        self._last: list[int] = []

    def __contains__(self, word: object) -> bool:
        return isinstance(word, int) and self.at_or_above(word) == word

    def __iter__(self) -> Iterator[int]:
        for block in self._blocks:
            yield from block

    def __len__(self) -> int:
        return sum(map(len, self._blocks))

    def __bool__(self) -> bool:
        return bool(self._blocks)

    def add(self, word: int) -> None:
        """Add an integer."""
        at = bisect_left(self._last, word)
        if at == len(self._last):
            if not at:
                self._blocks.append(array("Q", [word]))
                self._last.append(word)
                return
            at -= 1
            self._last[at] = word
        block = self._blocks[at]
        place = bisect_left(block, word)
        if place < len(block) and block[place] == word:
            return
        block.insert(place, word)
        if len(block) > self._most:
            half = len(block) // 2
            self._blocks[at : at + 1] = [block[:half], block[half:]]
            self._last.insert(at, block[half - 1])

    def discard(self, word: int) -> None:
        """Take an integer out, if it is in."""
        at = bisect_left(self._last, word)
        if at == len(self._last):
            return
        block = self._blocks[at]
        place = bisect_left(block, word)
        if block[place] != word:
            return
        del block[place]
        if not block:
            del self._blocks[at], self._last[at]
        elif place == len(block):
            self._last[at] = block[-1]

    def pop(self) -> int:
        """Take the largest out; KeyError when there is none."""
        if not self._last:
            raise KeyError("pop from an empty set")
        word = self._last[-1]
        self.discard(word)
        return word

    def at_or_above(self, word: int) -> int | None:
        """The smallest that is not below an integer."""
        at = bisect_left(self._last, word)
        if at == len(self._last):
            return None
        block = self._blocks[at]
        return block[bisect_left(block, word)]

    def below(self, word: int) -> int | None:
        """The largest that is below an integer."""
        at = bisect_left(self._last, word)
        if at < len(self._last):
            block = self._blocks[at]
            place = bisect_left(block, word)
            if place:
                return block[place - 1]
        return self._last[at - 1] if at else None
