"""`deferred`: the target is allocated with the source locked.

Stands for patch 2/8 of the June 2020 series (Keith Busch, Dave Hansen): ``shrink_page_list()`` holds the page lock
when it decides to demote, and calls ``migrate_demote_mapping()``, which allocates inside ``__unmap_and_move()``.

Locks: the source page's, from before the allocation until after the move.

Sleeps: in the allocation, *under that lock*: it may reclaim the target and wait for a slow node below it. Greg
Thelen's concern in the thread is that every unrelated thread that wants the source page waits all that time.

Outcome: whether the page moved. Without a target it is unlocked, untouched, and still isolated.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from thermocline.protocol.allocate import allocate_target
from thermocline.protocol.effects import Event, Protocol, Trace, Unlock
from thermocline.protocol.migrate.move import move

if TYPE_CHECKING:
    from thermocline.protocol.mm import Mm
    from thermocline.protocol.node import Node
    from thermocline.protocol.scan_control import ScanControl


def migrate_deferred(mm: Mm, page: int, target: Node, sc: ScanControl, _: int | None = None) -> Protocol[bool]:
    """Move one isolated page, whose lock is held, and unlock it -> whether it moved."""
    yield Trace(Event.MIGRATE, page)
    slot = yield from allocate_target(mm, target, sc)
    if slot is None:
        yield Unlock(page)
        return False
    failed = yield from move(mm, [page], [slot], target, sc)
    return not failed
