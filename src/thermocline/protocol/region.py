"""Regions: the pages of one array, and what is done to a whole region at once."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum
from typing import TYPE_CHECKING

from thermocline.protocol import page as entries
from thermocline.protocol.effects import Commit, Lock, Protocol, Punch, Release, Resched, TryLock, Unlock
from thermocline.protocol.readahead import Stream

if TYPE_CHECKING:
    from thermocline.protocol.mm import Mm


class Advice(IntEnum):
    """How a region will be used (madvise(2))."""

    NORMAL = 0
    SEQUENTIAL = 1
    RANDOM = 2
    COLD = 3
    WILLNEED = 4
    #: Not a use: the region is being freed, or was. Nothing of it is brought up any more.
    FREED = 5


@dataclass(slots=True)
class Region:
    """Contiguous pages of one array.

    Attributes
    ----------
    start, pages : int
        First page, and how many.
    group : int
        Index of the group they are charged to.
    source : int
        Which source file they were made from; 0: none, they start as zeros.
    born : int
        How many forks came before it. The children of those forks do not have it.
    shared : int
        Children of this fork and of later ones share the region with the program (``mem.share``); 0: none does.
    drained : int
        The row of :attr:`PageTable.lazyfree <thermocline.protocol.page.PageTable>` as it was when reclaim found nothing
        of the block any more; 0: it did not.
    """

    index: int
    start: int
    pages: int
    group: int = 0
    source: int = 0
    advice: int = Advice.NORMAL
    born: int = 0
    shared: int = 0
    drained: int = 0
    stream: Stream = field(default_factory=Stream)

    @property
    def freed(self) -> bool:
        """Whether the array is freed: no task may bring up a page of the region any more."""
        return self.advice == Advice.FREED

    @property
    def end(self) -> int:
        """The page behind the last."""
        return self.start + self.pages


#: Pages whose locks are held together while a region is freed.
_CHUNK = 64


def free_region(mm: Mm, region: Region) -> Protocol[None]:
    """Give everything back that a region holds, in DRAM and below (``exit_mmap``).

    Locks: tries those of a chunk of pages together and never waits for one while it holds another; a page that
    another task is moving is waited for alone. Sleeps only in that wait. Idempotent: after a crash it is run again.

    The region is marked first: a readahead that was under way must not bring up pages that have been freed.
    """
    region.advice = Advice.FREED
    for start in range(region.start, region.end, _CHUNK):
        busy = []
        locked = []
        for page in range(start, min(start + _CHUNK, region.end)):
            if (yield TryLock(page)):
                locked.append(page)
            else:
                busy.append(page)
        yield from _free_locked(mm, region, locked)
        for page in busy:
            yield Lock(page)
            yield from _free_locked(mm, region, [page])
        yield Resched()


def _free_locked(mm: Mm, region: Region, pages: list[int]) -> Protocol[None]:
    framed: dict[int, list[int]] = {}
    for page in pages:
        entry = mm.table.read(page)
        if entry.state == entries.EMPTY:
            continue
        if entry.frame is not None:
            framed.setdefault(entry.frame, []).append(page)
        yield Commit(page, entries.EMPTY)
        mm.forget(page)
        mm.abort_transaction(page)
        if entry.names_slot:
            mm.nodes[entry.node].shadows.discard(page)
            yield Release(entry.node, entry.slot, region.group)
    for node, frames in framed.items():
        yield Punch(frames, node)
    for page in pages:
        yield Unlock(page)
