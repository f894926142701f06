"""Pages and the page table: where the bytes of each page are.

A page is a number: its index in the arena. Its entry says in which of these states it is:

========= ============================ ============================ ==============================================
state     bytes are in                 slot named by the entry      a killed pager's successor
========= ============================ ============================ ==============================================
EMPTY     nowhere: all zeros           none                         punches the hole again
SLOTTED   the slot                     the slot                     punches the hole again
PARTIAL   arena where present, else    the slot they come from, or  keeps what is there, and brings the rest up
          the slot (or zeros)          none                         when it is asked for
RESIDENT  the arena                    none: the entry's node is    asks on which node the frame is, and writes that
                                       where its frame is
SHADOWED  the arena and, the same,     the shadow                   nothing to do: the page is write-protected
          the slot
POISONED  nowhere: they were lost      none                         poisons again
========= ============================ ============================ ==============================================

Two rules make every crash harmless. A demotion writes SLOTTED *before* it punches the hole, and the page is
write-protected from before the copy until the hole: both copies are the same. A promotion writes PARTIAL *before* the
first byte appears in the arena, where the program may change it at once: from then on the arena is right.

A page has up to 16 *parts*, each of which may be in the arena or not: under random reads only the parts that are
touched come up. Such a page is PARTIAL as long as a part is absent.

A frame of the arena may be on any mapped node: the DRAM, or a slow node that the program addresses as well. The bytes
keep their place in the arena when the kernel moves a frame, so no such move can lose any: the kernel moves first, then
RESIDENT with the new node is written. A crash between the two leaves a page that is charged to another node than it is
on, never a wrong byte, and recovery asks the kernel. SHADOWED and PARTIAL pages have their frames in DRAM, since their
entries name the node of a slot.

The columns of the table may be shared memory (`live`), or arrays (`virtual`, `check`): they outlive the pager.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Mapping
from enum import IntEnum
from typing import ClassVar, NamedTuple, Protocol


class State(IntEnum):
    """Where the bytes of a page are."""

    EMPTY = 0
    SLOTTED = 1
    PARTIAL = 2
    RESIDENT = 3
    SHADOWED = 4
    POISONED = 5


#: As plain integers: a column access in the hot path should not build an enum member.
EMPTY, SLOTTED, PARTIAL, RESIDENT, SHADOWED, POISONED = (int(state) for state in State)


class Column(Protocol):
    """Integers by index: an array, or a memoryview of shared memory."""

    def __getitem__(self, index: int, /) -> int: ...

    def __setitem__(self, index: int, value: int, /) -> None: ...

    def __len__(self) -> int: ...


def array_column(typecode: str, count: int) -> Column:
    """A column of zeros held in an ordinary array of that typecode."""
    column = array(typecode)
    column.frombytes(bytes(count * column.itemsize))
    return column


_STATE_SHIFT, _NODE_SHIFT = 56, 48
_NODE_MASK, _SLOT_MASK = 0xFF, (1 << 48) - 1


class Entry(NamedTuple):
    """A page table entry, unpacked."""

    state: int
    node: int
    slot: int

    @property
    def names_slot(self) -> bool:
        """Whether it names a slot of a lower node; the node of a RESIDENT page is that of its frame."""
        return self.node != 0 and self.state != RESIDENT

    @property
    def frame(self) -> int | None:
        """The mapped node whose frame the page has, None without one."""
        if self.state == RESIDENT:
            return self.node
        return 0 if self.state in (SHADOWED, PARTIAL) else None


class PageTable:
    """One entry a page, as columns.

    Attributes
    ----------
    entry : column of u64
        ``state << 56 | node << 48 | slot``: in one word, because one aligned store of eight bytes is what makes a
        commit whole or absent when the pager is killed.
    region : column of u32
        The region that the page belongs to (0: none).
    pins : column of u8
        How many pins hold the page in DRAM. The program counts them.
    given : column of u32
        The newest fork whose children need nothing of the page's frame any more: each has a copy of its own, or never
        had the page (see :mod:`thermocline.protocol.cow`).
    lazyfree : column of u32
        Of the first page of a block: not 0 while the program has freed it and may hand it out again, and another number
        for each time (see :mod:`thermocline.protocol.lazyfree`). The program writes it.
    """

    #: Column name -> array typecode, in the order in which shared memory holds them.
    COLUMNS: ClassVar[dict[str, str]] = {"entry": "Q", "region": "I", "pins": "B", "given": "I", "lazyfree": "I"}

    def __init__(self, pages: int, columns: Mapping[str, Column] | None = None) -> None:
        if columns is None:
            columns = {name: array_column(code, pages) for name, code in self.COLUMNS.items()}
        self.pages = pages
        self.entry = columns["entry"]
        self.region = columns["region"]
        self.pins = columns["pins"]
        self.given = columns["given"]
        self.lazyfree = columns["lazyfree"]

    def state(self, page: int) -> int:
        """The state of a page."""
        return self.entry[page] >> _STATE_SHIFT

    def place(self, page: int) -> tuple[int, int]:
        """The node and the slot that the entry names; (0, 0) when it names none.

        Of a RESIDENT page, the node that its frame is on, and 0.
        """
        entry = self.entry[page]
        return entry >> _NODE_SHIFT & _NODE_MASK, entry & _SLOT_MASK

    def read(self, page: int) -> Entry:
        """The whole entry."""
        entry = self.entry[page]
        return Entry(entry >> _STATE_SHIFT, entry >> _NODE_SHIFT & _NODE_MASK, entry & _SLOT_MASK)

    def resident(self, page: int) -> bool:
        """Whether all of the page is in the arena (RESIDENT or SHADOWED)."""
        state = self.entry[page] >> _STATE_SHIFT
        return state in (RESIDENT, SHADOWED)

    def commit(self, page: int, state: int, node: int = 0, slot: int = 0) -> None:
        """Write the entry, in one store."""
        self.entry[page] = pack(state, node, slot)


def pack(state: int, node: int = 0, slot: int = 0) -> int:
    """The word of an entry."""
    return state << _STATE_SHIFT | node << _NODE_SHIFT | slot


def runs(pages: Iterable[int]) -> Iterator[tuple[int, int]]:
    """Ascending pages as contiguous runs of (first page, count): one system call serves a run."""
    start = count = 0
    for page in pages:
        if count and page == start + count:
            count += 1
            continue
        if count:
            yield start, count
        start, count = page, 1
    if count:
        yield start, count
