"""Forked children, as the program knows them: which of them may still look at a block that it has freed.

A child has every array that its parent had when it was forked. So a block that lived then goes when that child is gone,
even if the program has freed it: as with fork(2) itself, what the parent does to its own arrays is nothing to a child.
A table that the supervisor shares says which forks have a process left. Forks are counted, and a block that was
allocated after the last of them is nobody's but the program's.
"""

from __future__ import annotations

import threading

from thermocline.live.tables import MAX_CHILDREN, Tables


class Children:
    """The forks of one program, for one memory."""

    def __init__(self, tables: Tables) -> None:
        self._rows = tables.children
        self._header = tables.header
        self._lock = threading.Lock()
        self._forks = 0
        self._under_way = 0
        self._last_row = 0
        self._departed = 0
        self._newest = 0
        #: How many forks there were when a block that is allocated now is allocated.
        self.forks = 0

    def expect(self) -> int | None:
        """A fork begins -> its row of the table, and it ends with :meth:`forked`; None when no row is free."""
        with self._lock:
            for step in range(1, MAX_CHILDREN):
                row = (self._last_row + step) % MAX_CHILDREN
                if row and not self._rows[row]:
                    self._under_way += 1
                    self._forks += 1
                    self._rows[row] = self._newest = self._forks
                    self._last_row = row
                    return row
            return None

    def forked(self) -> None:
        """A fork is over. While any is under way, what is allocated may be the child's, too."""
        with self._lock:
            self._under_way -= 1
            if not self._under_way:
                self.forks = self._forks

    def have_departed(self) -> bool:
        """Whether some have gone since this was asked last."""
        departed = self._header[Tables.HEADER_DEPARTED]
        if departed == self._departed:
            return False
        self._departed = departed
        with self._lock:
            self._newest = max(self._rows)
        return True

    def hold(self, born: int) -> bool:
        """Whether one of them may look at a block; ``born`` is what :attr:`forks` was when it was allocated."""
        return self._newest > born
