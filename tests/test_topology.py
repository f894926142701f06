"""The machine's memory nodes, read from a sysfs of our own making, and the order of demotion that follows from them."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from thermocline.budget import auto_spec
from thermocline.errors import SpecError
from thermocline.protocol.demotion import DemotionPath
from thermocline.spec import Dram, NodeSpec, Numa, format_spec, parse_spec
from thermocline.topology import MemoryNode, Topology, parse_list

GIB = 1 << 30
MIB = 1 << 20


def node(
    index: int, tier: int, distance: dict[int, int], *, size: int = 4 * GIB, processors: bool = True
) -> MemoryNode:
    return MemoryNode(index, size, size, processors, distance, tier)


def machine(*nodes: MemoryNode, allowed: set[int] | None = None, bound: set[int] | None = None) -> Topology:
    return Topology(
        {each.index: each for each in nodes},
        None if allowed is None else frozenset(allowed),
        None if bound is None else frozenset(bound),
        True,
    )


#: Two sockets, each with slow memory of its own, and a third kind of memory behind both.
TWO_SOCKETS = machine(
    node(0, 4, {0: 10, 1: 20, 2: 17, 3: 28, 4: 40}),
    node(1, 4, {0: 20, 1: 10, 2: 28, 3: 17, 4: 40}),
    node(2, 22, {0: 17, 1: 28, 2: 10, 3: 28, 4: 40}, processors=False),
    node(3, 22, {0: 28, 1: 17, 2: 28, 3: 10, 4: 40}, processors=False),
    node(4, 30, {0: 40, 1: 40, 2: 40, 3: 40, 4: 10}, processors=False),
)


def test_each_node_demotes_to_the_nearest_of_the_next_tier_and_several_share_a_target() -> None:
    assert [TWO_SOCKETS.targets(index) for index in range(5)] == [[2], [3], [4], [4], []]


def test_two_nodes_of_a_tier_at_the_same_distance_are_both_targets() -> None:
    made = machine(node(0, 4, {0: 10, 1: 20, 2: 20}), node(1, 9, {1: 10}), node(2, 9, {2: 10}))
    assert made.targets(0) == [1, 2]


def test_a_node_that_this_process_may_not_use_is_no_target() -> None:
    made = machine(*TWO_SOCKETS.nodes.values(), allowed={0, 1, 3, 4})
    assert made.targets(0) == [3]
    assert made.demotion_order() == [3, 4]


def test_slow_nodes_come_tier_by_tier_and_the_nearest_first() -> None:
    made = machine(
        node(0, 4, {0: 10, 1: 40, 2: 20, 3: 15}), node(1, 9, {}), node(2, 9, {}), node(3, 22, {}, processors=False)
    )
    assert made.demotion_order() == [2, 1, 3]


@st.composite
def machines(draw: st.DrawFn) -> Topology:
    count = draw(st.integers(1, 8))
    return machine(
        *(
            node(
                index,
                draw(st.integers(0, 4)),
                {other: draw(st.integers(10, 254)) for other in range(count)},
                size=draw(st.sampled_from([0, GIB])),
            )
            for index in range(count)
        )
    )


@given(machines())
def test_the_order_of_demotion_is_acyclic_whatever_the_machine_says(made: Topology) -> None:
    for start in made.nodes:
        for choice in range(2):
            path = DemotionPath()
            seen, here = [start], start
            while targets := made.targets(here):
                path.demote_to(here, targets[min(choice, len(targets) - 1)])
                here = targets[min(choice, len(targets) - 1)]
                assert here not in seen
                seen.append(here)


@given(machines())
def test_what_demotes_goes_to_a_slower_tier_with_memory(made: Topology) -> None:
    for source in made.nodes.values():
        for target in made.targets(source.index):
            assert made.nodes[target].tier > source.tier
            assert made.nodes[target].size


class TestSysfs:
    def write(self, root: Path, *, tiers: bool = True, numa_maps: str = "", allowed: str = "0-1") -> Topology:
        directory = root / "sys/devices/system/node"
        for index, (cpus, size, row) in enumerate([("0-1", 2048, "10 20"), ("", 1024, "20 10")]):
            (directory / f"node{index}").mkdir(parents=True)
            (directory / f"node{index}/cpulist").write_text(f"{cpus}\n")
            (directory / f"node{index}/distance").write_text(f"{row}\n")
            text = f"Node {index} MemTotal:  {size} kB\nNode {index} MemFree:  512 kB\n"
            (directory / f"node{index}/meminfo").write_text(text)
        (directory / "online").write_text("0-1\n")
        if tiers:
            for tier, nodes in [(4, "0"), (22, "1")]:
                (root / f"sys/devices/virtual/memory_tiering/memory_tier{tier}").mkdir(parents=True)
                (root / f"sys/devices/virtual/memory_tiering/memory_tier{tier}/nodelist").write_text(f"{nodes}\n")
        (root / "proc/self").mkdir(parents=True)
        (root / "proc/self/status").write_text(f"Name:\tx\nMems_allowed_list:\t{allowed}\n")
        (root / "proc/self/numa_maps").write_text(numa_maps)
        return Topology.read(root / "sys", root / "proc")

    def test_nodes_tiers_and_distances_are_read(self, tmp_path: Path) -> None:
        made = self.write(tmp_path)
        assert made.nodes[1] == MemoryNode(1, 1 << 20, 512 << 10, False, {0: 20, 1: 10}, 22)
        assert (made.fast, made.demotion_order()) == ([0], [1])

    def test_a_kernel_without_tiers_has_those_of_processors(self, tmp_path: Path) -> None:
        made = self.write(tmp_path, tiers=False)
        assert not made.tiers_known
        assert made.targets(0) == [1]

    def test_a_cpuset_takes_nodes_away(self, tmp_path: Path) -> None:
        assert self.write(tmp_path, allowed="0").demotion_order() == []

    def test_a_memory_policy_takes_nodes_away(self, tmp_path: Path) -> None:
        policy = "55a2e000 bind:0 file=/usr/bin/python3 mapped=2\n55a2f000 default\n"
        assert self.write(tmp_path, numa_maps=policy).bound == {0}

    @pytest.mark.parametrize("policy", ["55a2e000 default anon=1\n", "55a2e000 interleave:0-1 anon=1\n", ""])
    def test_other_policies_take_nothing_away(self, policy: str, tmp_path: Path) -> None:
        assert self.write(tmp_path, numa_maps=policy).bound is None

    def test_a_kernel_without_numa_has_no_nodes(self, tmp_path: Path) -> None:
        assert Topology.read(tmp_path, tmp_path) == Topology()


def test_lists_of_the_kernel() -> None:
    assert parse_list("0-2,5\n") == [0, 1, 2, 5]
    assert parse_list("\n") == []


class TestSpec:
    def nodes(self, text: str, made: Topology = TWO_SOCKETS) -> tuple[NodeSpec, ...]:
        return parse_spec(text, limit=lambda: None, topology=lambda: made)

    def test_slow_nodes_are_named_by_their_number(self) -> None:
        dram, near, far, zstd = self.nodes("dram=4MiB, numa:2=8MiB, numa:4=8MiB, zstd=4MiB")
        assert (dram, near, far) == (Dram(4 * MIB), Numa(2, 8 * MIB), Numa(4, 8 * MIB))
        assert [spec.is_mapped for spec in (dram, near, far, zstd)] == [True, True, True, False]

    def test_dram_may_be_tied_to_a_node(self) -> None:
        assert self.nodes("dram@1=4MiB, numa:3=8MiB") == (Dram(4 * MIB, 1), Numa(3, 8 * MIB))

    def test_a_spec_with_nodes_reads_back(self) -> None:
        nodes = self.nodes("dram@1=4MiB, numa:3=8MiB, zstd=4MiB")
        assert self.nodes(format_spec(nodes)) == nodes

    @pytest.mark.parametrize(
        ("text", "says"),
        [
            ("dram=4MiB, numa:9=8MiB", "there is no memory node 9 online (there is 0, 1, 2, 3, 4)"),
            ("dram@9=4MiB", '"dram@9": there is no memory node 9'),
            ("dram=4MiB, numa:2=8GiB", '"numa:2=8 GiB" is more than memory node 2 has (4 GiB)'),
            ("dram@2=4MiB, numa:0=8MiB", "is faster than memory node 2 above it (tiers 4 and 22)"),
            ("dram=4MiB, numa:4=8MiB, numa:2=8MiB", "is faster than memory node 4 above it"),
            ("dram@2=4MiB, numa:2=8MiB", "are the same memory"),
            ("dram=4MiB, numa:2=8MiB, numa:2=8MiB", "is there twice"),
            ("dram=4MiB, numa:0=8MiB, numa:1=8MiB", "would leave no memory node for dram"),
            ("dram=4MiB, zstd=4MiB, numa:2=8MiB", 'write "numa:2" before it'),
            ("dram=4MiB, numa=8MiB", 'write for example "numa:1=8MiB"'),
            ("dram=4MiB, numa:two=8MiB", "names no memory node by its number"),
            ("dram@=4MiB", 'write for example "dram@0=4MiB"'),
            ("dram=4MiB, zstd@2=4MiB", 'write "zstd=4MiB", or "numa:2=4MiB"'),
            ("dram=4MiB, numa:2=8MiB;incompressible=store", "takes no options"),
            ("dram=4MiB, numa:2=64KiB", "below the minimum"),
        ],
    )
    def test_nodes_that_cannot_be_are_refused_with_what_to_write(self, text: str, says: str) -> None:
        with pytest.raises(SpecError) as refused:
            self.nodes(text)
        assert says in str(refused.value)
        assert "\n" not in str(refused.value)

    def test_a_node_without_memory_is_refused(self) -> None:
        made = machine(node(0, 4, {}), node(1, 22, {}, size=0))
        with pytest.raises(SpecError, match="has processors and no memory"):
            self.nodes("dram=4MiB, numa:1=8MiB", made)

    def test_a_node_that_the_cpuset_forbids_is_refused(self) -> None:
        made = machine(*TWO_SOCKETS.nodes.values(), allowed={0, 1, 3})
        with pytest.raises(SpecError, match=r"cpuset of this process forbids memory node 2 .* write numa:3"):
            self.nodes("dram=4MiB, numa:2=8MiB", made)

    def test_a_node_that_the_memory_policy_forbids_is_refused(self) -> None:
        made = machine(*TWO_SOCKETS.nodes.values(), bound={0})
        with pytest.raises(SpecError, match="without numactl --membind"):
            self.nodes("dram=4MiB, numa:2=8MiB", made)

    def test_the_machine_is_asked_only_if_a_node_of_it_is_named(self) -> None:
        def asked() -> Topology:
            raise AssertionError

        parse_spec("dram=4MiB, zstd=4MiB", limit=lambda: None, topology=asked)


class TestAuto:
    def auto(self, made: Topology, limit: int | None = None) -> tuple[NodeSpec, ...]:
        return auto_spec(limit=lambda: limit, topology=lambda: made)

    def test_half_of_the_fast_nodes_and_half_of_each_slow_one_in_their_order(self) -> None:
        dram, *slow = self.auto(TWO_SOCKETS)[:4]
        assert dram == Dram(4 * GIB)
        assert slow == [Numa(2, 2 * GIB), Numa(3, 2 * GIB), Numa(4, 2 * GIB)]

    def test_a_container_pays_for_slow_memory_too(self) -> None:
        nodes = self.auto(TWO_SOCKETS, GIB)
        assert nodes[0] == Dram(GIB // 2)
        assert sum(spec.capacity for spec in nodes if spec.in_memory) <= GIB

    def test_what_it_says_can_be_built(self) -> None:
        text = format_spec(spec for spec in self.auto(TWO_SOCKETS) if spec.in_memory)
        parse_spec(text, limit=lambda: None, topology=lambda: TWO_SOCKETS)

    def test_without_slow_nodes_there_are_none_in_it(self) -> None:
        assert not any(isinstance(spec, Numa) for spec in self.auto(machine(node(0, 4, {0: 10}))))

    def test_a_machine_that_says_nothing_asks_for_nodes(self) -> None:
        with pytest.raises(SpecError, match="write the nodes"):
            self.auto(Topology())
