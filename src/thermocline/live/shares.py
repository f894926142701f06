"""Regions that are shared with other processes by name, as the supervisor knows them.

The program that made a region says that it may be held, and takes that back when it frees it. Its pages are given back
when nobody holds them any more; the supervisor decides that alone, so nobody can come to hold what is being freed.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field

from thermocline.live.tables import Tables


@dataclass
class _Share:
    ticket: int
    first: int
    pages: int
    shared: bool = True
    holders: Counter[int] = field(default_factory=Counter)


class Shares:
    """All of them, by slot of the table that tells the program which are still in use."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables
        self._by_slot: dict[int, _Share] = {}
        self._held_by: defaultdict[int, Counter[int]] = defaultdict(Counter)

    def share(self, slot: int, ticket: int, first: int, pages: int) -> None:
        """Let a region be held by whoever has the ticket."""
        self._by_slot[slot] = _Share(ticket, first, pages)
        self._tables.shares[slot] = 1

    def unshare(self, slot: int) -> None:
        """The program has freed a region. Who holds it goes on, and may let others hold it."""
        self._by_slot[slot].shared = False
        self._settle(slot)

    def hold(self, holder: int, slot: int, ticket: int) -> tuple[int, int] | None:
        """Hold a region once more -> its first page, and how many; None when it is gone."""
        share = self._by_slot.get(slot)
        if share is None or share.ticket != ticket:
            return None
        self._held_by[holder][slot] += 1
        share.holders[holder] += 1
        return share.first, share.pages

    def release(self, holder: int, slot: int) -> None:
        """Hold a region once less."""
        if self._held_by[holder][slot]:
            self._drop(holder, slot, 1)

    def inherit(self, child: int, parent: int) -> None:
        """A process was forked: it has what its parent has."""
        for slot, count in self._held_by[parent].items():
            self._held_by[child][slot] += count
            self._by_slot[slot].holders[child] += count

    def leave(self, holder: int) -> None:
        """A process is gone."""
        for slot, count in list(self._held_by[holder].items()):
            self._drop(holder, slot, count)
        del self._held_by[holder]

    def _drop(self, holder: int, slot: int, count: int) -> None:
        for counter, key in ((self._held_by[holder], slot), (self._by_slot[slot].holders, holder)):
            counter[key] -= count
            if not counter[key]:
                del counter[key]
        self._settle(slot)

    def _settle(self, slot: int) -> None:
        share = self._by_slot[slot]
        if not share.shared and not share.holders:
            del self._by_slot[slot]
            self._tables.shares[slot] = 0
            self._tables.header[Tables.HEADER_DEPARTED] += 1
