"""`relock`: unlock the page, allocate, lock it again, look again, move.

Stands for what Yang Shi named in the thread and argued against: a task that unlocks the page to allocate has to check
again, with the lock, whether the page is still what it was; that is ``migrate_pages()`` in disguise.

Locks: the source page's to decide; none while the target is allocated; then the source page's again, through the
move. The second time it is only tried: the reclaiming task may hold the lock of the page that it makes room for.

Sleeps: in the allocation, with no lock of a source held; in the copy, under the lock.

Outcome: whether the page moved. One whose lock was taken meanwhile, or that was moved or freed, is left alone, and the
target is given back.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from thermocline.protocol.allocate import allocate_target
from thermocline.protocol.effects import Event, Protocol, Release, Trace, TryLock, Unlock
from thermocline.protocol.migrate.move import move

if TYPE_CHECKING:
    from thermocline.protocol.mm import Mm
    from thermocline.protocol.node import Node
    from thermocline.protocol.scan_control import ScanControl


def migrate_relock(mm: Mm, page: int, target: Node, sc: ScanControl, _: int | None = None) -> Protocol[bool]:
    """Move one isolated page, whose lock is held, and unlock it -> whether it moved."""
    yield Unlock(page)
    slot = yield from allocate_target(mm, target, sc)
    if slot is None:
        return False
    if not (yield TryLock(page)):
        yield Release(target.index, slot, sc.group)
        mm.vmstat.add("pgmigrate_fail")
        return False
    if not mm.is_movable(page, sc.node):
        yield Unlock(page)
        yield Release(target.index, slot, sc.group)
        return False
    yield Trace(Event.MIGRATE, page)
    failed = yield from move(mm, [page], [slot], target, sc)
    return not failed
