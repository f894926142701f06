"""Blocks of tiered memory: which pages of the arena belong to whom.

This runs inside the user's allocations, under the user's GIL. So it is quick: an allocation is bookkeeping in the
shared tables and asks nobody; freeing makes a request and does not wait for its answer. The addresses of a freed
region, and its share of the commitment, return when the answer is there.
"""

from __future__ import annotations

import mmap
from array import array
from collections import deque
from typing import Any

from thermocline.errors import ClosedError, ThermoclineError
from thermocline.live import libc, statistics
from thermocline.live.extents import Extents
from thermocline.live.guest import Ticket
from thermocline.live.mapped import KEPT
from thermocline.live.requests import Exclusion
from thermocline.live.ring import What
from thermocline.live.session import FileRange, Session
from thermocline.live.tables import MAX_GROUPS, RING_ENTRIES, Tables
from thermocline.protocol.histogram import Distribution
from thermocline.protocol.page import POISONED, SLOTTED, PageTable, pack
from thermocline.protocol.pin import MAX_PINS

#: Answer of :meth:`Regions.allocate_block` when it cannot be asked now: see there.
DECLINED = -1
#: What is said of a memory that is closed here.
CLOSED = "this memory is closed here; a forked child can use its parent's arrays, but for all else needs its own Memory"
#: Frees under way at once.
_MOST_FREES = RING_ENTRIES // 2
#: Bytes of addresses that one page of a page table maps: entries are words.
_PAGE_TABLE_SPAN = mmap.PAGESIZE // 8 * mmap.PAGESIZE


