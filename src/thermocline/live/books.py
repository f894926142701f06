"""The books of nodes and groups, in rows that the native miss path reads and charges (``native/pager.h``)."""

from __future__ import annotations

import ctypes
from typing import Any

from thermocline.live.tables import MAX_GROUPS
from thermocline.protocol.group import Group
from thermocline.protocol.lru import Lruvec
from thermocline.protocol.node import Node
from thermocline.spec import MAX_NODES

#: ``TC_NODES``: that of source files included.
NODES = MAX_NODES + 1
_NO_LIMIT = (1 << 64) - 1


class NodeRow(ctypes.Structure):
    """``struct tc_node``: bytes, but for what says whether."""

    _fields_ = (
        ("capacity", ctypes.c_uint64),
        ("used", ctypes.c_uint64),
        ("peak", ctypes.c_uint64),
        ("reserve", ctypes.c_uint64),
        ("low", ctypes.c_uint64),
        ("failed", ctypes.c_uint32),
        ("reads_parts", ctypes.c_uint32),
        ("is_source", ctypes.c_uint32),
        ("pool", ctypes.c_void_p),
    )


class GroupRow(ctypes.Structure):
    """``struct tc_group``: bytes, and by node the numbers of its lists."""

    _fields_ = (
        ("dram_limit", ctypes.c_uint64),
        ("memory_limit", ctypes.c_uint64),
        ("used", ctypes.c_uint64 * NODES),
        ("memory", ctypes.c_uint64),
        ("peak_dram", ctypes.c_uint64),
        ("active", ctypes.c_uint16 * NODES),
        ("inactive", ctypes.c_uint16 * NODES),
    )


def _kept(name: str) -> Any:
    """An attribute that is kept in the row."""

    def read(books: Any) -> Any:
        return getattr(books.row, name)

    def write(books: Any, value: int) -> None:
        setattr(books.row, name, value)

    return property(read, write)


def _limit(name: str) -> Any:
    """A limit that is kept in the row; None where there is none."""

    def read(books: Any) -> int | None:
        value: int = getattr(books.row, name)
        return None if value == _NO_LIMIT else value

    def write(books: Any, value: int | None) -> None:
        setattr(books.row, name, _NO_LIMIT if value is None else value)

    return property(read, write)


class BookedNode(Node):
    """A node whose room is accounted for in a row."""

    row: NodeRow

    @classmethod
    def at(cls, row: NodeRow, *arguments: Any, **settings: Any) -> BookedNode:
        """A node with this row."""
        made = cls.__new__(cls)
        made.row = row
        Node.__init__(made, *arguments, **settings)
        row.low = made.watermarks.low
        row.reads_parts = made.reads_parts
        return made

    capacity = _kept("capacity")
    used = _kept("used")
    peak = _kept("peak")
    reserve = _kept("reserve")
    failed = _kept("failed")


class BookedGroup(Group):
    """A group whose charges are in a row."""

    def __init__(self, row: GroupRow, index: int, name: str, nodes: int) -> None:
        self.row = row
        super().__init__(index, name, nodes)
        self.used = row.used

    def know_lists(self, node: int, lruvec: Lruvec) -> None:
        """Write down which lists the group has in a node."""
        self.row.active[node], self.row.inactive[node] = lruvec.active.number, lruvec.inactive.number

    dram_limit = _limit("dram_limit")
    memory_limit = _limit("memory_limit")
    memory = _kept("memory")
    peak_dram = _kept("peak_dram")


class Books:
    """The rows of all nodes and groups of one memory."""

    def __init__(self) -> None:
        self.nodes = (NodeRow * NODES)()
        self.groups = (GroupRow * MAX_GROUPS)()

    def node(self, index: int, *arguments: Any, **settings: Any) -> BookedNode:
        """A node, with its row. As :class:`~thermocline.protocol.node.Node`."""
        return BookedNode.at(self.nodes[index], index, *arguments, **settings)

    def group(self, index: int, name: str, nodes: int) -> BookedGroup:
        """A group, with its row. As :class:`~thermocline.protocol.group.Group`."""
        return BookedGroup(self.groups[index], index, name, nodes)
