"""Footprints: what of the shared state one step has read and written.

Two steps of different tasks whose footprints do not conflict commute: either order leads to the same state, so the
search need try only one. The protocols' shared state is ordinary Python data; here are versions of it that note
every access. They subclass what the protocols define, so a protocol cannot tell the difference.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from typing import Any

from thermocline.protocol.child import Child
from thermocline.protocol.first_touch import FirstTouch
from thermocline.protocol.group import Group
from thermocline.protocol.lru import Links, LruList
from thermocline.protocol.node import Node
from thermocline.protocol.page import array_column
from thermocline.protocol.shadows import Chain, Shadows


class Footprint:
    """What was read and written since :meth:`clear`, as bit sets. Any hashable name is an object."""

    __slots__ = ("_bits", "reads", "writes")

    def __init__(self) -> None:
        self._bits: dict[Hashable, int] = {}
        self.reads = 0
        self.writes = 0

    def _bit(self, name: Hashable) -> int:
        bit = self._bits.get(name)
        if bit is None:
            bit = self._bits[name] = 1 << len(self._bits)
        return bit

    def read(self, *name: Hashable) -> None:
        """Note that an object was read."""
        self.reads |= self._bit(name)

    def write(self, *name: Hashable) -> None:
        """Note that an object was changed."""
        self.writes |= self._bit(name)

    def write_all(self) -> None:
        """Note that anything may have been read and changed."""
        self.reads = self.writes = -1

    def clear(self) -> None:
        """Begin a new step."""
        self.reads = self.writes = 0


def conflict(one: tuple[int, int], other: tuple[int, int]) -> bool:
    """Whether two footprints, each (reads, writes), keep their steps from commuting."""
    return bool(one[1] & (other[0] | other[1]) or one[0] & other[1])


class WatchedColumn:
    """A column of integers; each row is an object of its own."""

    __slots__ = ("_column", "_footprint", "_name")

    def __init__(self, footprint: Footprint, name: str, typecode: str, count: int) -> None:
        self._footprint = footprint
        self._name = name
        self._column = array(typecode, bytes(count * array(typecode).itemsize))

    def __getitem__(self, index: int) -> int:
        self._footprint.read(self._name, index)
        return self._column[index]

    def __setitem__(self, index: int, value: int) -> None:
        self._footprint.write(self._name, index)
        self._column[index] = value

    def __len__(self) -> int:
        return len(self._column)

    @property
    def unwatched(self) -> array[int]:
        """The column, for those that look at it from outside of the schedule."""
        return self._column


class WatchedChildren(dict[int, Child]):
    """The children that a pager knows, as one object."""

    def __init__(self, footprint: Footprint) -> None:
        super().__init__()
        self._footprint = footprint

    def __len__(self) -> int:
        self._footprint.read("children")
        return super().__len__()

    def values(self) -> Any:
        """The children."""
        self._footprint.read("children")
        return super().values()

    def get(self, number: int, default: Any = None) -> Any:
        """A child, if it is known."""
        self._footprint.read("children")
        return super().get(number, default)

    def __setitem__(self, number: int, child: Child) -> None:
        self._footprint.write("children")
        super().__setitem__(number, child)

    def pop(self, number: int, *default: Any) -> Any:
        """Forget a child."""
        self._footprint.write("children")
        return super().pop(number, *default)


class WatchedChild(Child):
    """A child that belongs to the same object."""

    __slots__ = ("_expected", "_footprint")

    def __init__(self, footprint: Footprint, number: int, fork: int, *, expected: bool, inherits: bool) -> None:
        self._footprint = footprint
        self._expected = expected
        super().__init__(number, fork, expected, inherits)

    @property
    def expected(self) -> bool:
        """Whether its fork is under way."""
        self._footprint.read("children")
        return self._expected

    @expected.setter
    def expected(self, value: bool) -> None:
        self._footprint.write("children")
        self._expected = value


class WatchedShadows(Shadows):
    """A node's shadows, as one object."""

    def __init__(self, footprint: Footprint, chain: Chain, node: int) -> None:
        super().__init__(chain, node)
        self._footprint = footprint

    def __iter__(self) -> Iterator[int]:
        self._footprint.read("shadows", self._number)
        return super().__iter__()

    def __len__(self) -> int:
        self._footprint.read("shadows", self._number)
        return super().__len__()

    @property
    def unwatched(self) -> list[int]:
        """The pages, for those that look at them from outside of the schedule."""
        return list(super().__iter__())

    def add(self, page: int) -> None:
        """A page has come up, and its copy stays here."""
        self._footprint.write("shadows", self._number)
        super().add(page)

    def discard(self, page: int) -> None:
        """The copy of a page is none any more."""
        has_none = not self._next[page + 1]
        (self._footprint.read if has_none else self._footprint.write)("shadows", self._number)
        super().discard(page)


class WatchedNode(Node):
    """A node whose room is an object."""

    footprint: Footprint
    #: :attr:`used`, for those that look at it from outside of the schedule.
    bytes_used: int
    shadows: WatchedShadows

    @classmethod
    def watch(cls, footprint: Footprint, *arguments: Any, **settings: Any) -> WatchedNode:
        """A node that notes its accesses in ``footprint``."""
        made = cls.__new__(cls)
        made.footprint = footprint
        Node.__init__(made, *arguments, **settings)
        return made

    @property
    def used(self) -> int:
        """Bytes in use."""
        self.footprint.read("room", self.index)
        return self.bytes_used

    @used.setter
    def used(self, value: int) -> None:
        self.footprint.write("room", self.index)
        self.bytes_used = value