class Regions:
    """Hands out the pages of a session's arena."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.page_size = session.page_size
        self.commitment = session.commitment
        session.released = self._close_if_closing
        self._tables = session.tables
        self._requests = session.requests
        self._extents = Extents(session.pages)
        self._exclusion = Exclusion()
        self._live = 0
        #: Pages of blocks that are in use here; and blocks that are not, and are still there.
        self._in_use = 0
        self._unmapped: set[int] = set()
        self._groups = 1
        self._closing = False
        #: First pages of regions to be freed; appended to at any moment, by finalizers too.
        self._to_free: deque[int] = deque()
        #: By first page, regions that other processes can hold by name, and those of them that were freed here.
        self._shared: dict[int, Ticket] = {}
        self._unshared: set[int] = set()
        #: First pages of regions that the program has freed, and another process may still look at.
        self._kept: list[int] = []
        #: Frees under way, the oldest first: request number, first page, pages.
        self._freeing: deque[tuple[int, int, int]] = deque()

    # -- allocating and freeing ---------------------------------------------------------------------------------------

    def allocate_block(self, nbytes: int, group: int = 0, source: FileRange | None = None) -> int:
        """Commit memory of at least ``nbytes`` bytes -> its address; 0 when the nodes cannot hold it.

        It holds zeros, or the bytes of a file. ``DECLINED`` when the memory is closed, in a forked child, and when the
        thread is in the middle of another call (this one then comes from a signal handler or a finalizer).

        Raises
        ------
        OSError, ClosedError
            The file cannot be made known to the pager (see :meth:`Session.add_source`). Nothing has changed.
        """
        if self._exclusion.is_mine or not self.usable:
            return DECLINED
        pages = max(-(-nbytes // self.page_size), 1)
        with self._exclusion.held():
            start = self._take(pages)
            if start is not None:
                try:
                    self._describe(start, pages, group, source)
                except BaseException:
                    self._tables.page_columns["entry"][start : start + pages] = array("Q", bytes(8)) * pages
                    self._erase(start, pages)
                    self._extents.free(start, pages)
                    self.commitment.give(pages)
                    raise
                self._live += 1
                self._in_use += pages
        self._free_queued()
        return 0 if start is None else self.session.address + start * self.page_size

    def _take(self, pages: int) -> int | None:
        """Commit pages and find addresses for them -> the first page, or None.

        Waits, if it must, for frees under way, and for what children have held that are gone.
        """
        looked = False
        while True:
            self._collect()
            if self.commitment.take(pages):
                start = None
                try:
                    start = self._place(pages)
                    if start is not None:
                        return start
                finally:
                    if start is None:
                        self.commitment.give(pages)
            if self._freeing:
                self._requests.wait_for(self._freeing[0][0])
            elif self._kept and not looked:
                looked = True
                self.session.reap()
            else:
                return None

    def _place(self, pages: int) -> int | None:
        """Find addresses for committed pages, and map them -> the first page, or None."""
        while True:
            start = self._extents.allocate(pages)
            if start is None:
                return None
            try:
                if self.session.cover(start, pages):
                    return start
                # What the program has mapped there itself, by number, may stay for ever: so do these addresses.
            except OSError:  # the program's limits (setrlimit(2)) have no room for it, as it is
                self._extents.free(start, pages)
                if not self._tighten():
                    return None
            except BaseException:
                self._extents.free(start, pages)
                raise

    def _tighten(self) -> bool:
        """Unmap all that is free -> whether there was anything."""
        before = self.session.attachment.mapped.bytes
        for free in self._extents.ranges():
            self.session.uncover(free)
        return self.session.attachment.mapped.bytes < before

    def _describe(self, start: int, pages: int, group: int, source: FileRange | None) -> None:
        """Write a region's row, so that the pager knows its pages when they fault. What may fail comes first."""
        tables = self._tables
        # Addresses that were used before may still be poisoned: by a lost page, or by a touch after they were freed.
        libc.discard(self.session.address + start * self.page_size, pages * self.page_size)
        numbers = array("I", [start + 1]) * pages
        first = pack(SLOTTED, len(self.session.nodes), 1)
        entries = array("Q", range(first, first + pages)) if source is not None else None
        forks = self.session.forks
        given = array("I", [forks]) * pages if forks else None
        tables.region_source[start] = self.session.add_source(source) if source is not None else 0
        tables.region_group[start] = group
        tables.region_advice[start] = 0
        tables.region_shared[start] = 0
        tables.region_born[start] = forks
        if given is not None:
            tables.page_columns["given"][start : start + pages] = given
        tables.region_pages[start] = pages
        if entries is not None:
            tables.page_columns["entry"][start : start + pages] = entries
        tables.page_columns["region"][start : start + pages] = numbers

    def free_block(self, address: int) -> None:
        """Give a block back. Never waits for a lock: any thread may call it at any moment, a finalizer too."""
        if not self.session.usable:
            return
        self._to_free.append((address - self.session.address) // self.page_size)
        self._free_queued()
        self._close_if_closing()

    def _free_queued(self) -> None:
        """Request the frees that are queued, unless somebody is at it: whoever is looks again when done."""
        while self._to_free and not self._requests.is_busy_here:
            with self._exclusion.held_if_free() as held:
                if not held:
                    return
                self._collect()
                if len(self._freeing) >= _MOST_FREES:
                    self._requests.wait_for(self._freeing[0][0])

    def _collect(self) -> None:
        """Request queued frees, and take back what the pager has freed. The lock is held."""
        children = self.session.children
        if children.have_departed():
            self._to_free.extend(self._kept)
            self._kept.clear()
        while self._to_free and len(self._freeing) < _MOST_FREES:
            start = self._to_free.popleft()
            pages = self._tables.region_pages[start]
            if start not in self._shared:  # else it may come back as a handle, and is looked at here again
                self._unmap(start, pages)
            if children.hold(self._tables.region_born[start]) or self._is_held(start):
                self._kept.append(start)
                continue
            self._freeing.append((self._requests.make(What.FREE, start + 1), start, pages))
            self._live -= 1
        while self._freeing and self._requests.is_answered(self._freeing[0][0]):
            _, start, pages = self._freeing.popleft()
            self._erase(start, pages)
            self._unmap(start, pages)
            self._unmapped.discard(start)
            free = self._extents.free(start, pages)
            self.commitment.give(pages)
            if self._keeps_too_much:
                self.session.uncover(free)
            self._release_page_tables(start, pages, free)

    def _erase(self, start: int, pages: int) -> None:
        """Take a region's row back, and its source. The row of a free region has no source: it is dropped once."""
        source = self._tables.region_source[start]
        if source:
            self._tables.region_source[start] = 0
            self.session.drop_source(source)
        self._tables.region_pages[start] = 0
        self._tables.page_columns["region"][start : start + pages] = array("I", bytes(4)) * pages

    def _is_held(self, start: int) -> bool:
        """Whether another process holds a region that is freed here, by a name that nobody else can use any more."""
        ticket = self._shared.get(start)
        if ticket is None:
            return False
        if start not in self._unshared:
            self._unshared.add(start)
            self.session.unshare(ticket)
        if self.session.is_held(ticket):
            return True
        self._unshared.remove(start)
        del self._shared[start]
        self.session.forget_share(start)
        return False

    def share(self, address: int) -> tuple[Ticket, int, int]:
        """Let other processes hold a block -> what they need to know, the block's address and bytes.

        Raises
        ------
        ClosedError
            The memory is closed, or this is a forked child.
        """
        self._must_be_usable()
        page, _ = self.pages_of(address, 1)
        start = self._tables.page_columns["region"][page] - 1
        pages = self._tables.region_pages[start]
        with self._exclusion.held():
            if start not in self._shared:
                self._shared[start] = self.session.share(start, pages)
        return self._shared[start], self.session.address + start * self.page_size, pages * self.page_size

    def _unmap(self, start: int, pages: int) -> None:
        """Count a block as not in use here any more, and unmap it if more is kept than need be.

        Children and the pager, which may still look at it, do so by other mappings, or by none.
        """
        if start in self._unmapped:
            return
        self._unmapped.add(start)
        self._in_use -= pages
        if self._keeps_too_much:
            self.session.uncover(range(start, start + pages))

    @property
    def _keeps_too_much(self) -> bool:
        """Whether more is mapped than what is in use, and what is kept for what comes next."""
        return self.session.attachment.mapped.bytes - self._in_use * self.page_size > KEPT

    def _release_page_tables(self, start: int, pages: int, free: range) -> None:
        """Give back the page tables which map nothing any more, now that these pages are free within a free range.

        They do not go by themselves: where a page was demoted or punched, they keep a marker.
        """
        span = max(_PAGE_TABLE_SPAN // self.page_size, 1)
        first = max(start // span, -(-free.start // span)) * span
        last = min(-(-(start + pages) // span), free.stop // span) * span
        if first < last:
            self.session.release_page_tables(first, last - first)

    @property
    def usable(self) -> bool:
        """Whether blocks can be allocated: not closed, and not a forked child."""
        return not self._closing and self.session.usable

    def _must_be_usable(self) -> None:
        if not self.session.usable:
            raise ClosedError(CLOSED)

    def block_size(self, address: int) -> int:
        """Bytes of a block."""
        first, _ = self.pages_of(address, 1)
        pages: int = self._tables.region_pages[first]
        return pages * self.page_size

    # -- requests -----------------------------------------------------------------------------------------------------

    def ask(self, what: What, first: int = 0, second: int = 0) -> bool:
        """Ask the pager for something and wait -> False when it refused.

        Raises
        ------
        ClosedError
            The memory is closed, or this is a forked child.
        """
        self._must_be_usable()
        answer = self._requests.ask(what, first, second)
        self._free_queued()  # what a finalizer has queued in the middle of that
        return answer

    def pin(self, first: int, count: int) -> bool:
        """Hold pages in DRAM -> False, and nothing is held, when they cannot be brought there.

        Raises
        ------
        ClosedError
            The memory is closed, or this is a forked child.
        """
        pins = self._tables.page_columns["pins"]
        with self._exclusion.held():
            if max(pins[first : first + count]) == MAX_PINS:
                return False
            for page in range(first, first + count):
                pins[page] += 1
        held = False
        try:
            held = self.ask(What.PIN, first, count)
        finally:
            if not held:
                self.unpin(first, count)
        return held

    def lost(self, first: int, count: int) -> list[int]:
        """Those of some pages whose bytes could not be read back: they cannot be had any more."""
        table = PageTable(self.session.pages, self._tables.page_columns)
        return [page for page in range(first, first + count) if table.state(page) == POISONED]

    def unpin(self, first: int, count: int) -> None:
        """Let go of pages that were pinned."""
        if not self.session.usable:
            return
        pins = self._tables.page_columns["pins"]
        with self._exclusion.held():
            for page in range(first, first + count):
                pins[page] -= 1

    def pages_of(self, address: int, nbytes: int) -> tuple[int, int]:
        """The pages that hold a range of addresses: first, and how many."""
        offset = address - self.session.address
        first = offset // self.page_size
        return first, (offset + max(nbytes, 1) - 1) // self.page_size - first + 1

    def set_advice(self, address: int, advice: int) -> None:
        """Say how the region that an address lies in will be used."""
        page, _ = self.pages_of(address, 1)
        number = self._tables.page_columns["region"][page]
        self._tables.region_advice[number - 1] = advice
        self.ask(What.ADVICE, number)

    def add_group(self, dram_limit: int, memory_limit: int) -> int:
        """A new group with limits in bytes (0: none) -> its index."""
        with self._exclusion.held():
            if self._groups == MAX_GROUPS:
                raise ThermoclineError(f"a memory has at most {MAX_GROUPS - 1} groups; make another Memory")
            index = self._groups
            self._groups += 1
            self._tables.group_limits[2 * index] = dram_limit
            self._tables.group_limits[2 * index + 1] = memory_limit
        self.ask(What.GROUP, index)
        return index

    def statistics(self) -> dict[str, Any]:
        """See :func:`thermocline.live.statistics.collect`. What was freed before the call is free in it."""
        with self._exclusion.held():
            if self._kept:
                self.session.reap()
            self._collect()
            for number, _, _ in self._freeing:
                self._requests.wait_for(number)
            self._collect()
        self.ask(What.STAT)
        self._tables.header[Tables.HEADER_PAGE_TABLES] = statistics.page_tables()
        return statistics.collect(self._tables, [spec.name for spec in self.session.nodes])

    def times(self) -> dict[str, Distribution]:
        """See :func:`thermocline.live.statistics.timed`."""
        return statistics.timed(self._tables)

    # -- the end ------------------------------------------------------------------------------------------------------

    def _close_if_closing(self) -> None:
        if self._closing:
            self.close_when_unused()

    def close_when_unused(self) -> None:
        """Close the session now, or when the last block is freed; nothing more is allocated from now on."""
        self._closing = True
        while self.session.usable and not self._exclusion.is_mine and not self._requests.is_busy_here:
            with self._exclusion.held():
                self._collect()
                if self._live == len(self._kept) and not self._to_free and not self.session.has_received:
                    self.session.close()
            if not self._to_free:
                break  # otherwise a finalizer has run in the middle of that, and left to us what it could not do
