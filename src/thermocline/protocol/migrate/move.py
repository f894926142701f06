"""The part of a migration that all designs share: unmap, copy, commit, free, for pages whose locks are held.

The designs differ in *when* the target is allocated relative to the lock on the source; once both are held there is
one right order, and it is here (``migrate_folio_unmap`` and ``migrate_folio_move``):

1. Unmap: writers wait from now on, so both copies stay equal. (Pages of an unmapped node have no writers.)
2. Copy to the target slots.
3. Commit: the page table names the slot. A crash before this line loses nothing, the source is intact; a crash after
   it loses nothing, the target is.
4. Free the source: punch the hole, or release the old slot. Waiters of the page find it in its new place.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from thermocline.protocol.effects import (
    FAILED,
    ZERO,
    Commit,
    Copy,
    CopyList,
    Protocol,
    Punch,
    Release,
    Remap,
    Reserve,
    Unlock,
    Unmap,
)
from thermocline.protocol.migrate.frames import move_frames
from thermocline.protocol.node import Kind
from thermocline.protocol.page import EMPTY, RESIDENT, SLOTTED

if TYPE_CHECKING:
    from thermocline.protocol.mm import Mm
    from thermocline.protocol.node import Node
    from thermocline.protocol.scan_control import ScanControl


def move(mm: Mm, pages: Sequence[int], slots: Sequence[int], target: Node, sc: ScanControl) -> Protocol[list[int]]:
    """Move locked pages from a node to reserved slots of another -> the pages that could not be moved.

    Locks: all pages are locked on entry and unlocked on return. Sleeps in the copy, if the target or the source is
    slow. Every slot is either named by a page's entry on return, or released. Pages that moved are on the target's
    list; pages that failed are still isolated.
    """
    if target.kind is Kind.MAPPED:
        return (yield from move_frames(mm, pages, target, sc))
    if sc.node.kind is Kind.MAPPED:
        yield Unmap(pages)
    sizes: list[int] = yield CopyList(pages, target.index, slots, sc.group)
    return (yield from commit_copies(mm, pages, slots, sizes, target, sc))


def commit_copies(
    mm: Mm, pages: Sequence[int], slots: Sequence[int], sizes: Sequence[int], target: Node, sc: ScanControl
) -> Protocol[list[int]]:
    """Commit locked pages that were copied to slots, and free their sources -> the pages that could not be copied.

    ``sizes`` is what :class:`~thermocline.protocol.effects.CopyList` gave; for the rest, see :func:`move`.
    """
    source = sc.node
    mapped = source.kind is Kind.MAPPED
    failed: list[int] = []
    moved: list[int] = []
    old_slots: list[tuple[int, int, int]] = []
    for page, slot, size in zip(pages, slots, sizes, strict=True):
        group = mm.group_of(page).index
        if size == FAILED:
            yield Release(target.index, slot, group)
            failed.append(page)
            continue
        entry = mm.table.read(page)
        if entry.names_slot:
            # The slot that the entry names until now: the shadow of a resident page, or the place it is moved from.
            mm.nodes[entry.node].shadows.discard(page)
            old_slots.append((entry.node, entry.slot, group))
        if size == ZERO:
            yield Release(target.index, slot, group)
            yield Commit(page, EMPTY)
            mm.vmstat.add("pgmigrate_zero")
        else:
            place = yield from _settle(mm, page, slot, size, target)
            yield Commit(page, SLOTTED, *place)
        mm.note_eviction(page, source)
        moved.append(page)
    if failed and mapped:
        # A shadowed page stays write-protected, or its first write would go unseen; a writer that waits for one finds
        # that out in its own fault, as soon as it gets the lock.
        yield Remap([page for page in failed if mm.table.state(page) == RESIDENT])
    if moved and mapped:
        yield Punch(moved, source.index)
    for old in old_slots:
        yield Release(*old)
    mm.vmstat.add("pgmigrate_success", len(moved))
    mm.vmstat.add(f"pgdemote_{sc.cause.value}", len(moved))
    mm.vmstat.add("pgmigrate_fail", len(failed))
    for page in moved:
        mm.lru_add(page)
    for page in pages:
        yield Unlock(page)
    return failed


def _settle(mm: Mm, page: int, slot: int, size: int, target: Node) -> Protocol[tuple[int, int]]:
    """Where a copied page comes to rest -> (node, slot).

    A page that did not shrink in compressed memory only takes room there: it goes on down if the node's rule says so
    and there is room below. If not, it stays.
    """
    below = mm.path.next_node(target.index)
    if target.keep_incompressible or size < mm.page_size or below is None:
        return target.index, slot
    group = mm.group_of(page).index
    lower: int | None = yield Reserve(below, group)
    if lower is None:
        return target.index, slot
    if (yield Copy(page, below, lower, group)) <= 0:
        yield Release(below, lower, group)
        return target.index, slot
    yield Release(target.index, slot, group)
    mm.vmstat.add("pgmigrate_incompressible")
    return below, lower
