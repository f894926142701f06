"""What a machine is made of: what a pager shares with its successor, and what it takes with it when it is killed.

The page table, the arena and the stores survive. The ``Mm``, the locks and the tasks are the pager's own, and
:meth:`World.kill` begins them anew over what survived.
"""

from __future__ import annotations

from array import array
from collections import deque
from typing import Any

from thermocline.check.arena import Arena
from thermocline.check.footprint import (
    Footprint,
    WatchedChild,
    WatchedChildren,
    WatchedColumn,
    WatchedFirstTouch,
    WatchedGroup,
    WatchedLinks,
    WatchedNode,
    WatchedShadows,
)
from thermocline.check.layout import Extent, Layout
from thermocline.check.private import PrivateMapping
from thermocline.check.store import PAGE, PARTS, Content, Store
from thermocline.check.task import Task
from thermocline.protocol.demotion import DemotionPath
from thermocline.protocol.mm import DRAM, Mm, Policy
from thermocline.protocol.node import Kind
from thermocline.protocol.page import RESIDENT, SHADOWED, SLOTTED, Entry, PageTable
from thermocline.protocol.recovery import Presence
from thermocline.protocol.region import Region
from thermocline.protocol.shadows import Chain
from thermocline.protocol.vmstat import VmStat

#: In the place of a group: a page waits to be let in.
ENTERS = -1


