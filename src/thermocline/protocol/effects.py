"""What a protocol may ask for: the only values that protocols yield.

A protocol is a generator. It decides; it never performs. Each effect below is one step that an interpreter takes for
it: `live` moves real bytes, `virtual` advances a clock, `check` tries every interleaving. The value of the ``yield``
expression is the effect's result. Between two yields a protocol runs alone, so what it reads there is consistent; at
a yield anything may have changed unless a lock it holds says otherwise.

An effect is atomic towards other effects on the same page. A pager may be killed at any yield: what was committed
before it is found by the successor, what was not has not happened.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from enum import Enum
from typing import Any, TypeVar

R = TypeVar("R")


class Effect:
    """One step asked of an interpreter."""

    __slots__: tuple[str, ...] = ()

    def __repr__(self) -> str:
        fields = ", ".join(f"{name}={getattr(self, name)!r}" for name in self.__slots__)
        return f"{type(self).__name__}({fields})"


#: A protocol: yields effects, receives their results, returns ``R``.
Protocol = Generator[Effect, Any, R]


class Lock(Effect):
    """Wait for the lock of a page and take it (``folio_lock``). Never yielded while another page lock is held."""

    __slots__ = ("page",)

    def __init__(self, page: int) -> None:
        self.page = page


class TryLock(Effect):
    """Take the lock of a page if it is free (``folio_trylock``) -> bool."""

    __slots__ = ("page",)

    def __init__(self, page: int) -> None:
        self.page = page


class Unlock(Effect):
    """Give the lock of a page to the first that waits for it (``folio_unlock``)."""

    __slots__ = ("page",)

    def __init__(self, page: int) -> None:
        self.page = page


class Reserve(Effect):
    """Take room in a node -> the slot's handle, or None when there is no room.

    Never waits and never reclaims (``GFP_NOWAIT``). The room is ``size`` bytes, or 0: one page's worst case. For a
    mapped node the slot is a frame of its budget, or a part of one, handle 0. Room of a node is charged to a group.
    What is ``urgent`` may take the node's reserve (``__GFP_MEMALLOC``): it gives room back elsewhere.
    """

    __slots__ = ("group", "node", "size", "urgent")

    def __init__(self, node: int, group: int, size: int = 0, *, urgent: bool = False) -> None:
        self.node = node
        self.group = group
        self.size = size
        self.urgent = urgent


class Release(Effect):
    """Give back a slot (or ``size`` bytes of a frame that were never filled) and wake those that wait for room."""

    __slots__ = ("group", "node", "size", "slot")

    def __init__(self, node: int, slot: int, group: int, size: int = 0) -> None:
        self.node = node
        self.slot = slot
        self.group = group
        self.size = size


class Unmap(Effect):
    """Stop writers of these pages (``try_to_migrate``): they wait in a fault, readers go on, bytes stand still."""

    __slots__ = ("pages",)

    def __init__(self, pages: Sequence[int]) -> None:
        self.pages = pages


class Remap(Effect):
    """Undo :class:`Unmap` and wake the writers (``remove_migration_ptes``).

    A page that a child is owed stays write-protected; its writers fault again, and :mod:`~thermocline.protocol.cow` is
    what answers them.
    """

    __slots__ = ("pages",)

    def __init__(self, pages: Sequence[int]) -> None:
        self.pages = pages


#: Results of :class:`Copy` other than a count of bytes: the page holds zeros only, and the device refused.
ZERO = 0
FAILED = -1


class Copy(Effect):
    """Copy the bytes of a page, from wherever they are, to a slot -> bytes now charged, ``ZERO`` or ``FAILED``.

    If the page is in a mapped node, it is unmapped and locked, or the copying task finds out that it has changed. A
    slow node makes only the yielder wait. With ``ZERO`` and ``FAILED`` the slot holds nothing and is still reserved.
    The slot was reserved for a group; the bytes that the page takes less than the worst case are uncharged from it.

    To a mapped node the kernel moves the page's frame, while readers and writers go on (move_pages(2)): the page need
    not be unmapped, and ``ZERO`` is no result. With ``FAILED`` the frame is where it was.
    """

    __slots__ = ("group", "node", "page", "slot")

    def __init__(self, page: int, node: int, slot: int, group: int) -> None:
        self.page = page
        self.node = node
        self.slot = slot
        self.group = group


class CopyList(Effect):
    """:class:`Copy` of many pages to many slots of one node, as one request -> a list of results, in order."""

    __slots__ = ("group", "node", "pages", "slots")

    def __init__(self, pages: Sequence[int], node: int, slots: Sequence[int], group: int) -> None:
        self.pages = pages
        self.node = node
        self.slots = slots
        self.group = group


class Commit(Effect):
    """Write a page's entry in the page table: the instant at which a transition has happened."""

    __slots__ = ("node", "page", "slot", "state")

    def __init__(self, page: int, state: int, node: int = 0, slot: int = 0) -> None:
        self.page = page
        self.state = state
        self.node = node
        self.slot = slot


