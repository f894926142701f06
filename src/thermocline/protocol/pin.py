"""Pins: pages that stay in DRAM, mapped and writable, while a device or another library writes to them directly.

A page that is pinned for direct I/O (``pin_user_pages``) must not be punched: the device would write to a frame that
nobody maps any more. The kernel does not guard a punch against it, so the pager does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from thermocline.protocol.allocate import allocate_frame
from thermocline.protocol.effects import Lock, Protocol, Remap, Unlock
from thermocline.protocol.fault import drop_shadow, fill
from thermocline.protocol.page import POISONED, SHADOWED

if TYPE_CHECKING:
    from thermocline.protocol.mm import Mm

#: A pin counter holds this many pins of a page.
MAX_PINS = 255


def pin(mm: Mm, start: int, count: int) -> Protocol[bool]:
    """Bring pages to DRAM and hold them there -> False, and nothing pinned, when there is no room or a page is lost.

    Locks: one page at a time. Sleeps as a fault does.
    """
    for page in range(start, start + count):
        if not (yield from _pin_page(mm, page)):
            yield from unpin(mm, start, page - start)
            return False
    return True


def _pin_page(mm: Mm, page: int) -> Protocol[bool]:
    yield Lock(page)
    region = mm.region_of(page)
    if region is None or region.freed or mm.table.state(page) == POISONED or mm.table.pins[page] == MAX_PINS:
        yield Unlock(page)
        return False
    mm.table.pins[page] += 1
    if mm.table.resident(page):
        if mm.table.state(page) == SHADOWED:
            yield from drop_shadow(mm, page)
        yield Remap([page])
        yield Unlock(page)
        return True
    if not (yield from allocate_frame(mm, mm.groups[region.group])):
        mm.table.pins[page] -= 1
        yield Unlock(page)
        return False
    yield from fill(mm, [page], True)
    if mm.table.resident(page):
        return True
    if mm.table.pins[page]:
        mm.table.pins[page] -= 1  # its bytes cannot be had: there is nothing to hold
    return False


def unpin(mm: Mm, start: int, count: int) -> Protocol[None]:
    """Let go of pages that were pinned."""
    for page in range(start, start + count):
        yield Lock(page)
        if mm.table.pins[page]:
            mm.table.pins[page] -= 1
        yield Unlock(page)
