"""The tables that the program, the supervisor and the pager share: one memfd, mapped by all three.

Everything that must outlive a killed pager is here: the page table, the regions, the groups, the requests of the
program, the counters. The file is as large as the arena could ever need and sparse: only rows that are used take
memory (about 20 bytes a page).

Every field is an aligned machine word with one writer at a time, so a reader sees the old value or the new one.
"""

from __future__ import annotations

import ctypes
import mmap
import os
from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from thermocline.live import libc
from thermocline.live.buffer import cast_column
from thermocline.live.descriptor import Descriptor
from thermocline.protocol import histogram, vmstat
from thermocline.protocol.lru import MAX_LISTS
from thermocline.protocol.mm import MAX_LAZYFREE
from thermocline.protocol.page import PageTable
from thermocline.protocol.stopwatch import TIMED
from thermocline.spec import MAX_NODES

#: Pages of one arena: their numbers, and those of list heads behind them, are in columns of 32 bits.
MAX_PAGES = (1 << 32) - MAX_LISTS - 2
#: Requests that the program may have under way at once (see :mod:`thermocline.live.ring`).
RING_ENTRIES = 4096
RING_WORDS = 5
#: Groups of one memory, the root included.
MAX_GROUPS = 256
#: Source files of one memory at once.
MAX_SOURCES = (1 << 16) - 1
#: Forked children of one memory at once; their own children count with them.
MAX_CHILDREN = 1024
#: Arrays of one memory that are shared with other processes at once.
MAX_SHARES = 1 << 16
#: Words a node: capacity, used, peak (bytes).
NODE_WORDS = 3

_ITEM_SIZE = {"B": 1, "H": 2, "I": 4, "Q": 8}


