"""Recovery: what a fresh pager does with the page table that a killed one left behind.

See :mod:`thermocline.protocol.page` for why each state can be taken up again. It runs before any fault is answered,
so nothing else runs and no lock is needed. Afterwards every waiter of the whole arena is woken and faults again.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from typing import TYPE_CHECKING, NamedTuple

from thermocline.protocol.cow import recover_copies
from thermocline.protocol.effects import (
    FAILED,
    Commit,
    Copy,
    Fill,
    Poison,
    ProtectPresent,
    Protocol,
    Punch,
    Release,
    RestoreCopy,
)
from thermocline.protocol.node import Kind
from thermocline.protocol.page import EMPTY, PARTIAL, POISONED, RESIDENT, SHADOWED, SLOTTED, Entry

if TYPE_CHECKING:
    from thermocline.protocol.mm import Mm

_DRAM = 0


class Presence(NamedTuple):
    """Which parts of a page are in the arena, as bits: those of which anything is, and those all of which is."""

    any: int
    whole: int


def slots_in_use(mm: Mm, pages: Iterable[int]) -> dict[int, list[int]]:
    """The slots that the page table names, by node: all others are free."""
    slots: dict[int, list[int]] = {}
    for page in pages:
        entry = mm.table.read(page)
        if entry.names_slot and mm.nodes[entry.node].kind is not Kind.SOURCE:
            slots.setdefault(entry.node, []).append(entry.slot)
    return slots


def recover(
    mm: Mm,
    pages: Iterable[int],
    present: Callable[[int], Presence],
    size: Callable[[int, int], int],
    doomed: Collection[int] = (),
    whereabouts: Callable[[int], Collection[int] | None] = lambda page: None,
) -> Protocol[None]:
    """Rebuild what is not shared, and finish what was begun.

    Parameters
    ----------
    pages : iterable of int
        The pages of all regions that have an entry, or anything in the arena: at others nothing is to be done.
    present : callable
        Page -> which parts of it are in the arena, by the kernel's own account.
    size : callable
        (node, slot) -> bytes that the slot is charged.
    doomed : collection of int
        Pages that are given up, because one pager after the other has died bringing them up: they are poisoned, so
        that the rest can go on. Done again, should this pager be killed at it.
    whereabouts : callable
        Page -> the mapped nodes that its frame is on, by the kernel's own account: several, if a move was cut short or
        the kernel has moved a part; none, if it does not say.
    """
    if mm.expects_child:
        yield ProtectPresent()  # it is owed pages from now on, whether or not a predecessor had come to that
    astray: dict[int, Collection[int]] = {}
    for page in pages:
        frame = mm.table.read(page).frame
        found = whereabouts(page) or ()
        if frame is not None and found and set(found) != {frame}:
            astray[page] = found  # when it is known how much room the others leave
        else:
            yield from _recover_page(mm, page, found, present, size, doomed)
    for page, found in astray.items():
        yield from _settle_frame(mm, page, found)
        yield from _recover_page(mm, page, (), present, size, doomed)
    yield from recover_copies(mm)


def _recover_page(
    mm: Mm,
    page: int,
    found: Collection[int],
    present: Callable[[int], Presence],
    size: Callable[[int, int], int],
    doomed: Collection[int],
) -> Protocol[None]:
    """Charge a page for what it holds, and finish what was begun with it.

    A frame that the entry does not know of any more is on one of the nodes where it was ``found``.
    """
    entry = mm.table.read(page)
    if mm.first_touch is not None:
        mm.first_touch.holding += mm.first_touch.holds(entry)
    frame = next(iter(found), _DRAM) if entry.frame is None else entry.frame
    group = mm.group_of(page)
    if entry.names_slot and mm.nodes[entry.node].kind is not Kind.SOURCE:
        mm.charge(mm.nodes[entry.node], group, size(entry.node, entry.slot))
    resident = entry.state in (RESIDENT, SHADOWED)
    if resident and present(page).whole != mm.all_parts:
        yield RestoreCopy(page)  # it was withdrawn for a child's sake
    there = mm.all_parts if resident else present(page).any
    mm.links.present[page] = there
    mm.links.dirty[page] = entry.state == PARTIAL  # whether it was written is not known
    mm.charge(mm.nodes[frame], group, mm.bytes_of(there))
    if page in doomed and entry.state != POISONED:
        yield from _give_up(mm, page, entry, frame)
    else:
        yield from _finish(mm, page, entry, present, frame)
    entry = mm.table.read(page)
    if entry.state == SHADOWED and mm.nodes[entry.node].kind is not Kind.SOURCE:
        mm.nodes[entry.node].shadows.add(page)
    mm.lru_add(page)


def _settle_frame(mm: Mm, page: int, found: Collection[int]) -> Protocol[None]:
    """Make the entry of a page name the node that its frame is on, before anything is charged for it.

    A predecessor that was killed behind a move has left it reserved there. What the kernel has moved of its own accord,
    or only in part, is moved back to where it is charged; if that fails, it stays where it is until reclaim moves it.
    """
    entry = mm.table.read(page)
    frame = _DRAM if entry.frame is None else entry.frame
    (node,) = found if len(found) == 1 else (frame,)
    if entry.state == RESIDENT and node != frame and mm.nodes[node].has_room:
        yield Commit(page, RESIDENT, node)
    elif (yield Copy(page, frame, 0, mm.group_of(page).index)) == FAILED:
        mm.vmstat.add("pgmigrate_fail")


def _finish(mm: Mm, page: int, entry: Entry, present: Callable[[int], Presence], frame: int) -> Protocol[None]:
    """Complete the transition that a page was in when the pager was killed; its frame, if any, is on that node."""
    there = mm.links.present[page]
    if entry.state in (EMPTY, SLOTTED):
        if there:
            yield Punch([page], frame)
    elif entry.state == PARTIAL:
        yield from _take_up(mm, page, entry, there, there & ~present(page).whole)
    elif entry.state == POISONED:
        if there:
            yield Punch([page], frame)
        yield Poison(page)


def _take_up(mm: Mm, page: int, entry: Entry, there: int, torn: int) -> Protocol[None]:
    """Go on with a page that was coming up, or that was there in part.

    What the program has written is in the arena already and stays. Whether it has written anything is not known any
    more. The rest of ``torn`` parts, of which some of the base pages are there, comes from the slot.
    """
    group = mm.group_of(page).index
    if not there:
        yield Commit(page, SLOTTED if entry.node else EMPTY, entry.node, entry.slot)
        mm.links.dirty[page] = 0
        return
    if torn and not (yield Fill([page], True, torn)):
        yield Commit(page, POISONED)
        yield Punch([page])
        yield Poison(page)
        mm.vmstat.add("poisoned_pages")
        if entry.node:
            yield Release(entry.node, entry.slot, group)
    elif there == mm.all_parts:
        yield Commit(page, RESIDENT)
        mm.links.dirty[page] = 0
        if entry.node:
            yield Release(entry.node, entry.slot, group)


def _give_up(mm: Mm, page: int, entry: Entry, frame: int) -> Protocol[None]:
    """Poison a page, whatever its state, and give back all that it holds.

    The commit comes first. A pager that is killed behind it leaves a page of which the next one knows that it is lost:
    that one punches and poisons it, and no entry names its slot.
    """
    group = mm.group_of(page).index
    yield Commit(page, POISONED)
    if mm.links.present[page]:
        yield Punch([page], frame)
    yield Poison(page)
    if entry.names_slot:
        yield Release(entry.node, entry.slot, group)
    mm.vmstat.add("poisoned_pages")
