"""What the program has pinned: pages that stay in DRAM, unmoved.

The truth is a dictionary of what was asked for; the column of the shared tables, which the pager reads, counts for each
page how many of those it is in.
"""

from __future__ import annotations

from thermocline.errors import ThermoclineError
from thermocline.live.guard import Guard, Lease
from thermocline.live.session import Session
from thermocline.protocol.pin import MAX_PINS


class TooManyPinsError(ThermoclineError):
    """More pages would be pinned than may be."""


class Pins:
    """The pins of one memory, in the program that made it."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._pins = session.tables.page_columns["pins"]
        #: First page and number of pages, by a number of its own.
        self._pinned: dict[int, tuple[int, int]] = {}
        self._last = 0
        self._guard = Guard(self._settle)

    @property
    def pages(self) -> int:
        """How many pages are pinned; one that is pinned twice counts twice."""
        return sum([count for _, count in list(self._pinned.values())])

    def hold(self, first: int, count: int, most: int) -> Lease | None:
        """Mark pages as pinned for as long as a lease lives -> the lease, or None: one is pinned too often.

        Raises
        ------
        TooManyPinsError
            More than ``most`` pages would be pinned.
        BusyError
            The thread is in the middle of pinning, and this is a signal handler or a finalizer.
        """
        return self._guard.lease(self._hold, first, count, most)

    def _hold(self, first: int, count: int, most: int) -> int | None:
        if self.pages + count > most:
            raise TooManyPinsError
        if max(self._pins[first : first + count]) == MAX_PINS:
            return None
        self._last += 1
        number = self._last
        self._guard.journal.append((self._forget, number, first, count))
        self._pinned[number] = first, count
        for page in range(first, first + count):
            self._pins[page] += 1
        return number

    def _forget(self, number: int, first: int, count: int) -> None:
        self._pinned.pop(number, None)
        self._recount(first, count)

    def _recount(self, first: int, count: int) -> None:
        """Write the column anew for some pages."""
        pinned = list(self._pinned.values())
        for page in range(first, first + count):
            self._pins[page] = sum([begin <= page < begin + pages for begin, pages in pinned])

    def _settle(self) -> None:
        released = self._guard.released
        while released:
            if self._session.usable and released[0] in self._pinned:
                first, count = self._pinned[released[0]]
                self._guard.journal.append((self._recount, first, count))
                del self._pinned[released[0]]
                for page in range(first, first + count):
                    self._pins[page] -= 1
            del released[0]
