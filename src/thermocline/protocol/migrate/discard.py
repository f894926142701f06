"""`discard`: drop the page; its next user faults, and pays for the allocation then.

Stands for what reclaim did before the series: a clean page is dropped, because a file has its bytes; any other is
written to the backing store (``pageout()``, swap) and then dropped, past every tier of memory between. The thread
measures itself against it: tossing the page, said Dave Hansen, only moves the latency to a later fault.

Nothing is lost here either. The backing store is the last node of the demotion path; when it has no room, the next
one above takes the page, and when none has, room is made: whatever was committed can be kept.

Locks: the source page's, through the write, as ``pageout()`` holds it until the write is under way.

Sleeps: in that write, under the lock. In an allocation only when every node below is full.

Outcome: whether the page is gone. If no node below has room it is unlocked, untouched, and still isolated.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from thermocline.protocol.allocate import allocate_target
from thermocline.protocol.effects import Event, Protocol, Reserve, Trace, Unlock
from thermocline.protocol.migrate.move import move

if TYPE_CHECKING:
    from thermocline.protocol.mm import Mm
    from thermocline.protocol.node import Node
    from thermocline.protocol.scan_control import ScanControl


def migrate_discard(mm: Mm, page: int, target: Node, sc: ScanControl, _: int | None = None) -> Protocol[bool]:
    """Write one isolated page, whose lock is held, to the backing store, drop it, and unlock it -> whether it went."""
    yield Trace(Event.MIGRATE, page)
    slot: int | None = None
    for below in reversed(mm.path.from_node(sc.node.index)[1:]):
        slot = yield Reserve(below, sc.group)
        if slot is not None:
            target = mm.nodes[below]
            break
    else:
        slot = yield from allocate_target(mm, target, sc)
    if slot is None:
        yield Unlock(page)
        return False
    failed = yield from move(mm, [page], [slot], target, sc)
    return not failed
