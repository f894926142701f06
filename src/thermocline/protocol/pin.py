"""Pins: pages that stay in DRAM, mapped and writable, while a device or another library writes to them directly.

A page that is pinned for direct I/O (``pin_user_pages``) must not be punched: the device would write to a frame that
is no longer mapped. The kernel does not guard a punch against it, so the pager does.

The program counts the pins of a page, in the shared page table, *before* it asks for the page to be brought up; the
pager only reads them. So a request that a kill interrupts can be repeated, and unpinning takes no request at all.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from thermocline.protocol.allocate import allocate_frame, allocate_page
from thermocline.protocol.cow import break_cow
from thermocline.protocol.effects import Lock, Protocol, Remap, Unlock
from thermocline.protocol.fault import drop_shadow
from thermocline.protocol.fill import fill
from thermocline.protocol.migrate.frames import shift_frames
from thermocline.protocol.page import PARTIAL, POISONED, SHADOWED

if TYPE_CHECKING:
    from thermocline.protocol.mm import Mm

#: A pin counter holds this many pins of a page.
MAX_PINS = 255


def bring_up_pinned(mm: Mm, start: int, count: int) -> Protocol[bool]:
    """Bring pages that were pinned to DRAM, for as long as they are -> False when there is no room or one is lost.

    Locks: one page at a time. Sleeps as a fault does. A page that was brought up with its pin counted is not moved any
    more: a task that moves a page checks its pins with its lock held.
    """
    for page in range(start, start + count):
        if not (yield from _bring_up(mm, page)):
            return False
    return True


def _bring_up(mm: Mm, page: int) -> Protocol[bool]:
    yield Lock(page)
    region = mm.region_of(page)
    if region is None or region.freed or mm.table.state(page) == POISONED:
        yield Unlock(page)
        return False
    if mm.table.resident(page):
        mm.abort_transaction(page)
        yield from break_cow(mm, page)
        if mm.table.state(page) == SHADOWED:
            yield from drop_shadow(mm, page)
        yield from _lift(mm, page)
        yield Remap([page])
        yield Unlock(page)
        return True
    if mm.table.state(page) == PARTIAL:
        mm.links.dirty[page] = 1  # what is there is write-protected, and must not be any more
        yield Remap([page])
    if not (yield from allocate_page(mm, page, mm.groups[region.group], mm.bytes_of(mm.missing(page)))):
        yield Unlock(page)
        return False
    yield from fill(mm, [page], True)
    if mm.owed(page):  # so it came up write-protected
        return (yield from _bring_up(mm, page))
    return mm.table.resident(page)


def _lift(mm: Mm, page: int) -> Protocol[None]:
    """Move a locked page of slow memory to DRAM. If there is no room, it is pinned where it is: it has a frame."""
    node = mm.table.read(page).node
    group = mm.group_of(page)
    if not node or not (yield from allocate_frame(mm, group, mm.page_size, may_wait=False)):
        return
    for moved in (yield from shift_frames(mm, [page], mm.nodes[node], mm.nodes[0], group.index)):
        mm.lru_add(moved)
