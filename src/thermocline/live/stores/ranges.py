"""Disjoint ranges of integers, in order: 8 bytes each, where a pair of dictionaries takes 200.

They are words, ``start << 32 | length``, in sorted blocks of bounded size: to find one is a binary search among the
blocks and one within, to insert one moves what is behind it in its block.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right

_SHIFT = 32
_LENGTH = (1 << _SHIFT) - 1


class Ranges:
    """Ranges of which no two share an integer.

    Parameters
    ----------
    most : int
        Ranges of a block. To move half of 512 costs what a binary search does.
    """

    def __init__(self, most: int = 512) -> None:
        self._most = most
        self._blocks: list[array[int]] = [array("Q")]
        #: A word for each block that is above all words of the blocks before it, and above none of its own.
        self._lowest = [0]

    def insert(self, start: int, length: int) -> None:
        """Add a range."""
        block, at = self._find(start)
        words = self._blocks[block]
        words.insert(at, start << _SHIFT | length)
        if len(words) > self._most:
            half = len(words) // 2
            self._blocks[block : block + 1] = [words[:half], words[half:]]
            self._lowest.insert(block + 1, words[half])

    def cut(self, start: int, length: int) -> int:
        """Take the first ``length`` integers off the range that begins there -> how long it was."""
        block, at = self._find(start)
        words = self._blocks[block]
        whole = words[at] & _LENGTH
        if whole > length:
            words[at] = start + length << _SHIFT | whole - length
            if block + 1 < len(self._blocks) and words[at] >= self._lowest[block + 1]:
                self._lowest[block + 1] = self._blocks[block + 1][0]  # it was that of a range which is no more
            return whole
        del words[at]
        if not words and len(self._blocks) > 1:
            del self._blocks[block], self._lowest[block]
            self._lowest[0] = 0
        return whole

    def length(self, start: int) -> int:
        """How long the range is that begins there; 0: none does."""
        block, at = self._find(start)
        words = self._blocks[block]
        return words[at] & _LENGTH if at < len(words) and words[at] >> _SHIFT == start else 0

    def before(self, end: int) -> int | None:
        """Where the range begins that ends there."""
        block, at = self._find(end)
        if not at and block:
            block -= 1
            at = len(self._blocks[block])
        if not at:
            return None
        word = self._blocks[block][at - 1]
        start = word >> _SHIFT
        return start if start + (word & _LENGTH) == end else None

    def _find(self, start: int) -> tuple[int, int]:
        """The block in which a range that begins there is, or would be, and its place."""
        word = start << _SHIFT
        block = bisect_right(self._lowest, word | _LENGTH) - 1
        return block, bisect_left(self._blocks[block], word)
