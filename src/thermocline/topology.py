"""The machine's memory nodes: how large, how far apart, in which tier, and which of them this process may use.

What the kernel knows of its nodes is in sysfs (``/sys/devices/system/node``, and from Linux 6.1 on
``/sys/devices/virtual/memory_tiering``). From it follows where pages are demoted: from a node to the nearest ones of
the next lower tier, as ``establish_demotion_targets()`` in ``mm/memory-tiers.c`` has it. A tier is a number, and each
step goes to a greater one, so no path comes back to where it began; several nodes may share a target.

A kernel that knows no tiers has two here: nodes with processors, and nodes without, as Linux 5.15 had it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from thermocline.cgroup import text_of
from thermocline.errors import SpecError
from thermocline.node_spec import Dram, NodeSpec, Numa
from thermocline.sizes import format_size

#: Tiers of nodes with and without processors where the kernel names none: MEMORY_TIER_HBM and others lie between.
_WITH_PROCESSORS, _WITHOUT = 0, 1


@dataclass(frozen=True, slots=True)
class MemoryNode:
    """One of the machine's nodes.

    Attributes
    ----------
    size, free : int
        Bytes of memory; 0 is a node of processors only.
    processors : bool
        Whether there are any beside it.
    distance : dict of int to int
        To each node, itself included, in the firmware's units: 10 is near (ACPI's SLIT).
    tier : int
        Smaller is faster.
    """

    index: int
    size: int
    free: int
    processors: bool
    distance: dict[int, int]
    tier: int


@dataclass(frozen=True)
class Topology:
    """All of them.

    Attributes
    ----------
    nodes : dict of int to MemoryNode
        Those that are online.
    allowed : frozenset of int or None
        Those that the cpuset of this process lets it use; None: it is not known, and the kernel is going to say.
    bound : frozenset of int or None
        Those to which its memory policy binds it (``numactl --membind``); None: to none.
    tiers_known : bool
        Whether the kernel has said which node is in which tier.
    """

    nodes: dict[int, MemoryNode] = field(default_factory=dict)
    allowed: frozenset[int] | None = None
    bound: frozenset[int] | None = None
    tiers_known: bool = False

    @classmethod
    def read(cls, sys: str | Path = "/sys", proc: str | Path = "/proc") -> Topology:
        """What the kernel says now. A kernel without NUMA says nothing: there are no nodes then."""
        root = Path(sys, "devices", "system", "node")
        tiers = _tiers(Path(sys, "devices", "virtual", "memory_tiering"))
        online = parse_list(text_of(root / "online"))
        nodes = {}
        for index in online:
            directory = root / f"node{index}"
            row = [int(word) for word in text_of(directory / "distance").split()]
            if len(row) == len(online):  # else one went offline while we looked
                processors = bool(text_of(directory / "cpulist").strip())
                nodes[index] = MemoryNode(
                    index,
                    _meminfo(directory, "MemTotal"),
                    _meminfo(directory, "MemFree"),
                    processors,
                    dict(zip(online, row, strict=True)),
                    tiers.get(index, _WITH_PROCESSORS if processors else _WITHOUT),
                )
        known = all(index in tiers for index, node in nodes.items() if node.size)
        if not known:  # of one kind or the other, never of both: their numbers do not compare
            nodes = {index: _by_processors(node) for index, node in nodes.items()}
        status = re.search(r"^Mems_allowed_list:\s*(\S+)$", text_of(Path(proc, "self", "status")), re.MULTILINE)
        return cls(
            nodes,
            frozenset(parse_list(status[1])) if status else None,
            _bound(text_of(Path(proc, "self", "numa_maps"))),
            known and bool(tiers),
        )

    def usable(self, index: int) -> bool:
        """Whether this process may have memory of a node that is there and has any."""
        node = self.nodes.get(index)
        return (
            node is not None
            and node.size > 0
            and (self.allowed is None or index in self.allowed)
            and (self.bound is None or index in self.bound)
        )

    @property
    def fast(self) -> list[int]:
        """The usable nodes of the fastest tier: what a program without wishes gets its memory from."""
        usable = [node for node in self.nodes.values() if self.usable(node.index)]
        top = min((node.tier for node in usable), default=0)
        return [node.index for node in usable if node.tier == top]

    def targets(self, source: int) -> list[int]:
        """The nodes that a node demotes to: the nearest of the next lower tier that has memory we may use."""
        node = self.nodes[source]
        below = [other for other in self.nodes.values() if other.tier > node.tier and self.usable(other.index)]
        tier = min((other.tier for other in below), default=0)
        below = [other for other in below if other.tier == tier]
        nearest = min((node.distance.get(other.index, 255) for other in below), default=0)
        return [other.index for other in below if node.distance.get(other.index, 255) == nearest]

    def demotion_order(self) -> list[int]:
        """The slow nodes below the fastest tier, tier by tier, in each the nearest to the fast nodes first."""
        fast = self.fast
        top = min((self.nodes[index].tier for index in fast), default=0)
        slow = [node for node in self.nodes.values() if self.usable(node.index) and node.tier > top]

        def rank(node: MemoryNode) -> tuple[int, int, int]:
            distances = [self.nodes[index].distance.get(node.index, 255) for index in fast]
            return node.tier, min(distances, default=0), node.index

        return [node.index for node in sorted(slow, key=rank)]


def parse_list(text: str) -> list[int]:
    """Numbers as the kernel lists them: ``"0-2,5"`` (``bitmap_parselist``)."""
    found: list[int] = []
    for part in filter(None, (word.strip() for word in text.split(","))):
        first, _, last = part.partition("-")
        found += range(int(first), int(last or first) + 1)
    return found


def _meminfo(directory: Path, name: str) -> int:
    found = re.search(rf"\b{name}:\s+(\d+) kB", text_of(directory / "meminfo"))
    return int(found[1]) << 10 if found else 0


def _tiers(root: Path) -> dict[int, int]:
    """Node -> the number of its tier (``memory_tier4`` is 4), where the kernel has tiers."""
    found = {}
    for directory in sorted(root.glob("memory_tier*")):
        number = directory.name.removeprefix("memory_tier")
        if number.isdecimal():
            # Linux 6.1 to 6.7 has nodelist, and so have later ones.
            found.update(dict.fromkeys(parse_list(text_of(directory / "nodelist")), int(number)))
    return found


def _by_processors(node: MemoryNode) -> MemoryNode:
    tier = _WITH_PROCESSORS if node.processors else _WITHOUT
    return MemoryNode(node.index, node.size, node.free, node.processors, node.distance, tier)


def _bound(numa_maps: str) -> frozenset[int] | None:
    """The nodes that the policy of a process binds it to: mappings without a policy of their own show it."""
    first = numa_maps.partition("\n")[0].split()
    policy = first[1] if len(first) > 1 else ""
    kind, _, nodes = policy.partition(":")
    if not kind.startswith("bind"):
        return None
    return frozenset(parse_list(nodes))


def check_numa(nodes: Sequence[NodeSpec], topology: Callable[[], Topology]) -> None:
    """Refuse memory nodes that a spec names and the machine cannot give.

    Raises
    ------
    SpecError
        One does not exist, has no memory or not so much, is forbidden, is named twice, or is faster than what is above
        it.
    """
    wanted = [node for node in nodes if isinstance(node, Numa) or (isinstance(node, Dram) and node.node is not None)]
    if not wanted:
        return
    machine = topology()
    above: int | None = None
    taken: dict[int, str] = {}
    if not any(isinstance(node, Dram) for node in wanted):
        numbers = {node.node for node in wanted if node.node is not None}
        home = [index for index in machine.fast if index not in numbers]
        if not home:
            raise SpecError(
                f"{_entries(wanted)} would leave no memory node for dram; {_offer(machine, numbers, leave_fast=True)}"
            )
        above = home[0]
    for node in wanted:
        index = node.node
        assert index is not None  # those without were left out
        entry = _entry(node)
        if index in taken:
            raise SpecError(f'"{entry}" and "{taken[index]}" are the same memory; write it once')
        taken[index] = entry
        _check_node(machine, entry, index, node.capacity)
        if above is not None and machine.nodes[index].tier < machine.nodes[above].tier:
            raise SpecError(
                f'"{entry}" is faster than memory node {above} above it (tiers {machine.nodes[index].tier} and'
                f" {machine.nodes[above].tier}), and pages sink from fast to slow; {_offer(machine, ())}"
            )
        above = index


def _check_node(machine: Topology, entry: str, index: int, capacity: int) -> None:
    """Refuse a node that this process cannot have."""
    node = machine.nodes.get(index)
    offer = _offer(machine, ())
    if node is None:
        there = ", ".join(map(str, machine.nodes)) or "none that the kernel tells of"
        raise SpecError(f'"{entry}": there is no memory node {index} online (there is {there}); {offer}')
    if not node.size:
        raise SpecError(f'"{entry}": memory node {index} has processors and no memory; {offer}')
    if machine.allowed is not None and index not in machine.allowed:
        raise SpecError(
            f'"{entry}": the cpuset of this process forbids memory node {index} (Mems_allowed in proc(5)); allow it'
            f" in cpuset.mems, or: {offer}"
        )
    if machine.bound is not None and index not in machine.bound:
        raise SpecError(
            f'"{entry}": the memory policy of this process binds it to other nodes than {index}; start it without'
            f" numactl --membind, or: {offer}"
        )
    if capacity > node.size:
        raise SpecError(
            f'"{entry}={format_size(capacity)}" is more than memory node {index} has ({format_size(node.size)});'
            " write a smaller size"
        )


def _entry(node: NodeSpec) -> str:
    return f"dram@{node.node}" if isinstance(node, Dram) else node.name


def _entries(nodes: Iterable[NodeSpec]) -> str:
    return " and ".join(f'"{_entry(node)}"' for node in nodes)


def _offer(machine: Topology, without: Iterable[int], *, leave_fast: bool = False) -> str:
    """What can be written instead: the slow nodes there are."""
    slow = [f"numa:{index}" for index in machine.demotion_order() if index not in set(without) or leave_fast]
    if not slow:
        return "this machine has no slow memory node: leave numa:NODE out (thermocline doctor shows the nodes)"
    return f"write {' or '.join(slow)} (thermocline doctor shows the nodes)"
