"""Distributions of times, in classes an eighth of an octave wide: a time is counted in a few instructions.

A histogram lives in a column of integers, which may be shared memory: its classes first, then the sum of all times
and the longest. Times are whole nanoseconds, from 1 to 2^40 (18 minutes).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from thermocline.protocol.page import Column, array_column

#: Classes an octave, and octaves.
_SUB, _OCTAVES = 8, 40
CLASSES = _SUB * _OCTAVES
_TOTAL, _MAX = CLASSES, CLASSES + 1
#: Integers that a histogram takes in a column.
WORDS = CLASSES + 2


def class_of(nanoseconds: int) -> int:
    """The class that a time is counted in."""
    octave = max(nanoseconds.bit_length() - 1, 3)
    return min((octave - 3) * _SUB + (nanoseconds >> octave - 3 & 7), CLASSES - 1)


def upper_bound(index: int) -> int:
    """The largest time of a class, in nanoseconds."""
    octave, eighth = divmod(index, _SUB)
    return (8 + eighth + 1 << octave) - 1


class Histogram:
    """Times as they are counted.

    Parameters
    ----------
    column : column of u64
        Where it is kept, from word ``first`` on; one of its own when there is none.
    """

    __slots__ = ("_column", "_first")

    def __init__(self, column: Column | None = None, first: int = 0) -> None:
        self._column = array_column("Q", WORDS) if column is None else column
        self._first = first

    def add(self, nanoseconds: int) -> None:
        """Count a time."""
        column, first = self._column, self._first
        column[first + class_of(nanoseconds)] += 1
        column[first + _TOTAL] += nanoseconds
        column[first + _MAX] = max(column[first + _MAX], nanoseconds)

    def read(self) -> Distribution:
        """What was counted until now."""
        words = [self._column[self._first + index] for index in range(WORDS)]
        return Distribution(tuple(words[:CLASSES]), words[_TOTAL], words[_MAX])


@dataclass(frozen=True, slots=True)
class Distribution:
    """Times that were counted.

    Attributes
    ----------
    counts : sequence of int
        By class.
    total, max : int
        Nanoseconds.
    """

    counts: Sequence[int]
    total: int
    max: int

    @property
    def count(self) -> int:
        """How many times were counted."""
        return sum(self.counts)

    def percentile(self, share: float) -> int:
        """The time that a share of all do not exceed, in nanoseconds, to a class; 0 when there are none."""
        left = self.count * share
        for index, count in enumerate(self.counts):
            left -= count
            if count and left <= 0:
                return min(upper_bound(index), self.max)
        return 0

    def since(self, before: Distribution) -> Distribution:
        """What was counted after an earlier reading. The longest is then known to a class only."""
        counts = tuple(now - then for now, then in zip(self.counts, before.counts, strict=True))
        longest = max((upper_bound(index) for index, count in enumerate(counts) if count), default=0)
        return Distribution(counts, self.total - before.total, min(longest, self.max))

    def classes(self) -> tuple[tuple[int, int], ...]:
        """The classes that are not empty: (upper bound in nanoseconds, count), ascending."""
        return tuple((upper_bound(index), count) for index, count in enumerate(self.counts) if count)
