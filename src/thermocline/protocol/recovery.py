"""Recovery: what a fresh pager does with the page table that a killed one left behind.

See :mod:`thermocline.protocol.page` for why each state can be taken up again. It runs before any fault is answered,
so nothing else runs and no lock is needed. Afterwards every waiter of the whole arena is woken and faults again.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from typing import TYPE_CHECKING, NamedTuple

from thermocline.protocol.effects import Commit, Fill, Poison, Protocol, Punch, Release
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
        if entry.node and mm.nodes[entry.node].kind is not Kind.SOURCE:
            slots.setdefault(entry.node, []).append(entry.slot)
    return slots


def recover(
    mm: Mm,
    pages: Iterable[int],
    present: Callable[[int], Presence],
    size: Callable[[int, int], int],
    doomed: Collection[int] = (),
) -> Protocol[None]:
    """Rebuild what is not shared, and finish what was begun.

    Parameters
    ----------
    pages : iterable of int
        Every page of every region.
    present : callable
        Page -> which parts of it are in the arena, by the kernel's own account.
    size : callable
        (node, slot) -> bytes that the slot is charged.
    doomed : collection of int
        Pages that are given up, because one pager after the other has died bringing them up: they are poisoned, so
        that the rest can go on. Done again, should this pager be killed at it.
    """
    dram = mm.nodes[_DRAM]
    for page in pages:
        entry = mm.table.read(page)
        group = mm.group_of(page)
        if entry.node and mm.nodes[entry.node].kind is not Kind.SOURCE:
            mm.charge(mm.nodes[entry.node], group, size(entry.node, entry.slot))
        there = mm.all_parts if entry.state in (RESIDENT, SHADOWED) else present(page).any
        mm.links.present[page] = there
        mm.charge(dram, group, mm.bytes_of(there))
        if page in doomed and entry.state != POISONED:
            yield from _give_up(mm, page, entry)
        else:
            yield from _finish(mm, page, entry, present)
        entry = mm.table.read(page)
        if entry.state == SHADOWED and mm.nodes[entry.node].kind is not Kind.SOURCE:
            mm.nodes[entry.node].shadows[page] = None
        mm.lru_add(page)


def _finish(mm: Mm, page: int, entry: Entry, present: Callable[[int], Presence]) -> Protocol[None]:
    """Complete the transition that a page was in when the pager was killed."""
    there = mm.links.present[page]
    if entry.state in (EMPTY, SLOTTED):
        if there:
            yield Punch([page])
    elif entry.state == PARTIAL:
        yield from _take_up(mm, page, entry, there, there & ~present(page).whole)
    elif entry.state == POISONED:
        if there:
            yield Punch([page])
        yield Poison(page)


def _take_up(mm: Mm, page: int, entry: Entry, there: int, torn: int) -> Protocol[None]:
    """Go on with a page that was coming up, or that was there in part.

    What the program has written is in the arena already and stays. Whether it has written anything nobody knows any
    more. The rest of ``torn`` parts, of which some of the base pages are there, comes from the slot.
    """
    group = mm.group_of(page).index
    if not there:
        yield Commit(page, SLOTTED if entry.node else EMPTY, entry.node, entry.slot)
        return
    mm.links.dirty[page] = 1
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


def _give_up(mm: Mm, page: int, entry: Entry) -> Protocol[None]:
    """Poison a page, whatever its state, and give back all that it holds.

    The commit comes first. A pager that is killed behind it leaves a page of which the next one knows that it is lost:
    that one punches and poisons it, and no entry names its slot.
    """
    group = mm.group_of(page).index
    yield Commit(page, POISONED)
    if mm.links.present[page]:
        yield Punch([page])
    yield Poison(page)
    if entry.node:
        yield Release(entry.node, entry.slot, group)
    mm.vmstat.add("poisoned_pages")
