"""Forked children, as the program knows them: which of them may still look at a block that it has freed.

A child has every array that its parent had when it was forked. So a block that lived then goes when that child is gone,
even if the program has freed it: as with fork(2) itself, what the parent does to its own arrays is nothing to a child.
The supervisor counts the forks, and writes to the shared tables which of them have a process left.
"""

from __future__ import annotations

from thermocline.live.tables import Tables


class Children:
    """The forks of one program, for one memory."""

    def __init__(self, tables: Tables) -> None:
        self._header = tables.header

    @property
    def departed(self) -> int:
        """How many have gone since the memory was made."""
        return int(self._header[Tables.HEADER_DEPARTED])

    def hold(self, born: int) -> bool:
        """Whether one of them may look at a block; ``born`` is how many forks came before it."""
        return int(self._header[Tables.HEADER_NEWEST_FORK]) > born