class Punch(Effect):
    """Free what these pages, all on one node, have of frames and unmap them everywhere (fallocate(2), ``PUNCH_HOLE``).

    Their bytes are committed elsewhere, or are not wanted any more.
    """

    __slots__ = ("node", "pages")

    def __init__(self, pages: Sequence[int], node: int = 0) -> None:
        self.pages = pages
        self.node = node


class DropClean(Effect):
    """Drop those of some isolated pages of DRAM that are clean and not in use -> (how many, the others).

    It does to a list what :func:`~thermocline.protocol.reclaim.shrink_node` does to each page of it: lock, verdict,
    commit, punch, put on the list of the lower node, unlock. Which pages those are is for the interpreter to say: what
    it leaves is for the protocol.
    """

    __slots__ = ("cause", "pages")

    def __init__(self, pages: Sequence[int], cause: str) -> None:
        self.pages = pages
        self.cause = cause


class Arrive(Effect):
    """Commit and unlock pages that have come up whole, and put them where they belong -> how many, from the first on.

    It does to a list what the end of :func:`~thermocline.protocol.fill.fill` does to each page of it. ``before`` are
    the states of the pages before they came up. What the interpreter leaves is for the protocol.
    """

    __slots__ = ("before", "pages")

    def __init__(self, pages: Sequence[int], before: Sequence[int]) -> None:
        self.pages = pages
        self.before = before


class Fill(Effect):
    """Read contiguous pages from their slots (or zeros) into reserved frames, and map them -> True, False on error.

    Not ``writable``: mapped write-protected, so that the first write is seen (UFFDIO_COPY with its WP mode). So is a
    page that a child is owed when its bytes appear, in any case. ``parts`` is for one page: a mask of what is to come
    of it; 0 is all that is missing. What is there stays as it is.

    Those are woken who wait for what comes up. Who waits for a part that is there already need not be.
    """

    __slots__ = ("pages", "parts", "writable")

    def __init__(self, pages: Sequence[int], writable: bool, parts: int = 0) -> None:
        self.pages = pages
        self.writable = writable
        self.parts = parts


class ProtectPresent(Effect):
    """Write-protect everything that is in the arena, in every mapping that shares it: a fork is about to be made.

    A write that came before is seen by the child, and one that comes behind this is not (``dup_mmap``).
    """

    __slots__ = ()


class CopyToChildren(Effect):
    """Give each child that is owed a page a copy of its own, wherever it has nothing mapped (UFFDIO_COPY).

    The bytes are those of the saved copy, if there is one, or of the frame. The page is locked, in memory as a whole,
    and write-protected. -> the numbers of the children that had something of the page mapped already: a copy of their
    own, which is newer and stays as it is, or the frame itself. Children whose fork is under way are passed over.
    """

    __slots__ = ("page",)

    def __init__(self, page: int) -> None:
        self.page = page


class SaveCopy(Effect):
    """Copy a locked, write-protected page to its place in the saved copies, which survive the pager.

    It is saved when all of it is: a pager that is killed in between has saved nothing.
    """

    __slots__ = ("page",)

    def __init__(self, page: int) -> None:
        self.page = page


class Withdraw(Effect):
    """Unmap a page in every process and free its frame, though not its charge: the saved copy stands in for it.

    What a child has copied by writing stays in the child (fallocate(2), ``PUNCH_HOLE`` of a private mapping's file).
    """

    __slots__ = ("page",)

    def __init__(self, page: int) -> None:
        self.page = page


class RestoreCopy(Effect):
    """Bring a page back from its saved copy, write-protected, wherever it is not in memory."""

    __slots__ = ("page",)

    def __init__(self, page: int) -> None:
        self.page = page


class CopySaved(Effect):
    """Give one child a copy of a page from the saved one, wherever it has nothing mapped."""

    __slots__ = ("child", "page")

    def __init__(self, page: int, child: int) -> None:
        self.page = page
        self.child = child


class DropCopy(Effect):
    """Free the saved copy of a page, if there is one: all of it, even if the pager is killed at it."""

    __slots__ = ("page",)

    def __init__(self, page: int) -> None:
        self.page = page


class SavedPages(Effect):
    """The pages of which there is a saved copy -> list, ascending."""

    __slots__ = ()


class Give(Effect):
    """Write that the children of all forks up to this one need nothing of a page's frame any more."""

    __slots__ = ("fork", "page")

    def __init__(self, page: int, fork: int) -> None:
        self.page = page
        self.fork = fork


