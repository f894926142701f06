"""`batch`: isolate onto a list, allocate, try-lock all, then move the whole list at once.

Stands for ``demote_folio_list()`` and ``migrate_pages_batch()`` (Linux 5.15, batched in 6.3). Yang Shi's answer to the
thread: reclaim puts the pages on a list of its own and lets go of their locks; the list is migrated afterwards.

Locks: targets are allocated *before* any lock is taken, so allocating, which may reclaim the target, holds up no
user of a source page. Then only try-locks: waiting for one page's lock while holding another's is what deadlocked the
kernel's batches twice. Pages whose lock was taken stay locked through one unmap, one copy and one punch of them all.

Sleeps: in allocation, with no lock held; in the copy, with the batch locked.

Outcome: the pages that did not move. A failed allocation ends the batch: what was not tried is returned and not
counted as failed. A locked page is tried again in two more passes, then once more by itself, then returned. (The
kernel's synchronous passes wait for that lock. A task that reclaims here may hold one that the holder waits for.)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from thermocline.protocol.allocate import allocate_targets
from thermocline.protocol.effects import Event, Protocol, Release, Resched, Trace, TryLock, Unlock
from thermocline.protocol.migrate.move import move

if TYPE_CHECKING:
    from thermocline.protocol.mm import Mm
    from thermocline.protocol.node import Node
    from thermocline.protocol.scan_control import ScanControl

#: Asynchronous passes over pages whose lock another task holds (``NR_MAX_MIGRATE_ASYNC_RETRY``).
ASYNC_PASSES = 3


def migrate_batch(mm: Mm, pages: Sequence[int], target: Node, sc: ScanControl) -> Protocol[list[int]]:
    """Move isolated, unlocked pages of one node to another -> those that did not move."""
    slots = yield from allocate_targets(mm, target, sc, len(pages))
    left: list[int] = list(pages[: len(slots)])
    failed: list[int] = list(pages[len(slots) :])
    for attempt in range(ASYNC_PASSES):
        if attempt:
            yield Resched()
        refused, left = yield from _pass(mm, left, slots, target, sc)
        failed += refused
        if not left:
            break
    for page in left:
        yield Resched()
        refused, busy = yield from _pass(mm, [page], slots, target, sc)
        failed += refused + busy
        mm.vmstat.add("pgmigrate_fail", len(busy))
    for slot in slots:
        yield Release(target.index, slot, sc.group)
    return failed


def _pass(
    mm: Mm, pages: Sequence[int], slots: list[int], target: Node, sc: ScanControl
) -> Protocol[tuple[list[int], list[int]]]:
    """Move the pages whose trylock succeeds, to slots taken from the list -> (did not move, were locked)."""
    locked: list[int] = []
    busy: list[int] = []
    failed: list[int] = []
    for page in pages:
        if not (yield TryLock(page)):
            busy.append(page)
        elif not mm.is_movable(page, sc.node):
            yield Unlock(page)
            failed.append(page)
        else:
            yield Trace(Event.MIGRATE, page)
            locked.append(page)
    if locked:
        taken = [slots.pop() for _ in locked]
        failed += yield from move(mm, locked, taken, target, sc)
    return failed, busy
