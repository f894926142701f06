"""Copy on write between a program and its forked children (``dup_mmap``, ``wp_page_copy``).

A child maps the arena *privately* (mmap(2), ``MAP_PRIVATE``): it reads the program's frames, and the kernel copies the
pages that it writes. So a child that only reads costs nothing, and its own writes never reach this code. The other
direction does. A fork write-protects all pages in memory, and pages that come up after it come up protected, so the
program's first write to each page is a fault. Before the writer goes on, every child that still sees the page through
its frame is given a copy of its own: then the fork is *given* the page, which one word of the page table says.

Where a child has nothing mapped, a copy can be installed. Where it has something mapped, that is either a copy of its
own, which must stay, or the frame itself; they cannot be told apart without a race against the child. So
the frame is withdrawn: a hole is punched, which unmaps the frame everywhere and leaves private copies alone. Then the
copy can be installed exactly where the frame was. Meanwhile the bytes are in a saved copy, which survives the pager.

A child exists only some time after its fork was prepared. What it is owed until it is attached goes to the saved
copies, and from there to the child before it runs. Forks of one memory are made one after the other.

==========================  ===========================================================================================
killed behind               the successor finds
==========================  ===========================================================================================
``CopyToChildren``          a page not given: it is done again, and what children have stays
``SaveCopy``                the frame, and a copy that nothing needs: dropped, or kept for a child that is expected
``Withdraw``                no frame, and the entry says that there is one: brought back from the saved copy
``RestoreCopy``             as behind ``SaveCopy``
``Give``                    a page that is protected and owed to none: the next write goes on
==========================  ===========================================================================================
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from thermocline.protocol.allocate import allocate_frame
from thermocline.protocol.effects import (
    Abandon,
    CopySaved,
    CopyToChildren,
    DropCopy,
    Give,
    Lock,
    ProtectPresent,
    Protocol,
    Remap,
    RestoreCopy,
    SaveCopy,
    SavedPages,
    Unlock,
    Withdraw,
)
from thermocline.protocol.migrate.frames import shift_frames

if TYPE_CHECKING:
    from thermocline.protocol.child import Child
    from thermocline.protocol.mm import Mm

_DRAM = 0


def break_cow(mm: Mm, page: int) -> Protocol[None]:
    """Give each child that is owed a page a copy of its own.

    Which children are owed the page may change at each step: children are attached, die, and fork others. A child that
    was attached before its copy was saved would find neither this copy nor that one, so all children are looked at
    again before the page is given. A child that is still expected once its copy is saved waits for the page's lock when
    it is attached.

    Locks: the page's, which is held on entry and on return. The page is in memory as a whole. Sleeps only where its
    frame is in slow memory and has to be lifted to DRAM first; where there is no room for that, the children that have
    it mapped are ended.
    """
    saved = False
    while owed := mm.owed(page):
        newest = max(child.fork for child in owed)
        attached = [child for child in owed if not child.expected]
        expected = [child for child in owed if child.expected]
        mapped: list[int] = yield CopyToChildren(page)
        mapped = [*mapped, *(child.number for child in expected if child.inherits)]
        if mapped and not (yield from _lift(mm, page)):
            yield from abandon(mm, mapped)
            continue
        mm.abort_transaction(page)
        if mapped or expected:
            saved = True
            yield SaveCopy(page)
        if mapped:
            yield Withdraw(page)
            yield CopyToChildren(page)
            yield RestoreCopy(page)
        # One that was attached before its copy was saved, or that a child forked meanwhile, may have been passed over.
        left = [child for child in mm.owed(page) if child.fork <= newest]
        if any(child not in (expected if child.expected else attached) for child in left):
            continue
        yield Give(page, newest)
        mm.vmstat.add("cow_pages")
    if saved and not mm.expects_child:
        yield DropCopy(page)


def abandon(mm: Mm, children: Iterable[int]) -> Protocol[None]:
    """End children that cannot be given what they are owed. What was saved for them is dropped once they are gone.

    Locks: none is taken; the caller may hold one. Sleeps until those that run have ended, and others may be forked
    meanwhile. It does not wait for one that is expected: its fork may wait for the lock that the caller holds.
    """
    for number in children:
        yield Abandon(number)
        mm.children.pop(number, None)


def _lift(mm: Mm, page: int) -> Protocol[bool]:
    """Move a locked page to DRAM if its frame is in slow memory, because a frame that is brought back comes there."""
    node = mm.table.read(page).frame
    group = mm.group_of(page)
    if not node:
        return True
    if not (yield from allocate_frame(mm, group, mm.page_size)):
        return False
    for moved in (yield from shift_frames(mm, [page], mm.nodes[node], mm.nodes[_DRAM], group.index)):
        mm.lru_add(moved)
    return mm.table.read(page).frame == _DRAM


def begin_fork(mm: Mm, child: Child, pinned: Iterable[int], *, of_program: bool) -> Protocol[None]:
    """A process is about to fork: from now on what the program writes is not the child's (``dup_mmap``).

    Where a child forks there is nothing to protect: what it is owed is protected already. Pages that are pinned are
    saved at once and stay writable, because a device writes to a frame without a fault (``copy_present_page``).

    The fork is known only when all is protected: what was written before that belongs to the child.

    Locks: those of pinned pages, one by one. Done again, should the pager be killed at it.
    """
    child.inherits = not of_program
    if of_program:
        yield ProtectPresent()
    mm.children[child.number] = child
    if not of_program:
        return
    for page in pinned:
        yield Lock(page)
        if mm.table.resident(page):
            yield from break_cow(mm, page)
            yield Remap([page])
        yield Unlock(page)


def attach_child(mm: Mm, number: int) -> Protocol[None]:
    """A child has mapped the arena: give it what was saved for it. It runs when this has ended.

    Locks: those of saved pages, one by one, so that a copy that is in use by :func:`break_cow` is waited for. Should
    the child be forgotten meanwhile, what is saved may be another's, and is left alone.
    """
    child = mm.children.get(number)
    while child is not None and (saved := (yield SavedPages())):
        for page in saved:
            yield Lock(page)
            if mm.children.get(number) is child:
                yield CopySaved(page, number)
                yield DropCopy(page)
            yield Unlock(page)
        child = mm.children.get(number)
    if child is not None:
        child.expected = False


def forget_child(mm: Mm, number: int) -> Protocol[None]:
    """A child is gone: nothing is owed to it, and what was saved for it is freed.

    Locks: those of saved pages, one by one.
    """
    mm.children.pop(number, None)
    if mm.expects_child:
        return
    for page in (yield SavedPages()):
        yield Lock(page)
        if not mm.expects_child:
            yield DropCopy(page)
        yield Unlock(page)


def recover_copies(mm: Mm) -> Protocol[None]:
    """Drop saved copies that no child is expected for: a predecessor was killed behind them.

    They must not be there when their pages are written next, and then owed again: they would be taken for the bytes of
    that time. Locks: none, because nothing else runs.
    """
    if not mm.expects_child:
        for page in (yield SavedPages()):
            yield DropCopy(page)
