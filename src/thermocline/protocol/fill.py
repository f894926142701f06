"""A page comes up: from its slot, or from nowhere, into frames of DRAM that are allocated already.

All of it, or some parts. The parts of a page that is read here and there come up one by one, as they are touched; the
page is PARTIAL then, and keeps its slot, since the rest is nowhere else. Until a part is written, the present parts are
write-protected, and reclaim may drop them as it may drop the frame of a page that has a shadow. The first write makes
the page dirty; its parts must then be copied, together with the rest from the slot, to another slot.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from thermocline.protocol.effects import Arrive, Commit, Fill, Poison, Protocol, Punch, Release, Unlock
from thermocline.protocol.first_touch import entered, enters, enters_again
from thermocline.protocol.node import Kind
from thermocline.protocol.page import PARTIAL, POISONED, RESIDENT, SHADOWED, SLOTTED, Entry

if TYPE_CHECKING:
    from thermocline.protocol.mm import Mm

_DRAM = 0


def fill(mm: Mm, pages: Sequence[int], writable: bool, parts: int = 0) -> Protocol[None]:
    """Bring what is missing of contiguous, locked pages to DRAM, into frames that are allocated already; unlock them.

    Of one page, it may be some ``parts`` only; then it is left PARTIAL, and keeps its slot. A page that has come up
    whole for reading keeps its slot as a shadow, unless its node is short of room. If a run cannot be read, its pages
    are read one by one, so that the one that is lost takes no other with it.
    """
    before = [mm.table.read(page) for page in pages]
    for page, entry in zip(pages, before, strict=True):
        mm.links.dirty[page] |= writable  # before the first byte is there that the program may change
        if entry.state == PARTIAL:
            mm.abort_transaction(page)
        else:
            new = enters(mm, page)
            yield Commit(page, PARTIAL, entry.node, entry.slot)
            if new:
                entered(mm)
    yield from bring_up(mm, pages, before, writable, parts)


def bring_up(mm: Mm, pages: Sequence[int], before: Sequence[Entry], writable: bool, parts: int = 0) -> Protocol[None]:
    """The rest of :func:`fill`, where ``before`` are the entries as they were, and PARTIAL is committed."""
    if not (yield Fill(pages, writable, parts)):
        if len(pages) > 1:
            for page, entry in zip(pages, before, strict=True):
                yield Commit(page, entry.state, entry.node, entry.slot)
                if enters(mm, page):
                    enters_again(mm)
                yield from fill(mm, [page], writable)
        else:
            yield from _lose(mm, pages[0], parts or mm.missing(pages[0]))
        return
    done = 0
    if mm.takes_lists and not parts:
        done = yield Arrive(pages, [entry.state for entry in before])
    for page, entry in zip(pages[done:], before[done:], strict=True):
        yield from _arrive(mm, page, entry, parts or mm.all_parts)
        yield Unlock(page)


def go_on(mm: Mm, page: int, write: bool, parts: int) -> Protocol[None]:
    """Go on with a page that the native miss path could not bring up itself, for which it has done all before that.

    Locks: the page's, which is held on entry.
    """
    entry = mm.table.read(page)
    if not mm.links.present[page]:
        entry = Entry(SLOTTED, entry.node, entry.slot)
    yield from bring_up(mm, [page], [entry], write or bool(mm.links.dirty[page]), parts)


def _arrive(mm: Mm, page: int, entry: Entry, parts: int) -> Protocol[None]:
    """Commit what was filled from ``entry``, and put a page that has just come on the list where it belongs."""
    mm.links.present[page] |= parts
    if not mm.missing(page):
        yield from _complete(mm, page, entry)
    if entry.state == PARTIAL:
        return  # it has its place
    hot = False
    lruvec = mm.lruvec(_DRAM, mm.group_of(page).index)
    if entry.state == SLOTTED:
        mm.vmstat.add("pgpromote_success")
        distance_is_short = lruvec.refault(page)
        if distance_is_short is not None:
            mm.vmstat.add("workingset_refault")
        hot = bool(distance_is_short)
    if hot:
        mm.vmstat.add("workingset_activate")
        lruvec.age += 1
    mm.lru_add(page, active=hot)


def _complete(mm: Mm, page: int, entry: Entry) -> Protocol[None]:
    """Commit a page all of which is in DRAM now: with a shadow, if what it came from has the same bytes."""
    node = mm.nodes[entry.node]
    clean = not mm.links.dirty[page]
    if not entry.node:
        yield Commit(page, RESIDENT)
    elif clean and (node.kind is Kind.SOURCE or not (node.below_low or node.failed)):
        yield Commit(page, SHADOWED, entry.node, entry.slot)
        if node.kind is not Kind.SOURCE:
            node.shadows.add(page)
            mm.vmstat.add("shadow_kept")
    else:
        yield Commit(page, RESIDENT)
        yield Release(entry.node, entry.slot, mm.group_of(page).index)
    mm.links.dirty[page] = 0  # behind the commit: a PARTIAL page that is not dirty could be dropped


def _lose(mm: Mm, page: int, parts: int) -> Protocol[None]:
    """Poison a page whose bytes are lost: a thread that touches it gets SIGBUS, and no thread reads a wrong byte.

    ``parts`` are those for which there are frames, and nothing in them.
    """
    entry = mm.table.read(page)
    group = mm.group_of(page).index
    mm.links.isolate(page)
    yield Commit(page, POISONED)
    if mm.links.present[page]:
        yield Punch([page])
    yield Poison(page)
    yield Release(_DRAM, 0, group, mm.bytes_of(parts))
    if entry.node:
        yield Release(entry.node, entry.slot, group)
    mm.vmstat.add("poisoned_pages")
    yield Unlock(page)
