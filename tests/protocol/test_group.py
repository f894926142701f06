"""Groups: what is charged to them, and what reclaim is credited with."""

from __future__ import annotations

import pytest
from machines import FILE, at_rest, held, lock_forever, machine, read, states, write

from thermocline.check.layout import Extent, Limits, Place
from thermocline.check.program import touch
from thermocline.protocol.group import Group, GroupReclaim
from thermocline.protocol.migrate import DESIGNS
from thermocline.protocol.node import Kind, Node
from thermocline.protocol.reclaim import reclaim_pages, shrink_group
from thermocline.protocol.region import free_region

DRAM = Node(0, "dram", Kind.MAPPED, 100, 10)
ZSTD = Node(1, "zstd", Kind.UNMAPPED, 100, 12)
DISK = Node(2, "file", Kind.UNMAPPED, 100, 10, charged_to_memory=False)


def test_the_total_counts_ram_of_any_kind_and_no_disk() -> None:
    group = Group(1, "etl", 3)
    for node in (DRAM, ZSTD, DISK):
        group.charge(node, 10)
    assert (group.used, group.memory, group.peak_dram) == ([10, 10, 10], 20, 10)
    group.uncharge(DRAM, 10)
    assert (group.memory, group.peak_dram) == (10, 10)


@pytest.mark.parametrize(
    ("limits", "excess"),
    [
        ({}, 0),
        ({"dram_limit": 30}, 0),
        ({"dram_limit": 29}, 1),
        ({"memory_limit": 50}, 0),
        ({"memory_limit": 45}, 5),
        ({"dram_limit": 29, "memory_limit": 45}, 5),
        ({"dram_limit": 20, "memory_limit": 45}, 10),
    ],
)
def test_excess_is_what_the_tighter_limit_lacks_for_one_more_frame(limits: dict[str, int], excess: int) -> None:
    group = Group(1, "etl", 3, **limits)
    group.charge(DRAM, 20)
    group.charge(ZSTD, 20)
    assert group.excess(10) == excess


ZRAM = Place("zstd", 8, slot_bytes=72, packed=32)


#: `discard` has no use for memory that is compressed: it sends pages past it.
@pytest.mark.parametrize("design", sorted(set(DESIGNS) - {"discard"}))
def test_demoted_is_not_freed(design: str) -> None:
    """Two pages of RAM for a group of five pages: compressing three of them frees half of each only."""
    made = machine(
        6, 6, ZRAM, FILE, design=design, extents=(Extent(0, 5, group=1), Extent(5, 1)), groups=(Limits(1, memory=2),)
    )
    write(made, 0, 1, 2, 3, 4)
    group = made.mm.groups[1]
    assert group.memory == group.used[0] + group.used[1] <= 2 * 64
    assert held(made, 2), "compressed memory alone cannot bring a group below its limit"
    read(made, 0, 1, 2, 3, 4)
    assert group.memory <= 2 * 64


def test_a_dram_limit_is_met_by_compressing() -> None:
    made = machine(4, 4, ZRAM, FILE, extents=(Extent(0, 4, group=1),), groups=(Limits(1, dram=1),))
    write(made, 0, 1, 2, 3)
    assert made.mm.groups[1].used == [64, 96, 0, 0]
    assert held(made, 2) == []


def test_a_dram_limit_that_cannot_be_met_now_is_no_reason_to_leave_compressed_memory() -> None:
    """Other tasks have the group's pages in DRAM; what is compressed weighs nothing on a limit on DRAM."""
    made = machine(4, 4, ZRAM, FILE, extents=(Extent(0, 4, group=1),), groups=(Limits(1, dram=1),))
    write(made, 0, 1, 2, 3)
    lock_forever(made, states(made).index("RESIDENT"))
    assert made.run(shrink_group(made.mm, made.mm.groups[1], 64)) == 0
    assert held(made, 2) == []


def test_a_group_reclaims_its_own_pages_only() -> None:
    made = machine(4, 4, extents=(Extent(0, 2, group=1), Extent(2, 2)), groups=(Limits(1, dram=1),))
    write(made, 2, 3, 0, 1)
    assert states(made) == ["SLOTTED", "RESIDENT", "RESIDENT", "RESIDENT"]
    assert made.vmstat["group_reclaim"] == 1


