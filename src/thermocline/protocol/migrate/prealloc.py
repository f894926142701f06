"""`prealloc`: one target is allocated before the lock, and kept for the next page if the lock fails.

Stands for what Dave Hansen offered in the thread: nothing would be allocated under a page lock any more, and one
target at a time is enough, because a page whose lock is taken leaves it to the page after it. Yang Shi's objection,
that one cannot know how many targets will be needed, is met by needing one at a time.

It takes part in global reclaim only, as its author limited it: a target that lies ready may never be used, and a
group over its limit must not be charged for it. Reclaim for a group's limit goes the way of `deferred`.

Locks: none while the target is allocated; then the source page's, through the move.

Sleeps: in the allocation, with no lock of a source held; in the copy, under the lock.

Outcome: whether the page moved. A target is allocated before reclaim looks at the page, so it is there even for a page
that turns out to be in use; what is left of it after the last page is released. When there is none, no further one is
asked for in the same pass.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from thermocline.protocol.allocate import allocate_target
from thermocline.protocol.effects import Event, Protocol, Trace, Unlock
from thermocline.protocol.migrate.deferred import migrate_deferred
from thermocline.protocol.migrate.move import move

if TYPE_CHECKING:
    from thermocline.protocol.mm import Mm
    from thermocline.protocol.node import Node
    from thermocline.protocol.scan_control import ScanControl


def preallocate(mm: Mm, target: Node, sc: ScanControl) -> Protocol[int | None]:
    """A slot for whichever page is locked next -> slot or None."""
    if sc.for_group:
        return None
    return (yield from allocate_target(mm, target, sc))


def migrate_prealloc(mm: Mm, page: int, target: Node, sc: ScanControl, spare: int | None) -> Protocol[bool]:
    """Move one isolated page, whose lock is held, to the slot that lies ready, and unlock it -> whether it moved."""
    if sc.for_group:
        return (yield from migrate_deferred(mm, page, target, sc))
    if spare is None:
        yield Unlock(page)
        return False
    yield Trace(Event.MIGRATE, page)
    failed = yield from move(mm, [page], [spare], target, sc)
    return not failed