class WatchedFirstTouch(FirstTouch):
    """Counts of pages that hold something, as one object."""

    def __init__(self, footprint: Footprint, nodes: Sequence[Node], slack: int) -> None:
        self.footprint = footprint
        super().__init__(nodes, slack)
        #: :attr:`holding` and :attr:`entering`, for those that look at them from outside of the schedule.
        self.pages_held: int
        self.pages_entering: int

    @property
    def holding(self) -> int:
        """Pages that have room of a node."""
        self.footprint.read("first touch")
        return self.pages_held

    @holding.setter
    def holding(self, value: int) -> None:
        self.footprint.write("first touch")
        self.pages_held = value

    @property
    def entering(self) -> int:
        """Pages that were let in, and have none yet."""
        self.footprint.read("first touch")
        return self.pages_entering

    @entering.setter
    def entering(self, value: int) -> None:
        self.footprint.write("first touch")
        self.pages_entering = value


class _WatchedUse(list[int]):
    """A group's bytes by node."""

    def __init__(self, footprint: Footprint, group: int, count: int) -> None:
        super().__init__([0] * count)
        self._footprint, self._group = footprint, group

    def __getitem__(self, index: Any) -> Any:
        self._footprint.read("group", self._group)
        return super().__getitem__(index)

    def __setitem__(self, index: Any, value: Any) -> None:
        self._footprint.write("group", self._group)
        super().__setitem__(index, value)


class WatchedGroup(Group):
    """A group whose charges are an object, if it has limits: without limits, no step reads them."""

    def __init__(self, footprint: Footprint, index: int, name: str, nodes: int, **limits: int | None) -> None:
        self.footprint = footprint
        super().__init__(index, name, nodes, **limits)
        #: :attr:`used` and :attr:`memory`, for those that look at them from outside of the schedule.
        self.bytes_used = self.used
        self.bytes_memory: int
        if self.limited:
            self.used = self.bytes_used = _WatchedUse(footprint, index, nodes)

    @property
    def limited(self) -> bool:
        """Whether anything depends on the charges."""
        return self.dram_limit is not None or self.memory_limit is not None

    @property
    def memory(self) -> int:
        """Bytes of RAM of any kind."""
        if self.limited:
            self.footprint.read("group", self.index)
        return self.bytes_memory

    @memory.setter
    def memory(self, value: int) -> None:
        if self.limited:
            self.footprint.write("group", self.index)
        self.bytes_memory = value


class WatchedList(LruList):
    """An LRU list, as one object; which list a page is on is another, the page's."""

    def __init__(self, links: Links, number: int, footprint: Footprint) -> None:
        super().__init__(links, number)
        self._footprint = footprint

    def __len__(self) -> int:
        self._footprint.read("list", self._number)
        return super().__len__()

    def __iter__(self) -> Iterator[int]:
        self._footprint.read("list", self._number)
        return super().__iter__()

    def from_tail(self, behind: int | None = None) -> Iterator[int]:
        """Pages from the tail to the head."""
        self._footprint.read("list", self._number)
        return super().from_tail(behind)

    def tail(self) -> int | None:
        """The page that reclaim would take next, or None."""
        self._footprint.read("list", self._number)
        return super().tail()

    def _insert(self, link: int, before: int, after: int) -> None:
        self._footprint.write("list", self._number)
        super()._insert(link, before, after)

    def remove(self, page: int) -> None:
        """Take a page of this list off it."""
        self._footprint.write("list", self._number)
        super().remove(page)


class WatchedLinks(Links):
    """The link columns. Only what the lists do not cover is watched by row."""

    def __init__(self, pages: int, footprint: Footprint) -> None:
        super().__init__(pages, _small_column(pages))
        self._footprint = footprint
        self.watched = {
            name: WatchedColumn(footprint, name, code, pages)
            for name, code in (
                ("list_of", "H"),
                ("referenced", "B"),
                ("evicted_at", "I"),
                ("present", "H"),
                ("dirty", "B"),
                ("transit", "Q"),
            )
        }
        self.list_of = self.watched["list_of"]
        self.referenced = self.watched["referenced"]
        self.evicted_at = self.watched["evicted_at"]
        self.present = self.watched["present"]
        self.dirty = self.watched["dirty"]
        self.transit = self.watched["transit"]

    def new_list(self) -> LruList:
        """A fresh, empty list."""
        made = WatchedList(self, len(self._lists), self._footprint)
        self._lists.append(made)
        return made


def _small_column(pages: int) -> Callable[[str, int], Any]:
    """Columns with room for a few lists only: thousands of machines are made in one search."""

    def column(typecode: str, count: int) -> Any:
        return array_column(typecode, min(count, pages + 1 + 64))

    return column


def union(footprints: Iterable[tuple[int, int]]) -> tuple[int, int]:
    """All that several steps touched."""
    reads = writes = 0
    for one in footprints:
        reads |= one[0]
        writes |= one[1]
    return reads, writes
