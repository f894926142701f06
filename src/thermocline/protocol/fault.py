"""Faults: a thread touched a page that is missing or write-protected (``handle_mm_fault``).

The message says which page and whether it was a write; what has to be done is judged from the page's entry *under its
lock*, because the page may have come or gone since the message was sent. Answering a fault that needs no answer any
more is a wake-up too many; not answering one is a thread that hangs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from thermocline.protocol.allocate import allocate_frame
from thermocline.protocol.effects import (
    Commit,
    Fill,
    Lock,
    Poison,
    Protocol,
    Release,
    Remap,
    Spawn,
    TryLock,
    Unlock,
    Wake,
)
from thermocline.protocol.node import Kind
from thermocline.protocol.page import EMPTY, FILLING, POISONED, RESIDENT, SHADOWED, SLOTTED, Entry
from thermocline.protocol.region import Advice

if TYPE_CHECKING:
    from thermocline.protocol.mm import Mm
    from thermocline.protocol.region import Region

_DRAM = 0
#: Pages that are filled as one run at most.
LONGEST_RUN = 32


def fault(mm: Mm, page: int, write: bool) -> Protocol[None]:
    """Answer a fault: bring the page to DRAM, or let the writer go on.

    Locks: waits for the lock of the page with no other lock held, and holds it while a frame is allocated, as
    ``filemap_fault`` does: nobody else can do anything with this page meanwhile but bring it up, too. Sleeps in
    reclaim, and in the read if the page's node is slow.
    """
    mm.vmstat.add("pgfault")
    yield Lock(page)
    state = mm.table.state(page)
    if state in (RESIDENT, SHADOWED):
        yield from _present(mm, page, state, write)
        yield Unlock(page)
        return
    region = mm.region_of(page)
    if region is None or region.freed or state == POISONED:
        # Nobody has allocated this page (any more), or its bytes were lost.
        yield Poison(page)
        yield Unlock(page)
        return
    if not (yield from allocate_frame(mm, mm.groups[region.group])):
        yield Poison(page)
        yield Unlock(page)
        return
    if state == SLOTTED:
        mm.vmstat.add("pgmajfault")
    yield from fill(mm, [page], write)
    ahead = _window(mm, region, page)
    if len(ahead):
        yield Spawn(read_ahead(mm, ahead, write))


def _present(mm: Mm, page: int, state: int, write: bool) -> Protocol[None]:
    """A page that is there: the first write to a clean page, or a message that came late."""
    mm.links.referenced[page] = 1
    if not write:
        yield Wake(page)
        return
    mm.vmstat.add("pgfault_write_protect")
    mm.abort_transaction(page)
    if state == SHADOWED:
        yield from drop_shadow(mm, page)
    yield Remap([page])


def drop_shadow(mm: Mm, page: int) -> Protocol[None]:
    """Forget the clean copy of a locked, resident page *before* it may be written."""
    entry = mm.table.read(page)
    mm.nodes[entry.node].shadows.pop(page, None)
    yield Commit(page, RESIDENT)
    yield Release(entry.node, entry.slot, mm.group_of(page).index)
    mm.vmstat.add("shadow_dropped")


def fill(mm: Mm, pages: Sequence[int], writable: bool) -> Protocol[None]:
    """Bring contiguous, locked, absent pages to DRAM, into frames that are allocated already, and unlock them.

    A page that comes up for reading keeps its slot as a shadow, unless its node is short of room. If a run cannot be
    read, its pages are read one by one, so that the one that is lost takes no other with it.
    """
    before = [mm.table.read(page) for page in pages]
    for page, entry in zip(pages, before, strict=True):
        yield Commit(page, FILLING, entry.node, entry.slot)
    if not (yield Fill(pages, writable)):
        if len(pages) > 1:
            for page, entry in zip(pages, before, strict=True):
                yield Commit(page, entry.state, entry.node, entry.slot)
                yield from fill(mm, [page], writable)
        else:
            yield from _lose(mm, pages[0])
        return
    for page, entry in zip(pages, before, strict=True):
        yield from _arrive(mm, page, entry, writable)
        yield Unlock(page)


def _arrive(mm: Mm, page: int, entry: Entry, writable: bool) -> Protocol[None]:
    """Commit a page that was filled from ``entry``, and put it on the list where it belongs."""
    group = mm.group_of(page)
    node = mm.nodes[entry.node]
    if not entry.node:
        yield Commit(page, RESIDENT)
    elif not writable and (node.kind is Kind.SOURCE or not (node.below_low or node.failed)):
        yield Commit(page, SHADOWED, entry.node, entry.slot)
        if node.kind is not Kind.SOURCE:
            node.shadows[page] = None
            mm.vmstat.add("shadow_kept")
    else:
        yield Commit(page, RESIDENT)
        yield Release(entry.node, entry.slot, group.index)
    hot = False
    lruvec = mm.lruvec(_DRAM, group.index)
    if entry.state == SLOTTED:
        mm.vmstat.add("pgpromote_success")
        distance_is_short = lruvec.refault(page)
        if distance_is_short is not None:
            mm.vmstat.add("workingset_refault")
        hot = bool(distance_is_short)
    if hot:
        mm.vmstat.add("workingset_activate")
        lruvec.age += 1
    mm.lru_add(page, active=hot)


def _lose(mm: Mm, page: int) -> Protocol[None]:
    """The bytes of a page cannot be had: whoever touches it gets SIGBUS, and nobody gets anything wrong."""
    entry = mm.table.read(page)
    group = mm.group_of(page).index
    mm.links.isolate(page)
    yield Commit(page, POISONED)
    yield Poison(page)
    yield Release(_DRAM, 0, group)
    if entry.node:
        yield Release(entry.node, entry.slot, group)
    mm.vmstat.add("poisoned_pages")
    yield Unlock(page)


def _window(mm: Mm, region: Region, page: int) -> range:
    """The pages to read ahead after a fault, within the region."""
    largest = min(mm.policy.readahead_pages, mm.nodes[_DRAM].capacity // mm.page_size // 8)
    if region.advice == Advice.RANDOM or not largest:
        return range(0)
    ahead = region.stream.window(page, largest, eager=region.advice == Advice.SEQUENTIAL)
    return (
        range(max(ahead.start, region.start), min(ahead.stop, region.end), ahead.step)
        if ahead.step > 0
        else range(min(ahead.start, region.end - 1), max(ahead.stop, region.start - 1), ahead.step)
    )


def read_ahead(mm: Mm, pages: Sequence[int], writable: bool) -> Protocol[int]:
    """Bring pages to DRAM before they are asked for -> how many came.

    Locks: tries the locks of a contiguous run and holds them while the run is filled; a page that somebody else is
    busy with ends the run. Reclaims for its frames, but never waits: it stops where there is no room.
    """
    mm.vmstat.add("readahead_windows")
    ordered = sorted(pages)
    count = 0
    run: list[int] = []
    for page in ordered:
        if run and (page != run[-1] + 1 or len(run) == LONGEST_RUN):
            count += len(run)
            yield from fill(mm, run, writable)
            run = []
        if not (yield TryLock(page)):
            continue
        region = mm.region_of(page)
        if mm.table.state(page) not in (EMPTY, SLOTTED) or region is None or region.freed:
            yield Unlock(page)
            continue
        if not (yield from allocate_frame(mm, mm.groups[region.group], may_wait=False)):
            yield Unlock(page)
            break
        run.append(page)
    if run:
        count += len(run)
        yield from fill(mm, run, writable)
    mm.vmstat.add("readahead_pages", count)
    return count
