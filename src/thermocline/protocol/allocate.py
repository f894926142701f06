"""Allocation: a frame for a page that comes up, a slot for a page that goes down (``__alloc_pages``).

The fast path takes room if there is any and wakes kswapd below the low watermark. The slow path of a frame reclaims
for itself (direct reclaim) and, when there is nothing to reclaim, waits. The slow path of a slot, which runs inside
migration, fails fast: it may make room in the target by demoting *from the target*, never from the node it drains.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from thermocline.protocol import reclaim
from thermocline.protocol.effects import Event, Protocol, Release, Reserve, Throttle, Trace, WakeKswapd
from thermocline.protocol.first_touch import entered, enters
from thermocline.protocol.group import GroupReclaim
from thermocline.protocol.scan_control import Cause

if TYPE_CHECKING:
    from thermocline.protocol.group import Group
    from thermocline.protocol.mm import Mm
    from thermocline.protocol.node import Node
    from thermocline.protocol.scan_control import ScanControl

_DRAM = 0


def allocate_page(mm: Mm, page: int, group: Group, size: int, *, may_wait: bool = True) -> Protocol[bool]:
    """Frames for what comes up of a locked page, in bytes, for which it has to be let in first if it holds nothing.

    Otherwise as :func:`allocate_frame`.
    """
    new = enters(mm, page)
    if new and not (yield from let_in(mm, group.index, may_wait=may_wait)):
        return False
    if (yield from allocate_frame(mm, group, size, may_wait=may_wait)):
        return True
    if new:
        entered(mm)
    return False


def allocate_run(mm: Mm, pages: Sequence[int], group: Group) -> Protocol[int]:
    """Frames for what is missing of locked pages of a group, without waiting -> for how many pages, from the first on.

    Where room for all can be made, it is taken at once. What is free below the low watermark is left to faults, which
    wait for it: pages that are not asked for yet are reclaimed for before.
    """
    sizes = [mm.bytes_of(mm.missing(page)) for page in pages]
    total = sum(sizes)
    if not any(enters(mm, page) for page in pages):
        yield from _make_room(mm, total)
        if not group.excess(total) and (yield Reserve(_DRAM, group.index, total)) is not None:
            mm.vmstat.add("pgalloc", len(pages))
            return len(pages)
    for count, (page, size) in enumerate(zip(pages, sizes, strict=True)):
        if not (yield from allocate_page(mm, page, group, size, may_wait=False)):
            return count
    return len(pages)


def _make_room(mm: Mm, size: int) -> Protocol[None]:
    """Reclaim until so many bytes of DRAM are free above the low watermark, or there is nothing to reclaim."""
    dram = mm.nodes[_DRAM]
    wanted = size + dram.watermarks.low - dram.free
    if wanted <= 0:
        return
    yield WakeKswapd(_DRAM)
    while wanted > 0:
        mm.vmstat.add("allocstall")
        freed = yield from reclaim.shrink_node(mm, dram, Cause.DIRECT)
        if not freed:
            return
        wanted -= freed * mm.page_size


def allocate_frame(mm: Mm, group: Group, size: int, *, may_wait: bool = True) -> Protocol[bool]:
    """Bytes of the DRAM budget for a page or for parts of one, charged to a group -> whether there are so many.

    Locks: none taken; the caller may hold the lock of the page that comes up, so reclaim here only ever tries locks.
    Sleeps: in reclaim (a slow node below), and with ``may_wait`` until room appears or patience ends.

    A group over its limit whose pages have nowhere to go, because every node that they could leave for is full of other
    groups' pages, goes beyond its limit. There is room in the machine, or it would not have been committed; and to let
    a program die for a limit that it cannot do anything about is what tiers are there to avoid.
    """
    dram = mm.nodes[_DRAM]
    credit = 0
    while True:
        excess = group.excess(size, credit)
        if excess:
            mm.vmstat.add("group_reclaim")
            reclaimed = yield from reclaim.shrink_group(mm, group, excess)
            if mm.policy.group_reclaim is GroupReclaim.DEMOTED:
                credit += reclaimed
            if not reclaimed and not reclaim.has_outlet(mm, group):
                mm.vmstat.add("group_over_limit")
                credit += excess
            elif not reclaimed and not (may_wait and (yield from _throttle(mm, dram, group))):
                return False
            continue
        if (yield Reserve(_DRAM, group.index, size)) is not None:
            mm.vmstat.add("pgalloc")
            if group.excess(0, credit):  # another allocation of the group came first
                yield Release(_DRAM, 0, group.index, size)
                continue
            if dram.below_low:
                yield WakeKswapd(_DRAM)
            return True
        yield WakeKswapd(_DRAM)
        mm.vmstat.add("allocstall")
        freed = yield from reclaim.shrink_node(mm, dram, Cause.DIRECT)
        if not freed and not (may_wait and (yield from _throttle(mm, dram, group))):
            return False


def let_in(mm: Mm, group: int, *, may_wait: bool = True) -> Protocol[bool]:
    """Let in a page that holds nothing -> whether it may come up. :func:`~thermocline.protocol.fill.fill` counts it.

    Locks: the caller holds that of the page; only try-locks here. Sleeps in reclaim, and with ``may_wait`` until there
    is room or patience ends.
    """
    counts = mm.first_touch
    assert counts is not None
    if may_wait:
        while counts.full and (yield from reclaim.shrink_node(mm, mm.nodes[_DRAM], Cause.DIRECT)):
            pass
        while counts.full:
            mm.vmstat.add("allocthrottle")
            if not (yield Throttle(_DRAM, group, enters=True)):
                return False
    if counts.full:
        return False
    counts.entering += 1
    return True


def _throttle(mm: Mm, node: Node, group: Group) -> Protocol[bool]:
    mm.vmstat.add("allocthrottle")
    patient: bool = yield Throttle(node.index, group.index)
    return patient


def allocate_target(mm: Mm, target: Node, sc: ScanControl) -> Protocol[int | None]:
    """A slot in a lower node, for a page that reclaim of a higher node moves (``alloc_demote_folio``) -> slot or None.

    Locks: the caller may hold the lock of the page that goes down (the `deferred` design does): only try-locks here.
    Sleeps: direct reclaim may, in the node below the target. Background reclaim leaves the target to its own kswapd,
    unless the target is full.
    """
    yield Trace(Event.ALLOCATE)
    slot: int | None = yield Reserve(target.index, sc.group)
    if slot is None and _may_make_room(mm, target):
        yield from reclaim.shrink_node(mm, target, sc.cause)
        slot = yield Reserve(target.index, sc.group)
    if target.below_low:
        yield WakeKswapd(target.index)
    yield Trace(Event.ALLOCATED)
    return slot


def _may_make_room(mm: Mm, target: Node) -> bool:
    """Whether anything could leave a full lower node: a shadow, or a page that a node below has room for.

    Where nothing can, an allocation would fail for each page of the node above, and for each of those reclaim would
    look at every page of this node, and so on down: a search whose length is the product of all nodes' pages.
    """
    nodes = [mm.nodes[index] for index in mm.path.from_node(target.index)]
    return any((node.shadows and not node.failed) or (node is not target and node.has_room) for node in nodes)


def allocate_targets(mm: Mm, target: Node, sc: ScanControl, count: int) -> Protocol[list[int]]:
    """Slots for many pages -> as many as there were: the first that is not to be had ends it (``-ENOMEM``)."""
    slots: list[int] = []
    while len(slots) < count:
        slot = yield from allocate_target(mm, target, sc)
        if slot is None:
            break
        slots.append(slot)
    return slots
