"""`transactional`: copy while readers and writers go on, and give up what was written meanwhile.

Stands for Nomad's transactional page migration (OSDI 2024): a page stays mapped while it is copied, and the copy is
committed only if the page is still clean. No thread ever waits for a copy; a busy page costs a wasted copy.

The dirty bit of a page is its write protection. A write during the copy faults, goes on at once, and ends the
transaction of that page (:meth:`~thermocline.protocol.mm.Mm.abort_transaction`). The other half of
Nomad, to keep the clean copy of a promoted page as a shadow, is part of every design here (see
:func:`thermocline.protocol.fill.fill`).

Locks: none while targets are allocated. The source pages', tried together, to protect them; none during the copy;
then each page's again, tried, to commit and to free its frame.

Sleeps: in allocation and in the copy, with no lock held.

Outcome: the pages that did not move. A failed allocation ends the list; a page that another task has locked when it
should begin or commit is returned and counted as failed; one that was written is returned and counted as aborted.

Pages of a node that is not mapped have no readers or writers, and pages that go to a mapped node are moved by the
kernel, in just this way: both move as in `batch`. So do pages that are in DRAM in part: a fault that brings up the rest
of one releases the slot that a copy without its lock reads from.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from thermocline.protocol.allocate import allocate_targets
from thermocline.protocol.effects import CopyList, Event, Protocol, Release, Trace, TryLock, Unlock, Unmap
from thermocline.protocol.migrate.batch import migrate_batch
from thermocline.protocol.migrate.move import commit_copies
from thermocline.protocol.node import Kind
from thermocline.protocol.page import PARTIAL

if TYPE_CHECKING:
    from thermocline.protocol.mm import Mm
    from thermocline.protocol.node import Node
    from thermocline.protocol.scan_control import ScanControl


def migrate_transactional(mm: Mm, pages: Sequence[int], target: Node, sc: ScanControl) -> Protocol[list[int]]:
    """Move isolated, unlocked pages of one node to another -> those that did not move."""
    if sc.node.kind is not Kind.MAPPED or target.kind is Kind.MAPPED:
        return (yield from migrate_batch(mm, pages, target, sc))
    slots = yield from allocate_targets(mm, target, sc, len(pages))
    failed: list[int] = list(pages[len(slots) :])
    begun, slots, left = yield from _begin(mm, pages[: len(slots)], slots, target, sc)
    partial = [page for page in left if mm.table.state(page) == PARTIAL]
    failed += [page for page in left if mm.table.state(page) != PARTIAL]
    if begun:
        sizes: list[int] = yield CopyList(begun, target.index, slots, sc.group)
        failed += yield from _commit(mm, begun, slots, sizes, target, sc)
    if partial:
        failed += yield from migrate_batch(mm, partial, target, sc)
    return failed


def _begin(
    mm: Mm, pages: Sequence[int], slots: Sequence[int], target: Node, sc: ScanControl
) -> Protocol[tuple[list[int], list[int], list[int]]]:
    """Write-protect pages and note where each is copied to -> (pages, their slots, the others)."""
    begun: list[int] = []
    taken: list[int] = []
    busy: list[int] = []
    gone: list[int] = []
    for page, slot in zip(pages, slots, strict=True):
        if not (yield TryLock(page)):
            busy.append(page)
            yield Release(target.index, slot, sc.group)
        elif not mm.is_movable(page, sc.node) or mm.table.state(page) == PARTIAL:
            yield Unlock(page)
            yield Release(target.index, slot, sc.group)
            gone.append(page)
        else:
            yield Trace(Event.MIGRATE, page)
            mm.links.transit[page] = slot
            begun.append(page)
            taken.append(slot)
    mm.vmstat.add("pgmigrate_fail", len(busy))
    if begun:
        yield Unmap(begun)
        for page in begun:
            yield Unlock(page)
    return begun, taken, busy + gone


def _commit(
    mm: Mm, pages: Sequence[int], slots: Sequence[int], sizes: Sequence[int], target: Node, sc: ScanControl
) -> Protocol[list[int]]:
    """Commit the pages whose transactions still stand, and free their frames -> those that did not move."""
    failed: list[int] = []
    clean: list[tuple[int, int, int]] = []
    for page, slot, size in zip(pages, slots, sizes, strict=True):
        locked = yield TryLock(page)
        stands = mm.links.transit[page] == slot
        if stands:
            mm.links.transit[page] = 0
        if locked and stands:
            yield Trace(Event.MIGRATE, page)
            clean.append((page, slot, size))
            continue
        if locked:
            yield Unlock(page)
        yield Release(target.index, slot, sc.group)
        mm.vmstat.add("pgmigrate_fail" if stands else "pgmigrate_abort")
        failed.append(page)
    if clean:
        ready, taken, sizes = (list(column) for column in zip(*clean, strict=True))
        failed += yield from commit_copies(mm, ready, taken, sizes, target, sc)
    return failed
