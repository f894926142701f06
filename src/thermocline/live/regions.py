"""Blocks of tiered memory: which pages of the arena belong to whom.

This runs inside the user's allocations, under the user's GIL. So it is quick: an allocation is bookkeeping in the
shared tables and asks nobody; freeing makes a request and does not wait for its answer. The addresses of a freed
region, and its share of the commitment, return when the answer is there.

What is allocated is a lease (see :mod:`thermocline.live.guard`). The truth is which blocks there are: a dictionary, to
which a block is added, and from which it is taken, in one step. The free addresses, the commitment and the numbers of
sources are derived from it, anew if an exception has come in between.
"""

from __future__ import annotations

from array import array
from typing import Any

from thermocline.errors import ClosedError, ThermoclineError
from thermocline.live import libc, statistics
from thermocline.live.addresses import Addresses
from thermocline.live.bins import Bins
from thermocline.live.guard import BusyError, Guard, Lease, end
from thermocline.live.guest import Ticket
from thermocline.live.pins import Pins
from thermocline.live.ring import UNMADE, Number, What
from thermocline.live.session import FileRange, Session
from thermocline.live.tables import MAX_GROUPS, RING_ENTRIES, Tables
from thermocline.protocol.histogram import Distribution
from thermocline.protocol.page import POISONED, SLOTTED, PageTable, pack

#: Answer of :meth:`Regions.allocate_block` when it cannot be asked now: see there.
DECLINED = -1
#: What is said of a memory that is closed here.
CLOSED = "this memory is closed here; a forked child can use its parent's arrays, but for all else needs its own Memory"
#: Frees under way at once.
_MOST_FREES = RING_ENTRIES // 2


