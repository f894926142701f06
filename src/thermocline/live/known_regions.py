"""The regions and groups that a pager knows: what the program has written to the shared tables, as objects."""

from __future__ import annotations

from typing import Any

from thermocline.live.tables import Tables
from thermocline.protocol.group import ROOT
from thermocline.protocol.mm import Mm
from thermocline.protocol.readahead import WORDS, Stream
from thermocline.protocol.region import Advice, Region

#: Regions that are kept in mind at once. What is known of the others is in the tables, but for where they were read.
_MOST = 4096


class KnownRegions:
    """Makes regions of the rows of the tables, when they are asked for.

    Parameters
    ----------
    mm : Mm
        Is given each group that a region is charged to.

    Attributes
    ----------
    streams : column of i64
        The rows of the streams of regions (:mod:`thermocline.protocol.readahead`).
    stream_of : column of u16
        By first page of a region that is kept in mind: the number of its row, from 1 on; 0 of all others.
    """

    def __init__(self, mm: Mm, tables: Tables) -> None:
        self._mm = mm
        self._tables = tables
        self._known: dict[int, Region] = {}
        self.streams = mm.column("q", _MOST * WORDS)
        self.stream_of = mm.column("H", tables.pages)
        self._rows = list(range(_MOST, 0, -1))

    def find(self, number: int) -> Region | None:
        """The region with a number, which is its first page and 1; None if there is none."""
        region = self._known.get(number)
        if region is None:
            start, tables = number - 1, self._tables
            pages = tables.region_pages[start]
            if not pages:
                return None
            region = Region(
                number,
                start,
                pages,
                tables.region_group[start],
                tables.region_source[start],
                tables.region_advice[start],
                tables.region_born[start],
                tables.region_shared[start],
            )
            if region.group not in self._mm.groups:
                self.read_group(region.group)
            if not region.freed:  # its pages may belong to another region at the next look
                if len(self._known) >= _MOST:
                    self.forget(next(iter(self._known)))
                self._remember(region)
        return region

    def forget(self, number: int) -> None:
        """A region is free, or has been in mind for longest: its rows are another's next."""
        region = self._known.pop(number, None)
        if region is not None:
            region.stream = Stream()
            self._rows.append(self.stream_of[region.start])
            self.stream_of[region.start] = 0

    def _remember(self, region: Region) -> None:
        row = self._rows.pop()
        words: Any = self.streams[(row - 1) * WORDS : row * WORDS]  # type: ignore[index]
        for word in range(WORDS):
            words[word] = 0
        region.stream = Stream(words)
        self.stream_of[region.start] = row
        self._known[region.index] = region

    def read_advice(self, number: int) -> None:
        """The program has advised on a region."""
        region = self._known.get(number)
        if region is not None:
            region.advice = self._tables.region_advice[region.start]

    def read_shares(self) -> None:
        """The program may have shared regions by name."""
        for region in self._known.values():
            region.shared = self._tables.region_shared[region.start]

    def read_group(self, index: int) -> None:
        """The program has made a group, or changed its limits."""
        dram, memory = self._tables.group_limits[2 * index], self._tables.group_limits[2 * index + 1]
        group = self._mm.groups.get(index)
        if group is None:
            group = self._mm.make_group(index, f"group {index}", len(self._mm.nodes))
            self._mm.add_group(group)
        if index != ROOT:
            group.dram_limit = dram or None
            group.memory_limit = memory or None

    def mark_freed(self, region: Region) -> None:
        """A region is being freed: a successor must know, and each look at its row from now on."""
        self._tables.region_advice[region.start] = Advice.FREED