def test_a_group_that_cannot_shrink_says_so() -> None:
    made = machine(2, 2, Place("file", 1), extents=(Extent(0, 2, group=1),), groups=(Limits(1, dram=2),))
    write(made, 0, 1)
    made.failing_copies = {0, 1}
    group = made.mm.groups[1]
    assert made.run(shrink_group(made.mm, group, 64)) == 0
    made.failing_copies = set()
    assert made.run(shrink_group(made.mm, group, 64)) == 64
    at_rest(made)


def test_demoted_was_once_taken_for_freed() -> None:
    """As in Linux 5.19: the group passes its limit on the total, page by page, and reclaim finds that it did well."""
    made = machine(
        6, 6, Place("zstd", 8, slot_bytes=72, packed=60), FILE, group_reclaim=GroupReclaim.DEMOTED,
        extents=(Extent(0, 5, group=1), Extent(5, 1)), groups=(Limits(1, memory=2),),
    )  # fmt: skip
    group = made.mm.groups[1]
    for page in range(5):
        touch(made, page, write=True)
    assert group.memory > 2 * 64
    assert group.excess(0) > 0
    assert made.vmstat["allocthrottle"] == 0


def test_what_was_demoted_still_has_to_leave_dram() -> None:
    made = machine(
        4, 4, ZRAM, FILE, group_reclaim=GroupReclaim.DEMOTED,
        extents=(Extent(0, 4, group=1),), groups=(Limits(1, dram=1),),
    )  # fmt: skip
    write(made, 0, 1, 2, 3)
    assert made.mm.groups[1].used == [64, 96, 0, 0]


def test_a_group_once_skipped_the_tiers_of_memory() -> None:
    """As in Linux 5.15: what the group sends away is further off than what a shortage of all would send away."""
    made = machine(
        5, 3, ZRAM, FILE, group_reclaim=GroupReclaim.NEVER,
        extents=(Extent(0, 3, group=1), Extent(3, 2)), groups=(Limits(1, dram=2),),
    )  # fmt: skip
    write(made, 0, 1, 2)
    assert (held(made, 1), held(made, 2)) == ([], [0])
    write(made, 3, 4)
    assert held(made, 1), "global reclaim demotes to memory as ever"
    assert held(made, 2) == [0]
    read(made, 0, 1, 2)


def test_a_group_that_may_not_demote_to_memory_and_has_nothing_else_keeps_its_pages() -> None:
    made = machine(
        3, 3, ZRAM, group_reclaim=GroupReclaim.NEVER, extents=(Extent(0, 3, group=1),), groups=(Limits(1, dram=3),)
    )
    write(made, 0, 1, 2)
    assert made.run(shrink_group(made.mm, made.mm.groups[1], 64)) == 0
    at_rest(made)


@pytest.mark.parametrize("limit", ["dram", "memory"])
def test_a_group_whose_pages_have_nowhere_to_go_passes_its_limit(limit: str) -> None:
    """The file is full of other groups' pages. There is room in DRAM, and nobody is to die for a limit."""
    made = machine(
        6, 6, Place("file", 2, charged_to_memory=False),
        extents=(Extent(0, 2), Extent(2, 4, group=1)), groups=(Limits(1, **{limit: 2}),),
    )  # fmt: skip
    write(made, 0, 1)
    made.run(reclaim_pages(made.mm, [0, 1]))
    assert held(made, 1) == [0, 1]
    write(made, 2, 3, 4, 5)
    assert states(made)[2:] == ["RESIDENT"] * 4
    assert made.vmstat["group_over_limit"] == 2
    assert made.vmstat["allocthrottle"] == 0
    made.dying.update([0, 1])
    made.run(free_region(made.mm, made.regions[1]))
    made.run(shrink_group(made.mm, made.mm.groups[1], 3 * 64))
    assert made.mm.groups[1].used[0] == 2 * 64, "and it comes back when there is room"
