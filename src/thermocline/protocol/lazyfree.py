"""Blocks that the program has freed lazily (``MADV_FREE``, ``PG_lazyfree``): their frames are there for its next block.

The program keeps a list of blocks that it has freed, and takes from it what it is asked for, without a word to the
pager. Until then what is in them is not wanted, so reclaim takes their frames first, and writes nothing. The row of the
column ``lazyfree`` says whether a block is free; the program clears it before it hands the block out.

A block may be taken at any moment. So its writers are stopped first, and then the row is looked at *again*: what the
new owner wrote before is seen in that look, and its later writes wait for the page, which is zeros then. That is right
for a block that promises no contents. One that has to be zeros is cleared by the program, except for pages whose
entries are EMPTY. Therefore an entry becomes EMPTY *behind* the hole, and is PARTIAL until then: what is in the arena
counts, and the rest is zeros.

==================  ===================================================================================================
killed behind       the successor finds
==================  ===================================================================================================
``Unmap``           a page that is protected for nothing: the next write goes on
``Commit`` PARTIAL  a page that was coming up, and all of which is there: RESIDENT
``Punch``           a page that was coming up, and nothing of which is there: EMPTY
==================  ===================================================================================================
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from thermocline.protocol.effects import Commit, Protocol, Punch, Remap, Resched, ScanDelay, TryLock, Unlock, Unmap
from thermocline.protocol.page import EMPTY, PARTIAL, RESIDENT

if TYPE_CHECKING:
    from thermocline.protocol.group import Group
    from thermocline.protocol.mm import Mm
    from thermocline.protocol.region import Region

_DRAM = 0
#: Pages whose locks are held together (``SWAP_CLUSTER_MAX``).
_CLUSTER = 32
#: Seconds between two looks at the blocks. One that was not taken in between gives its frames back.
IDLE = 5


def shrink_lazyfree(mm: Mm, enough: int, group: Group | None = None) -> Protocol[int]:
    """Take the frames of freed blocks, of one group or of all, the oldest first -> how many, about ``enough``.

    Locks: tries those of a cluster of pages, and never waits for one.
    """
    freed = 0
    for region in _blocks(mm):
        if (group is not None and region.group != group.index) or _is_drained(mm, region):
            continue
        for pages in _clusters(region):
            freed += yield from _drop(mm, region, pages)
            if freed >= enough:
                return freed
    return freed


def age_lazyfree(mm: Mm) -> Protocol[None]:
    """Take the frames of freed blocks that were not taken again in a while; ends when none has any."""
    seen: dict[int, int] = {}
    while holds_lazyfree(mm):
        yield ScanDelay(IDLE)
        kept = {region.index: mm.table.lazyfree[region.start] for region in _blocks(mm)}
        for number, times in kept.items():
            region = mm.find_region(number)
            if seen.get(number) != times or region is None:
                continue
            for pages in _clusters(region):
                yield from _drop(mm, region, pages)
                yield Resched()
        seen = kept


def holds_lazyfree(mm: Mm) -> bool:
    """Whether any freed block has frames."""
    return any(_is_droppable(mm, page) for region in _blocks(mm) for page in range(region.start, region.end))


def _blocks(mm: Mm) -> Iterator[Region]:
    """The blocks that are free, the oldest first. The list changes as it is read."""
    for index in range(len(mm.lazyfree_blocks)):
        number = mm.lazyfree_blocks[index]
        if not number:
            return
        region = mm.find_region(number)
        if region is not None and _is_free(mm, region):
            yield region


def _clusters(region: Region) -> Iterator[range]:
    """The pages of a block, as many at a time as are locked together."""
    for start in range(region.start, region.end, _CLUSTER):
        yield range(start, min(start + _CLUSTER, region.end))


def _is_drained(mm: Mm, region: Region) -> bool:
    """Whether nothing has been left of a free block since reclaim last looked, which it does for each page it wants.

    What comes up of the block after that, because it was on its way, goes as any page does.
    """
    times = mm.table.lazyfree[region.start]
    if region.drained != times and not any(map(mm.table.entry.__getitem__, range(region.start, region.end))):
        region.drained = times
    return region.drained == times


def _is_free(mm: Mm, region: Region) -> bool:
    return bool(mm.table.lazyfree[region.start]) and not region.freed


def _is_droppable(mm: Mm, page: int) -> bool:
    """Whether a page is in DRAM, and nowhere else."""
    entry = mm.table.read(page)
    return entry.state == RESIDENT and entry.node == _DRAM and not mm.table.pins[page] and page not in mm.held


def _drop(mm: Mm, region: Region, pages: Sequence[int]) -> Protocol[int]:
    """Take the frames of some pages of a freed block, unless it is taken meanwhile -> how many."""
    locked: list[int] = []
    for page in pages:
        if not _is_droppable(mm, page) or not (yield TryLock(page)):
            continue
        if _is_droppable(mm, page) and _is_free(mm, region):
            locked.append(page)
        else:
            yield Unlock(page)
    if not locked:
        return 0
    for page in locked:
        mm.abort_transaction(page)  # it may be written again, or goes
    yield Unmap(locked)
    if not _is_free(mm, region):
        yield Remap(locked)
        for page in locked:
            yield Unlock(page)
        return 0
    for page in locked:
        yield Commit(page, PARTIAL)
    yield Punch(locked)
    for page in locked:
        yield Commit(page, EMPTY)
        mm.forget(page)
        yield Unlock(page)
    mm.vmstat.add("pglazyfreed", len(locked))
    return len(locked)