class Tables:
    """The shared tables, as columns.

    Attributes
    ----------
    address : int
        Where they are mapped.
    header : u64 x 32
        See the ``HEADER_*`` indices.
    counters, histograms, nodes, ring, group_limits : column of u64
    children : column of u32
        Of each forked child: which fork it came from (0: the row is free). See :mod:`thermocline.live.children`.
    shares : column of u8
        Of each shared region: 1 while it is shared, or somebody holds it. See :mod:`thermocline.live.shares`.
    page_columns : dict of str to column
        The page table's (:class:`~thermocline.protocol.page.PageTable`).
    region_pages, region_source, region_group, region_advice, region_born, region_shared : column
        Of the region that starts at a page: its number of pages (0: no region starts here), the source it was made
        from, its group, how it will be used, how many forks came before it, and the first fork whose child shares it
        by name (0: none does). A region's number is its first page plus one.
    """

    HEADER_RING_HEAD = 0
    HEADER_PEAK_RESIDENT = 1
    HEADER_PAGER_STARTS = 2
    HEADER_PAGER_CPU = 3
    #: What the pager works on (see :mod:`thermocline.live.suspicion`); the page that its successor gives up, plus 1.
    HEADER_NOTE = 4
    HEADER_DOOMED = 5
    #: When a pager was found dead (CLOCK_MONOTONIC, ns), and the longest time from there to its successor's readiness.
    HEADER_DIED_AT = 6
    HEADER_LONGEST_REPLACEMENT = 7
    #: Nodes that are out of use, as bits; and, under injection only, reads and writes of stores, and those of them that
    #: a rule was for.
    HEADER_FAILED_NODES = 8
    HEADER_STORE_CALLS = 9
    HEADER_DISTURBED = 10
    #: Processes that have the memory attached now, and how many have gone since it was made.
    HEADER_ATTACHED = 11
    HEADER_DEPARTED = 12
    #: Which pager (its pid) was the last to have had nothing left to do.
    HEADER_RESTED = 13
    #: Bytes of the program's page tables, as it last looked.
    HEADER_PAGE_TABLES = 14
    #: Answers that pagers have given: a doorbell (see :mod:`thermocline.live.doorbell`), as is the head of the ring.
    HEADER_ANSWERS = 15
    #: The supervisor's process id, 0 before it has begun.
    HEADER_SUPERVISOR = 16
    #: Forks of the program that have begun, and the newest of them that has a process left.
    HEADER_FORKS_BEGUN = 17
    HEADER_NEWEST_FORK = 18
    #: A child that is expected, by its number, and is ended when it is attached. One is expected at a time.
    HEADER_CONDEMNED = 19
    #: Blocks that are kept although they were freed (see :mod:`thermocline.live.bins`), and their bytes; how often one
    #: was handed out again; and whether the pager looks at them now and then.
    HEADER_LAZYFREE_BLOCKS = 20
    HEADER_LAZYFREE_BYTES = 21
    HEADER_REUSED = 22
    HEADER_LAZYFREE_WATCHED = 23
    #: How often pagers have made touches of a page a SIGBUS.
    HEADER_POISONS = 24

    def __init__(self, file: Descriptor, pages: int) -> None:
        self._file = file
        self.pages = pages
        layout: list[tuple[str, str, int]] = [
            ("header", "Q", 32),
            ("counters", "Q", len(vmstat.NAMES)),
            ("histograms", "Q", len(TIMED) * histogram.WORDS),
            ("nodes", "Q", (MAX_NODES + 1) * NODE_WORDS),
            ("group_limits", "Q", MAX_GROUPS * 2),
            ("ring", "Q", RING_ENTRIES * RING_WORDS),
            ("children", "I", MAX_CHILDREN),
            ("shares", "B", MAX_SHARES),
            ("lazyfree_blocks", "I", MAX_LAZYFREE),
            *((name, code, pages) for name, code in PageTable.COLUMNS.items()),
            ("region_pages", "I", pages),
            ("region_source", "H", pages),
            ("region_group", "B", pages),
            ("region_advice", "B", pages),
            ("region_born", "I", pages),
            ("region_shared", "I", pages),
        ]
        self._offsets = offsets = dict[str, tuple[str, int, int]]()
        size = 0
        for name, code, count in layout:
            offsets[name] = (code, size, count)
            # Each column begins on a base page of its own, so that unused rows of one take no memory for another.
            size += -(-count * _ITEM_SIZE[code] // mmap.PAGESIZE) * mmap.PAGESIZE
        fd = file.fileno()
        if os.fstat(fd).st_size < size:
            os.ftruncate(fd, size)
        # Not by Python's mmap, which keeps a duplicate of the descriptor and closes its number come what may.
        self._size = size
        self.address = libc.map_sparse(fd, size)
        self._mapped = ctypes.c_uint64(self.address)
        self._view = memoryview((ctypes.c_ubyte * size).from_address(self.address)).cast("B")
        self._columns: list[memoryview[Any]] = []

        def column(name: str) -> Any:
            code, offset, count = offsets[name]
            made = cast_column(self._view[offset : offset + count * _ITEM_SIZE[code]], code)
            self._columns.append(made)
            return made

        self.header = column("header")
        self.counters = column("counters")
        self.histograms = column("histograms")
        self.nodes = column("nodes")
        self.group_limits = column("group_limits")
        self.ring = column("ring")
        self.children = column("children")
        self.shares = column("shares")
        self.lazyfree_blocks = column("lazyfree_blocks")
        self.page_columns = {name: column(name) for name in PageTable.COLUMNS}
        self.region_pages = column("region_pages")
        self.region_source = column("region_source")
        self.region_group = column("region_group")
        self.region_advice = column("region_advice")
        self.region_born = column("region_born")
        self.region_shared = column("region_shared")

    def regions(self) -> Iterator[tuple[int, int]]:
        """First page and number of pages of every region."""
        return ((start, count) for start, count in self.written_rows("region_pages") if count)

    def written_rows(self, name: str) -> Iterator[tuple[int, int]]:
        """Row and value of what was ever written of a column, and of zeros around it.

        The column is as long as the arena, and nearly all of it is a hole, which a read through the mapping would fill.
        """
        code, offset, count = self._offsets[name]
        size = _ITEM_SIZE[code]
        for begin, hole in libc.data_extents(self.fd, offset, offset + count * size):
            yield from enumerate(array(code, os.pread(self.fd, hole - begin, begin)), (begin - offset) // size)

    def touched(self, others: Iterable[int]) -> list[int]:
        """The pages of regions that have an entry, and those of others: most of an arena may never be touched."""
        pages = sorted({page for page, entry in self.written_rows("entry") if entry}.union(others))
        found: list[int] = []
        for start, count in self.regions():
            found += pages[bisect_left(pages, start) : bisect_left(pages, start + count)]
        return found

    def word(self, index: int) -> memoryview[int]:
        """A word of the header, as a column of one integer."""
        word: memoryview[int] = self.header[index : index + 1]
        return word

    def address_of(self, name: str) -> int:
        """Where a column is mapped."""
        return self.address + self._offsets[name][1]

    def share_region(self, start: int, share: Callable[[int, int], int]) -> bool:
        """Let ``share`` write since which fork the region at a page is shared -> whether it could.

        It is given two addresses: of the region's word, and of the one that counts the forks that have begun.
        """
        word = self.address_of("region_shared") + start * self.region_shared.itemsize
        return not share(word, self.address + Tables.HEADER_FORKS_BEGUN * self.header.itemsize)

    @classmethod
    def create(cls, pages: int) -> Tables:
        """Fresh tables for an arena of this many pages.

        Raises
        ------
        OSError
            There is no memory for them, or no addresses. Nothing is open.
        """
        file = Descriptor.opened(os.memfd_create("thermocline-tables", os.MFD_CLOEXEC))
        try:
            return cls(file, pages)
        except BaseException:
            file.close()
            raise

    @property
    def fd(self) -> int:
        """Their descriptor (see :meth:`Descriptor.fileno`)."""
        return self._file.fileno()

    def close(self) -> None:
        """Unmap the tables, and close their descriptor. Doing it again is nothing."""
        for made in self._columns:
            made.release()
        self._view.release()
        libc.munmap_once(self._mapped, self._size)
        self._file.close()
