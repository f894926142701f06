"""The state that protocols share: nodes, page table, lists, groups, regions and counters.

Everything here is plain data with plain functions; nothing waits. Between two yields a protocol may read and change
it freely, as kernel code may under a spinlock. Only the page table (and the stores behind the nodes) survive a pager;
the rest is rebuilt by :mod:`thermocline.protocol.recovery`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from thermocline.protocol.child import Child
from thermocline.protocol.demotion import DemotionPath
from thermocline.protocol.group import ROOT, Group, GroupReclaim
from thermocline.protocol.lru import ColumnFactory, Links, Lruvec
from thermocline.protocol.node import Kind, Node
from thermocline.protocol.page import PARTIAL, RESIDENT, SHADOWED, SLOTTED, Column, PageTable, array_column
from thermocline.protocol.region import Region
from thermocline.protocol.shadows import Chain, Shadows
from thermocline.protocol.vmstat import VmStat

if TYPE_CHECKING:
    from thermocline.protocol.effects import CopyList
    from thermocline.protocol.first_touch import FirstTouch
    from thermocline.protocol.migrate import Design

#: Blocks of one memory that are freed lazily at once (``TC_BINNED`` of ``native/thermocline.h``).
MAX_LAZYFREE = 128
#: The node in which pages come up. An entry that names node 0 names no slot.
DRAM = 0


@dataclass(frozen=True, slots=True)
class Policy:
    """What the user chose.

    Attributes
    ----------
    design : Design
        The migration design that demotion uses.
    discard_clean : bool
        Drop clean pages of an array made from a file (the file has them) rather than demote them.
    readahead_pages : int
        The largest readahead window, in pages; 0 turns readahead off.
    group_reclaim : GroupReclaim
        What reclaim for a group's limit does about demotion.
    inactive_ratio : int
        How many times as long as the inactive list the active one may be. The kernel has 1 in a node of less than a
        GiB, 3 in one of a GiB, and from there on the root of ten times the GiB.
    """

    design: Design
    discard_clean: bool = False
    readahead_pages: int = 32
    group_reclaim: GroupReclaim = GroupReclaim.LEFT
    inactive_ratio: int = 2


#: Parts of a page, at most.
_MOST_PARTS = 16


def parts_of(page_size: int, base: int, nodes: Iterable[Node]) -> int:
    """In how many parts, of whole base pages (in bytes), a page comes up; 1: always as a whole.

    A page comes up as a whole where DRAM demotes to slow memory: the kernel would move the frames that a page has, and
    its present parts could not be told from the absent ones.
    """
    lower = list(nodes)[1:]
    parted = any(node.reads_parts for node in lower) and not any(node.kind is Kind.MAPPED for node in lower)
    return min(_MOST_PARTS, page_size // base) if parted else 1


@dataclass
class Mm:
    """One tiered memory (``struct mm_struct`` and the machine under it, in one).

    Attributes
    ----------
    page_size : int
        Bytes.
    nodes : list of Node
        By index; ``nodes[DRAM]`` is the arena.
    find_region : callable
        Region index -> Region, or None when there is no such region (any more).
    held : set of int
        Pages that reclaim passes over, because pagers have died moving them (``mlock``, but for their good).
    parts : int
        Parts of a page, which come up by themselves where only they are wanted: 1 to 16, a power of two.
    children : dict of int to Child
        The forked children that see the arrays as they were when they were forked.
    first_touch : FirstTouch or None
        Counts the pages that hold something, where more may be allocated than the nodes hold.
    make_group : callable
        Index, name and number of nodes -> Group.
    takes_lists : bool
        Whether the interpreter does to lists of pages what a protocol does to each (``DropClean``, ``Arrive``).
    lazyfree_blocks : column of u32
        The regions that the program has freed and may hand out again, by number, the oldest first; 0 ends the list. The
        program writes it, and only :attr:`PageTable.lazyfree <thermocline.protocol.page.PageTable>` is to be relied on.
    """

    page_size: int
    nodes: list[Node]
    path: DemotionPath
    table: PageTable
    policy: Policy
    find_region: Callable[[int], Region | None]
    vmstat: VmStat = field(default_factory=VmStat)
    column: ColumnFactory = array_column
    held: set[int] = field(default_factory=set)
    parts: int = 1
    children: dict[int, Child] = field(default_factory=dict)
    first_touch: FirstTouch | None = None
    make_group: Callable[[int, str, int], Group] = Group
    takes_lists: bool = False
    lazyfree_blocks: Column = field(default_factory=lambda: array_column("I", MAX_LAZYFREE))

    def __post_init__(self) -> None:
        self.part_size = self.page_size // self.parts
        self.all_parts = (1 << self.parts) - 1
        if self.parts > 1:
            self.nodes[DRAM].reserve = self.page_size
        self.links = Links(self.table.pages, self.column)
        self.chain = Chain(self.table.pages, len(self.nodes), self.column)
        for node in self.nodes:
            node.shadows = Shadows(self.chain, node.index)
        self.groups: dict[int, Group] = {ROOT: self.make_group(ROOT, "root", len(self.nodes))}
        self._lruvecs: dict[tuple[int, int], Lruvec] = {}

    # -- regions and groups -------------------------------------------------------------------------------------------

    def region_of(self, page: int) -> Region | None:
        """The region of a page, or None for a page that is not allocated."""
        number = self.table.region[page]
        return self.find_region(number) if number else None

    def group_of(self, page: int) -> Group:
        """The group that the page is charged to."""
        region = self.region_of(page)
        return self.groups[region.group] if region is not None else self.groups[ROOT]

    def add_group(self, group: Group) -> None:
        """Make a group known."""
        self.groups[group.index] = group

    # -- forked children ----------------------------------------------------------------------------------------------

    def owed(self, page: int) -> list[Child]:
        """The children that still see a page through its frame, or would if they touched it.

        Before the program may write the page, each of them must have a copy of its own.
        """
        if not self.children:
            return []
        given = self.table.given[page]
        newer = [child for child in self.children.values() if child.fork > given]
        region = self.region_of(page) if newer else None
        if region is None:
            return []
        return [child for child in newer if not 0 < region.shared <= child.fork]

    @property
    def expects_child(self) -> bool:
        """Whether a fork is under way whose child cannot be given anything yet."""
        return any(child.expected for child in self.children.values())

    # -- lists --------------------------------------------------------------------------------------------------------

    def lruvec(self, node: int, group: int) -> Lruvec:
        """The lists of a group in a node (``mem_cgroup_lruvec``)."""
        key = (node, group)
        found = self._lruvecs.get(key)
        if found is None:
            found = self._lruvecs[key] = Lruvec(self.links, group, self.policy.inactive_ratio)
            self.groups[group].know_lists(node, found)
        return found

    def lruvecs(self, node: int, group: Group | None = None) -> list[Lruvec]:
        """The lists that reclaim of a node looks at: of one group, or of all."""
        if group is not None:
            return [self.lruvec(node, group.index)]
        return [lruvec for (at, _), lruvec in self._lruvecs.items() if at == node]

    def node_of(self, page: int) -> int | None:
        """The node whose lists a page belongs on; None while it belongs on no list."""
        entry = self.table.read(page)
        if entry.state == RESIDENT:
            return entry.node
        if entry.state in (SHADOWED, PARTIAL):
            return DRAM
        if entry.state == SLOTTED and self.nodes[entry.node].kind is not Kind.SOURCE:
            return entry.node
        return None

    def lru_add(self, page: int, *, active: bool = False) -> None:
        """Put a page on the list where its entry says it belongs, from wherever it was (``folio_add_lru``)."""
        self.links.isolate(page)
        node = self.node_of(page)
        if node is not None:
            self.lruvec(node, self.group_of(page).index).add(page, active=active)

    def is_movable(self, page: int, node: Node) -> bool:
        """Whether a locked page that was isolated from a node may still be moved from there.

        If not, it was pinned since, or moved or freed; a task that moves a page puts it on a list.
        """
        return (
            self.node_of(page) == node.index
            and not self.links.list_of[page]
            and not self.table.pins[page]
            and page not in self.held
        )

    def abort_transaction(self, page: int) -> None:
        """A locked page is going to change: a copy of it that is being made is no copy any more."""
        if self.links.transit[page]:
            self.links.transit[page] = 0

    def putback(self, pages: Iterable[int]) -> None:
        """Put isolated pages back (``putback_lru_page``), unless another task has done so meanwhile."""
        for page in pages:
            if not self.links.list_of[page]:
                self.lru_add(page)

    def forget(self, page: int) -> None:
        """Nothing is in a locked page any more, and its entry says so.

        Not before that: a reclaim that could not lock the page may put it back on its list until then.
        """
        self.links.isolate(page)
        self.links.evicted_at[page] = 0
        self.links.referenced[page] = 0

    def note_eviction(self, page: int, source: Node) -> None:
        """Remember when a page left DRAM, to judge it when it comes back (``workingset_eviction``)."""
        if source.index == DRAM:
            self.lruvec(DRAM, self.group_of(page).index).evict(page)

    # -- parts --------------------------------------------------------------------------------------------------------

    def missing(self, page: int) -> int:
        """The parts of a page that are not in the arena, as bits."""
        return self.all_parts & ~self.links.present[page]

    def bytes_of(self, parts: int) -> int:
        """What parts take, given as bits."""
        return parts.bit_count() * self.part_size

    def uncharge_frame(self, page: int, node: int = DRAM) -> None:
        """What was there of a page, on a mapped node, is not any more."""
        links = self.links
        self.uncharge(self.nodes[node], self.group_of(page), self.bytes_of(links.present[page]))
        links.present[page] = links.dirty[page] = 0

    # -- room ---------------------------------------------------------------------------------------------------------

    def charge(self, node: Node, group: Group, size: int) -> None:
        """Account bytes of a node to it and to a group."""
        node.take(size)
        group.charge(node, size)

    def fail_node(self, node: Node) -> None:
        """Take a node whose device refuses every write out of use.

        Nothing goes there any more, and what went there goes past it. What is in it stays, and can be read while the
        device answers: nothing can be moved from it in the background, but a fault brings a page up.
        """
        node.failed = True
        self.path.remove(node.index)

    def uncharge(self, node: Node, group: Group, size: int) -> None:
        """The opposite of :meth:`charge`."""
        node.give(size)
        group.uncharge(node, size)

    def uncharge_rest(self, copy: CopyList, sizes: Iterable[int]) -> None:
        """Uncharge what pages that were copied take less than the worst case that was reserved for them."""
        node, group = self.nodes[copy.node], self.groups[copy.group]
        for size in sizes:
            if 0 < size < node.slot_bytes:
                self.uncharge(node, group, node.slot_bytes - size)
