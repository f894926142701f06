"""Faults: a thread touched a page that is missing or write-protected (``handle_mm_fault``).

The message says which page and whether it was a write; what has to be done is judged from the page's entry *under its
lock*, because the page may have come or gone since the message was sent. Answering a fault that needs no answer any
more is a wake-up too many; not answering one is a thread that hangs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from thermocline.protocol.allocate import allocate_page, allocate_run
from thermocline.protocol.cow import abandon, break_cow
from thermocline.protocol.effects import (
    Commit,
    Deny,
    GiveZeros,
    Lock,
    MapFrame,
    Poison,
    Protocol,
    Release,
    Remap,
    Spawn,
    TryLock,
    Unlock,
    Wake,
)
from thermocline.protocol.fill import fill
from thermocline.protocol.page import EMPTY, PARTIAL, POISONED, RESIDENT, SHADOWED, SLOTTED
from thermocline.protocol.readahead import LONGEST_RUN
from thermocline.protocol.region import Advice

if TYPE_CHECKING:
    from thermocline.protocol.mm import Mm
    from thermocline.protocol.region import Region

_DRAM = 0


def fault(mm: Mm, page: int, write: bool, part: int = 0, child: int = 0) -> Protocol[None]:
    """Answer a fault on a part of a page: bring it to DRAM, or let the writer go on.

    Only the part is brought up where that is cheaper, and nothing predicts that the rest will be accessed as well.

    A forked ``child`` that sees the array as it was (0: a process that shares it) never writes to a frame: the kernel
    copies it for the child. A child that is not owed a page has its copy already, or the page was zeros, or it belongs
    to an array that was made after the fork.

    Locks: waits for the lock of the page with no other lock held, and holds it while a frame is allocated, as
    ``filemap_fault`` does: any other task that needs this page needs it brought up, too. Sleeps in reclaim, and in the
    read if the page's node is slow.
    """
    mm.vmstat.add("pgfault")
    yield Lock(page)
    state = mm.table.state(page)
    if child:
        write = False
        if all(other.number != child for other in mm.owed(page)):
            yield GiveZeros(page, child) if _is_of(mm, page, child) else Deny(page, child)
            yield Unlock(page)
            return
        if mm.table.resident(page) or mm.links.present[page] >> part & 1:
            mm.links.referenced[page] = 1
            yield MapFrame(page, child, None if mm.table.resident(page) else part)
            yield Unlock(page)
            return
    # Children are given whole pages, so a page of which they are owed one is brought up whole before it is written.
    owed = write and bool(mm.owed(page))
    if state in (RESIDENT, SHADOWED) or (state == PARTIAL and mm.links.present[page] >> part & 1 and not owed):
        yield from _present(mm, page, state, write)
        yield Unlock(page)
        return
    region = mm.region_of(page)
    if region is None or region.freed or state == POISONED:
        # This page is not allocated (any more), or its bytes were lost.
        yield Poison(page)
        yield Unlock(page)
        return
    parts = 0 if owed else _wanted(mm, region, page, part)
    if parts:
        mm.vmstat.add("pgpartial", parts.bit_count())
    ahead = [] if parts else _windows(mm, region, page)
    if not (yield from allocate_page(mm, page, mm.groups[region.group], mm.bytes_of(parts or mm.missing(page)))):
        if owed and mm.links.present[page] >> part & 1:
            yield from _let_go(mm, page, state)
            yield Unlock(page)
            return
        if state == PARTIAL:
            mm.links.dirty[page] = 1  # what is there of it is not write-protected any more
        yield Poison(page)
        yield Unlock(page)
        return
    if state in (SLOTTED, PARTIAL):
        mm.vmstat.add("pgmajfault")
    was_there = mm.links.present[page] >> part & 1
    yield from fill(mm, [page], write or bool(mm.links.dirty[page]), parts)
    if was_there:
        # What comes up wakes only those who wait for it, and this writer waits for a part that a child was owed. The
        # child may be gone by now, and nothing else may come to wake the writer.
        yield Wake(page)
    for pages in ahead:
        yield Spawn(read_ahead(mm, pages, write))


def follow(mm: Mm, page: int, write: bool) -> Protocol[None]:
    """Read ahead of a fault that the native miss path has answered. Locks: none."""
    region = mm.region_of(page)
    if region is None or region.freed:
        return
    for pages in _windows(mm, region, page):
        yield Spawn(read_ahead(mm, pages, write))


def _is_of(mm: Mm, page: int, child: int) -> bool:
    """Whether a page is one of the arrays that there were when a child was forked."""
    region = mm.region_of(page)
    return region is not None and child in mm.children and region.born < mm.children[child].fork


def _present(mm: Mm, page: int, state: int, write: bool) -> Protocol[None]:
    """A page that is there: the first write to a clean page, or a message that came late."""
    mm.links.referenced[page] = 1
    if not write:
        yield Wake(page)
        return
    mm.vmstat.add("pgfault_write_protect")
    mm.abort_transaction(page)
    yield from break_cow(mm, page)
    if state == PARTIAL:
        mm.links.dirty[page] = 1
    elif state == SHADOWED:
        yield from drop_shadow(mm, page)
    yield Remap([page])


def _let_go(mm: Mm, page: int, state: int) -> Protocol[None]:
    """There is no room to bring a page up whole, a part of which is there, and a child is owed it.

    The writer of that part must not go on as long as one is: so they are ended.
    """
    yield from abandon(mm, [child.number for child in mm.owed(page)])
    if mm.owed(page):  # another was forked until they had ended: the writer faults again
        yield Wake(page)
    else:
        yield from _present(mm, page, state, True)


def drop_shadow(mm: Mm, page: int) -> Protocol[None]:
    """Forget the clean copy of a locked, resident page *before* it may be written."""
    entry = mm.table.read(page)
    mm.nodes[entry.node].shadows.discard(page)
    yield Commit(page, RESIDENT)
    yield Release(entry.node, entry.slot, mm.group_of(page).index)
    mm.vmstat.add("shadow_dropped")


def _wanted(mm: Mm, region: Region, page: int, part: int) -> int:
    """The parts of a page to bring up for a touch of one of them, as bits; 0: all of it, and perhaps more pages."""
    node, _ = mm.table.place(page)
    if mm.parts == 1 or not mm.nodes[node].reads_parts or region.advice == Advice.SEQUENTIAL:
        return 0
    if region.advice == Advice.RANDOM:
        return 1 << part
    if page == region.start and not part:
        return 0  # an access to the beginning of an array is likely to be the first of a stream
    run = region.stream.run(page, part, mm.parts)
    return ((1 << run.stop) - (1 << run.start)) & mm.missing(page) if run else 0


def _windows(mm: Mm, region: Region, page: int) -> list[range]:
    """The pages to read ahead after a fault, within the region: runs, each of which a task reads."""
    largest = largest_window(mm)
    # Without readahead, whole pages follow a stream where others come up in parts.
    if region.advice == Advice.RANDOM or not (largest or (mm.parts > 1 and region.advice == Advice.NORMAL)):
        return []
    ahead = region.stream.window(page, largest, eager=region.advice == Advice.SEQUENTIAL)
    inside = (
        range(max(run.start, region.start), min(run.stop, region.end), run.step)
        if run.step > 0
        else range(min(run.start, region.end - 1), max(run.stop, region.start - 1), run.step)
        for run in ahead
    )
    return [run for run in inside if run]


def largest_window(mm: Mm) -> int:
    """The most pages that are read ahead of a stream: in a small memory they are few."""
    return min(mm.policy.readahead_pages, mm.nodes[_DRAM].capacity // mm.page_size // 8)


def read_ahead(mm: Mm, pages: Sequence[int], writable: bool) -> Protocol[int]:
    """Bring pages to DRAM before they are asked for -> how many came.

    Locks: tries the locks of a contiguous run and holds them while the run is filled; a page that another task
    has locked ends the run. Reclaims for its frames, but never waits: it stops where there is no room.
    """
    mm.vmstat.add("readahead_windows")
    count = 0
    run: list[int] = []
    for page in sorted(pages):
        if run and (page != run[-1] + 1 or len(run) == LONGEST_RUN or not _same_region(mm, page, run[0])):
            came, wanted = (yield from _read_run(mm, run, writable)), len(run)
            count += came
            run = []
            if came < wanted:
                break
        if not (yield TryLock(page)):
            continue
        region = mm.region_of(page)
        if mm.table.state(page) not in (EMPTY, SLOTTED, PARTIAL) or region is None or region.freed:
            yield Unlock(page)
            continue
        run.append(page)
    if run:
        count += yield from _read_run(mm, run, writable)
    mm.vmstat.add("readahead_pages", count)
    return count


def _same_region(mm: Mm, page: int, other: int) -> bool:
    return mm.table.region[page] == mm.table.region[other]


def _read_run(mm: Mm, run: Sequence[int], writable: bool) -> Protocol[int]:
    """Bring up as many of contiguous, locked pages of one group as there are frames for, and unlock all -> how many."""
    count = yield from allocate_run(mm, run, mm.group_of(run[0]))
    for page in run[count:]:
        yield Unlock(page)
    if count:
        yield from fill(mm, run[:count], writable)
    return count