class Abandon(Effect):
    """End a child that cannot be given what it is owed, and say why (SIGKILL); wait until it has ended.

    It must not read newer bytes. Only the yielder waits. A child that is expected is condemned instead: it ends when it
    is attached, before it runs, also if the pager is killed meanwhile.
    """

    __slots__ = ("child",)

    def __init__(self, child: int) -> None:
        self.child = child


class MapFrame(Effect):
    """Map the frame of a page, or of one part of it, in a child that sees the page through it, and wake the child.

    (UFFDIO_CONTINUE: where a child's touches are seen, nothing else lets it go on.)
    """

    __slots__ = ("child", "page", "part")

    def __init__(self, page: int, child: int, part: int | None = None) -> None:
        self.page = page
        self.child = child
        self.part = part


class GiveZeros(Effect):
    """Give a child zeros again, wherever it has nothing mapped of a page, and wake it (UFFDIO_ZEROPAGE).

    A page of zeros that was given takes no memory: it maps the kernel's zero page. A hole that is punched in the file
    unmaps that, which it does to no other copy of a child's own (``zap_present_pte``: what is no normal page goes).
    """

    __slots__ = ("child", "page")

    def __init__(self, page: int, child: int) -> None:
        self.page = page
        self.child = child


class Deny(Effect):
    """Make a child's touch of a page that is not its own a SIGBUS, and wake it: where it has a copy, it goes on."""

    __slots__ = ("child", "page")

    def __init__(self, page: int, child: int) -> None:
        self.page = page
        self.child = child


class Wake(Effect):
    """Make the threads that wait for this page fault again (UFFDIO_WAKE)."""

    __slots__ = ("page",)

    def __init__(self, page: int) -> None:
        self.page = page


class Poison(Effect):
    """Make every touch of this page a SIGBUS, and say why (UFFDIO_POISON): its bytes are lost.

    Parts that are present can still be touched, and may be written from now on, unless a child is owed the page.
    """

    __slots__ = ("page",)

    def __init__(self, page: int) -> None:
        self.page = page


class Hint(Effect):
    """Unmap these pages of a mapped node, and keep their frames (``change_prot_numa``) -> of each, whether it is so.

    None: it cannot be done here. A touch maps the page again, without a message: see :class:`HintFaults`.
    """

    __slots__ = ("node", "pages")

    def __init__(self, pages: Sequence[int], node: int) -> None:
        self.pages = pages
        self.node = node


class HintFaults(Effect):
    """Of each of these pages, whether any of it has been mapped again since its :class:`Hint` (``do_numa_page``)."""

    __slots__ = ("node", "pages")

    def __init__(self, pages: Sequence[int], node: int) -> None:
        self.pages = pages
        self.node = node


class ScanDelay(Effect):
    """Wait for so many seconds, in the background, until it is time to look again (``numa_scan_period``)."""

    __slots__ = ("seconds",)

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds


class WakeKswapd(Effect):
    """Wake the background reclaim of a node (``wakeup_kswapd``)."""

    __slots__ = ("node",)

    def __init__(self, node: int) -> None:
        self.node = node


class SleepKswapd(Effect):
    """Background reclaim waits for :class:`WakeKswapd` (``kswapd_try_to_sleep``)."""

    __slots__ = ("node",)

    def __init__(self, node: int) -> None:
        self.node = node


class Throttle(Effect):
    """An allocator that found nothing to reclaim waits until room appears in a node (``reclaim_throttle``) -> bool.

    True at once if a frame can be had by now, in the node and within the group's limits: it may have been freed behind
    the allocator's back, and then no wake-up follows. False when no frame was freed for as long as the interpreter
    waits at most: the allocation has failed.

    A page that ``enters`` waits for less to be held in all, whatever room DRAM has: see
    :mod:`thermocline.protocol.first_touch`.
    """

    __slots__ = ("enters", "group", "node")

    def __init__(self, node: int, group: int = 0, *, enters: bool = False) -> None:
        self.node = node
        self.group = group
        self.enters = enters


class Spawn(Effect):
    """Run another protocol beside this one, in the background."""

    __slots__ = ("protocol",)

    def __init__(self, protocol: Protocol[Any]) -> None:
        self.protocol = protocol


class Resched(Effect):
    """Let others run (``cond_resched``)."""

    __slots__ = ()


class Event(Enum):
    """What a :class:`Trace` says."""

    #: A page was locked, and is going to be migrated; until its lock is given up.
    MIGRATE = "migrate"
    #: A slot for a page that goes down is looked for, and the search has ended.
    ALLOCATE = "allocate"
    ALLOCATED = "allocated"


class Trace(Effect):
    """A tracepoint: it changes nothing, and tells an interpreter that keeps time what goes on (``trace_mm_*``)."""

    __slots__ = ("event", "page")

    def __init__(self, event: Event, page: int = -1) -> None:
        self.event = event
        self.page = page