class Regions:
    """Hands out the pages of a session's arena.

    Attributes
    ----------
    released : list
        Addresses of blocks that are given back. Call :meth:`settle` after adding to it.
    """

    def __init__(self, session: Session) -> None:
        self.session = session
        self.page_size = session.page_size
        self.commitment = session.commitment
        session.released = self.settle
        self._tables = session.tables
        self._requests = session.requests
        self._guard = Guard(self._settle, self._derive)
        self.released = self._guard.released
        #: The truth: pages, by first page. Blocks stay here until the pager has freed them.
        self._blocks: dict[int, int] = {}
        #: By first page, blocks that the program has freed: yet to be asked for; kept, for another process may still
        #: look at them; and asked for, the oldest first, with the number of the request.
        self._to_free: dict[int, None] = {}
        self._kept: dict[int, None] = {}
        self._freeing: dict[int, Number] = {}
        #: By first page, regions that other processes can hold by name, and those of them that were freed here.
        self._shared: dict[int, Ticket] = {}
        self._unshared: set[int] = set()
        #: Processes that had gone when it was last looked at what is kept.
        self._departed = 0
        self._addresses = Addresses(session)
        self.pins = Pins(session)
        self.bins = Bins(session)
        self._groups = 1
        self._closing = False

    def _derive(self) -> None:
        """Derive from the blocks what an operation may have left wrong."""
        if not self.session.usable:
            return
        for start in [start for start in self._freeing if start not in self._blocks]:
            del self._freeing[start]
        for start, number in list(self._freeing.items()):
            if number.value == UNMADE:
                self._to_free[start] = None
                del self._freeing[start]
            else:
                self._to_free.pop(start, None)
        self.commitment.committed = sum(self._blocks.values())
        sources = self._tables.region_source
        self.session.derive_sources({sources[start] for start in self._blocks} - {0})
        self._addresses.derive(self._blocks)

    # -- allocating and freeing ---------------------------------------------------------------------------------------

    def allocate_block(
        self, nbytes: int, group: int = 0, source: FileRange | None = None, refusals: list[int] | None = None
    ) -> Lease | int:
        """Commit memory of at least ``nbytes`` bytes -> a lease of its address; 0 when it cannot be had.

        It holds zeros, or the bytes of a file. ``DECLINED`` when the memory is closed, in a forked child, and when the
        thread is in the middle of another call (this one then comes from a signal handler or a finalizer).

        Parameters
        ----------
        refusals : list of int, optional
            With 0, it has why there are no addresses, as an error number (see :func:`thermocline.live.limits.refused`),
            or nothing: the nodes cannot hold it.

        Raises
        ------
        OSError, ClosedError
            The file cannot be made known to the pager (see :meth:`Session.add_source`). Nothing has changed.
        """
        if not self.usable:
            return DECLINED
        pages = max(-(-nbytes // self.page_size), 1)
        try:
            lease = self._guard.lease(self._allocate, pages, group, source, [] if refusals is None else refusals)
        except BusyError:
            return DECLINED
        if lease is None:
            return DECLINED if self._closing or not self.session.usable else 0
        return lease

    def _allocate(self, pages: int, group: int, source: FileRange | None, refusals: list[int]) -> int | None:
        start = self._take(pages, refusals) if self.usable else None
        if start is None:
            return None
        self._guard.journal.append((self._take_back, start, pages))
        self._describe(start, pages, group, source)
        self._blocks[start] = pages
        return self.session.address + start * self.page_size

    def _take_back(self, start: int, pages: int) -> None:
        """A block was not made."""
        self._tables.page_columns["entry"][start : start + pages] = array("Q", bytes(8)) * pages
        self._erase(start, pages)
        self._blocks.pop(start, None)

    def _take(self, pages: int, refusals: list[int]) -> int | None:
        """Commit pages and find addresses for them -> the first page, or None.

        Gives up, if it must, what the bins keep. Waits, if it must, for frees under way, and for what children have
        held that are gone. What the nodes cannot hold is granted only behind that: a thread that touches it would wait
        for room that is there.
        """
        looked = False
        while True:
            self._collect()
            refusals.clear()
            idle = not (self._freeing or self.bins.blocks)
            if self.commitment.take(pages, granted=idle and (looked or not self._kept)):
                start = self._addresses.allocate(pages, refusals)
                if start is not None:
                    return start
                self.commitment.give(pages)
            if self.bins.give_up(self.released, everything=True):
                continue
            if self._freeing:
                self._requests.wait_for(next(iter(self._freeing.values())).value)
            elif self._kept and not looked:
                looked = True
                self.session.reap()
            else:
                return None

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
        tables.region_source[start] = 0
        if source is not None:
            tables.region_source[start] = self.session.add_source(source, self._guard.journal)
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

    def settle(self) -> None:
        """Take up what was released. Never waits for a lock: any thread may call it at any moment."""
        self._guard.settle()

    def _settle(self) -> None:
        if self.session.usable:
            if self._closing:
                self.bins.stop()
            self._collect()
            while self._to_free:  # as many as may be under way are
                self._requests.wait_for(next(iter(self._freeing.values())).value)
                self._collect()
            used = len(self._blocks) - len(self._freeing) - len(self._kept)
            if not self._closing or used or self.session.has_received:
                return
        self.session.close()

    def _collect(self) -> None:
        """Request the frees of what was released, and take back what the pager has freed. The guard is held."""
        children = self.session.children
        if self.bins.blocks:
            self.bins.give_up(self.released, everything=self._closing)
        while self.released:
            self._to_free[(self.released[0] - self.session.address) // self.page_size] = None
            del self.released[0]
        departed = children.departed
        if departed != self._departed:
            self._to_free.update(self._kept)
            self._kept.clear()
            self._departed = departed
        for start in list(self._to_free):
            if len(self._freeing) >= _MOST_FREES:
                break
            if start not in self._shared:  # else it may come back as a handle, and is looked at here again
                self._addresses.let_go(start, self._blocks[start])
            if children.hold(self._tables.region_born[start]) or self._is_held(start):
                self._kept[start] = None
            else:
                number = self._freeing[start] = Number(UNMADE)
                self._requests.make(What.FREE, start + 1, number=number)
            del self._to_free[start]
        answered = []
        for start, number in self._freeing.items():
            if not self._requests.is_answered(number.value):
                break
            answered.append(start)
        for start in answered:
            pages = self._blocks[start]
            self._erase(start, pages)
            self._addresses.let_go(start, pages)
            del self._blocks[start]
            del self._freeing[start]
            self.commitment.give(pages)
            self._addresses.release(start, pages)

    def _erase(self, start: int, pages: int) -> None:
        """Take a region's row back, and its source. The row of a free region has no source: it is dropped once."""
        source = self._tables.region_source[start]
        if source:
            self.session.drop_source(source)
            self._tables.region_source[start] = 0
        self._tables.region_pages[start] = 0
        self._tables.page_columns["region"][start : start + pages] = array("I", bytes(4)) * pages

    def _is_held(self, start: int) -> bool:
        """Whether another process holds a region that is freed here, by a name that nobody else can use any more."""
        ticket = self._shared.get(start)
        if ticket is None:
            return False
        if start not in self._unshared:
            self.session.unshare(ticket)
            self._unshared.add(start)
        if self.session.is_held(ticket):
            return True
        self.session.forget_share(start)
        self._unshared.discard(start)
        del self._shared[start]
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
        ticket: Ticket = self._guard.run(self._share, start)
        return ticket, self.session.address + start * self.page_size, self._blocks[start] * self.page_size

    def _share(self, start: int) -> Ticket:
        self._collect()
        if start not in self._shared:
            self._guard.journal.append((self._shared.pop, start, None))
            self._shared[start] = self.session.share(start, self._blocks[start], self._guard.journal)
        return self._shared[start]

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
        return self._requests.ask(what, first, second)

    def pin(self, first: int, count: int, most: int) -> Lease | None:
        """Hold pages in DRAM while a lease lives -> None when they cannot be brought there.

        Raises
        ------
        TooManyPinsError
            More than ``most`` pages would be pinned.
        ClosedError
            The memory is closed, or this is a forked child.
        """
        self._must_be_usable()
        lease = self.pins.hold(first, count, most)
        if lease is None or self.ask(What.PIN, first, count):
            return lease
        end(lease)
        return None

    def lost(self, first: int, count: int) -> list[int]:
        """Those of some pages whose bytes could not be read back: they cannot be had any more."""
        table = PageTable(self.session.pages, self._tables.page_columns)
        return [page for page in range(first, first + count) if table.state(page) == POISONED]

    def pages_of(self, address: int, nbytes: int) -> tuple[int, int]:
        """The pages that hold a range of addresses: first, and how many."""
        offset = address - self.session.address
        first = offset // self.page_size
        return first, (offset + max(nbytes, 1) - 1) // self.page_size - first + 1

    def set_advice(self, address: int, advice: int) -> None:
        """Say how the region that an address lies in will be used."""
        self._must_be_usable()
        page, _ = self.pages_of(address, 1)
        self._requests.wait_for(self._guard.run(self._advise, self._tables.page_columns["region"][page], advice))

    def _advise(self, number: int, advice: int) -> int:
        self._guard.journal.append((self._note_advice, number, self._tables.region_advice[number - 1]))
        return self._note_advice(number, advice)

    def _note_advice(self, number: int, advice: int) -> int:
        self._tables.region_advice[number - 1] = advice
        return self._requests.make(What.ADVICE, number)

    def add_group(self, dram_limit: int, memory_limit: int) -> int:
        """A new group with limits in bytes (0: none) -> its index.

        Raises
        ------
        ThermoclineError
            There are too many.
        ClosedError
            The memory is closed, or this is a forked child.
        """
        self._must_be_usable()
        index, number = self._guard.run(self._add_group, dram_limit, memory_limit)
        self._requests.wait_for(number)
        return int(index)

    def _add_group(self, dram_limit: int, memory_limit: int) -> tuple[int, int]:
        index = self._groups
        if index == MAX_GROUPS:
            raise ThermoclineError(f"a memory has at most {MAX_GROUPS - 1} groups; make another Memory")
        self._guard.journal.append((self._forget_group, index))
        self._tables.group_limits[2 * index] = dram_limit
        self._tables.group_limits[2 * index + 1] = memory_limit
        self._groups = index + 1
        return index, self._requests.make(What.GROUP, index)

    def _forget_group(self, index: int) -> None:
        self._groups = index
        self._tables.group_limits[2 * index] = self._tables.group_limits[2 * index + 1] = 0
        self._requests.make(What.GROUP, index)

    def statistics(self) -> dict[str, Any]:
        """See :func:`thermocline.live.statistics.collect`. What was freed before is free in it, if it is not kept."""
        self._must_be_usable()
        self._guard.run(self._wait_for_frees)
        self.ask(What.STAT)
        size = statistics.page_tables()
        if size is not None:  # else what was found last stands
            self._tables.header[Tables.HEADER_PAGE_TABLES] = size
        return statistics.collect(self._tables, [spec.name for spec in self.session.nodes])

    def _wait_for_frees(self) -> None:
        if self._kept:
            self.session.reap()
        self._collect()
        for number in list(self._freeing.values()):
            self._requests.wait_for(number.value)
        self._collect()

    def times(self) -> dict[str, Distribution]:
        """See :func:`thermocline.live.statistics.timed`."""
        return statistics.timed(self._tables)

    # -- the end ------------------------------------------------------------------------------------------------------

    def close_when_unused(self) -> None:
        """Close the session now, or when the last block is freed; nothing more is allocated from now on."""
        self._closing = True
        self.settle()