class World:
    """A pager's state, and that of the kernel and the stores it works with.

    Attributes
    ----------
    owners : dict of page to Task
        The holder of the lock of each locked page; ``waiters``: the tasks that queue for it.
    dying : set of int
        Pages of arrays that are being freed: their bytes do not matter any more.
    dead_devices : set of int
        Nodes whose devices refuse every write, and ``failed_nodes``: those of them that are out of use, as the pager
        tells its successor. ``refusals`` counts what they have refused, and is the pager's own.
    family : dict of number to PrivateMapping
        The forked children, as the supervisor knows them: from when their fork is asked for, until the pager has
        forgotten them.
    saved : dict of page to versions
        The saved copies.
    forks : int
        How often the program has forked.
    pinned : set of int
        Pages whose pins were answered: a device may write to their frames.
    """

    def __init__(self, layout: Layout, policy: Policy, footprint: Footprint | None = None) -> None:
        self.layout = layout
        self.policy = policy
        self.footprint = Footprint() if footprint is None else footprint
        self.arena = Arena(layout.pages)
        self.stores = {
            index: Store(place.slot_bytes) for index, place in enumerate(layout.lower, start=1) if not place.mapped
        }
        columns = {
            name: WatchedColumn(self.footprint, name, code, layout.pages) for name, code in PageTable.COLUMNS.items()
        }
        self.table = PageTable(layout.pages, columns)
        self._columns = columns
        self._entries = columns["entry"].unwatched
        #: The blocks that the program has freed and may take again, by region number; 0 ends the list.
        self.lazyfree_blocks = WatchedColumn(self.footprint, "lazyfree_blocks", "I", layout.pages + 1)
        self.regions: dict[int, Region] = {}
        self.dying: set[int] = set()
        self.dead_devices: set[int] = set()
        self.failed_nodes: set[int] = set()
        self.vmstat = VmStat()
        self.family: dict[int, PrivateMapping] = {}
        self.saved: dict[int, tuple[int, ...]] = {}
        self.forks = 0
        self.pinned: set[int] = set()
        for extent in layout.arrays:
            self._add_region(extent.start + 1, extent)
        self._start_pager()

    def _add_region(self, number: int, extent: Extent) -> None:
        self.regions[number] = Region(
            number, extent.start, extent.pages, extent.group, int(extent.source), extent.advice
        )
        for page in range(extent.start, extent.start + extent.pages):
            self.table.region[page] = number
            if extent.source:
                self.table.commit(page, SLOTTED, self.layout.source, page - extent.start + 1)
                # A file's bytes are its program's oldest version: negative, so that no write ever makes it.
                self.arena.truth[page] = [-page - 1] * PARTS

    def _start_pager(self) -> None:
        """All that a pager holds on its own heap, fresh."""
        layout, footprint = self.layout, self.footprint
        nodes = [WatchedNode.watch(footprint, DRAM, "dram", Kind.MAPPED, layout.dram * PAGE, PAGE)]
        for index, place in enumerate(layout.lower, start=1):
            nodes.append(
                WatchedNode.watch(
                    footprint,
                    index,
                    place.name,
                    Kind.MAPPED if place.mapped else Kind.UNMAPPED,
                    place.slots * place.slot_bytes,
                    place.slot_bytes,
                    charged_to_memory=place.charged_to_memory,
                    keep_incompressible=place.keep_incompressible,
                    reads_parts=place.reads_parts,
                )
            )
        nodes.append(WatchedNode.watch(footprint, len(nodes), "source", Kind.SOURCE, 0, PAGE, charged_to_memory=False))
        self.nodes = nodes
        self.mm = Mm(
            PAGE,
            list(nodes),
            DemotionPath.through(1 + len(layout.lower)),
            self.table,
            self.policy,
            self.regions.get,
            self.vmstat,
            column=_no_column,
            parts=layout.parts,
        )
        self.first_touch = None if layout.slack is None else WatchedFirstTouch(footprint, nodes, layout.slack)
        self.mm.first_touch = self.first_touch
        self.mm.lazyfree_blocks = self.lazyfree_blocks
        self.mm.children = WatchedChildren(footprint)
        for child in self.family.values():
            self.mm.children[child.number] = self.child(child)
        chain = Chain(layout.pages, len(nodes))
        for node in nodes:
            node.shadows = WatchedShadows(footprint, chain, node.index)
        self.mm.links = links = WatchedLinks(layout.pages, footprint)
        self._columns |= links.watched
        self.groups = [WatchedGroup(footprint, 0, "root", len(nodes))]
        for limits in layout.groups:
            self.groups.append(
                WatchedGroup(
                    footprint,
                    limits.index,
                    f"group {limits.index}",
                    len(nodes),
                    dram_limit=None if limits.dram is None else limits.dram * PAGE,
                    memory_limit=None if limits.memory is None else limits.memory * PAGE,
                )
            )
        self.mm.groups = {group.index: group for group in self.groups}
        self.refusals = dict.fromkeys(self.stores, 0)
        for index in self.failed_nodes:
            self.mm.fail_node(nodes[index])
        for node in nodes[:-1]:
            for group in self.mm.groups:
                self.mm.lruvec(node.index, group)
        self.tasks: dict[str, Task] = {}
        self.owners: dict[int, Task] = {}
        self.waiters: dict[int, deque[Task]] = {}
        self.kswapd_asleep: dict[int, Task] = {}
        self.kswapd_wanted: set[int] = set()
        #: Allocations that wait for room, and the groups that they are for.
        self.throttled: list[tuple[Task, int]] = []

    def child(self, known: PrivateMapping) -> WatchedChild:
        """A child as a pager is told of it."""
        return WatchedChild(self.footprint, known.number, known.fork, expected=known.expected, inherits=known.inherits)

    def kill(self) -> None:
        """Kill the pager, and start a successor that has not recovered anything yet."""
        self._start_pager()

    def place(self, page: int, node: int, *, shadow: bool = False) -> None:
        """Let a page have been written, and be in a node now; a shadowed one is in DRAM as well."""
        arena, mm = self.arena, self.mm
        for part in range(PARTS):
            arena.write(page, part)
        slot = 0
        mapped = self.nodes[node].kind is Kind.MAPPED
        if not mapped:
            slot = self.stores[node].reserve()
            size = self.layout.lower[node - 1].size(page)
            self.stores[node].slots[slot] = Content(page, tuple(arena.truth[page]), size)
            mm.charge(mm.nodes[node], mm.group_of(page), size)
        if shadow or mapped:
            frame = node if mapped else DRAM
            mm.charge(mm.nodes[frame], mm.group_of(page), PAGE)
            mm.links.present[page] = mm.all_parts
            arena.protect(page, shadow)
            arena.nodes[page] = [frame] * PARTS
        else:
            arena.punch(page)
        if shadow:
            mm.nodes[node].shadows.add(page)
        self.table.commit(page, SHADOWED if shadow else RESIDENT if mapped else SLOTTED, node, slot)
        if self.first_touch is not None:
            self.first_touch.holding += 1
        mm.lru_add(page)

    # -- what an observer sees ----------------------------------------------------------------------------------------

    def entry(self, page: int) -> Entry:
        """A page's entry in the page table."""
        word = self._entries[page]
        return Entry(word >> 56, word >> 48 & 0xFF, word & (1 << 48) - 1)

    def may_allocate(self, group: int) -> bool:
        """Whether there is room for a frame, in DRAM and within a group's limits; for ``ENTERS``: for one more page."""
        if group == ENTERS:
            return self.first_touch is not None and not self.first_touch.full
        return self.mm.nodes[DRAM].has_room and not self.mm.groups[group].excess(PAGE)

    def holds(self, task: Task, page: int) -> bool:
        """Whether a task holds the lock of a page."""
        return self.owners.get(page) is task

    def presence(self, page: int) -> Presence:
        """Which parts of a page are in the arena, as a pager counts parts."""
        there = [version is not None for version in self.arena.versions[page]]
        if self.mm.parts == 1:
            return Presence(int(any(there)), int(all(there)))
        parts = sum(1 << part for part, present in enumerate(there) if present)
        return Presence(parts, parts)

    def unwatched(self, column: str) -> array[int]:
        """A column of the page table or the links, without leaving a footprint."""
        return self._columns[column].unwatched

    def slot_size(self, node: int, slot: int) -> int:
        """The bytes that a slot is charged."""
        return self.stores[node].size(slot)

    def slot_versions(self, page: int, entry: Entry) -> tuple[int, ...]:
        """The versions in the slot that an entry names; zeros if it names none."""
        if not entry.names_slot:
            return (0,) * PARTS
        if entry.node == self.layout.source:
            return (-page - 1,) * PARTS
        content = self.stores[entry.node].slots.get(entry.slot)
        return (0,) * PARTS if content is None else content.versions


def _no_column(typecode: str, count: int) -> Any:
    """The columns that :class:`Mm` makes are replaced by watched ones."""
    return bytearray(0) if count > 1024 else bytearray(count)
