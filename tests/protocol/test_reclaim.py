"""Reclaim: ageing, the second pass, kswapd, and what stays."""

from __future__ import annotations

import pytest
from machines import FILE, at_rest, counts, held, lock_forever, machine, nodes, read, states, write

from thermocline.check.layout import Extent, Place
from thermocline.check.machine import Machine
from thermocline.protocol.migrate import DESIGNS
from thermocline.protocol.page import array_column
from thermocline.protocol.reclaim import DEF_PRIORITY, kswapd, reclaim_pages, shrink_node
from thermocline.protocol.scan_control import Cause

DESIGN = pytest.mark.parametrize("design", DESIGNS)


def start_kswapd(made: Machine, node: int = 0) -> None:
    made.spawn(f"kswapd {node}", kswapd(made.mm, made.nodes[node]))
    made.settle()


@DESIGN
def test_the_page_that_came_first_goes_first(design: str) -> None:
    made = machine(8, 4, design=design)
    write(made, 0, 1, 2, 3, 4, 5)
    assert held(made, 1) == [0, 1]


def test_active_pages_are_reclaimed_after_inactive_ones_and_only_when_those_run_low() -> None:
    made = machine(8, 4)
    write(made, 0, 1, 2, 3)
    made.mm.lru_add(0, active=True)
    write(made, 4, 5, 6)
    assert held(made, 1) == [1, 2, 3]
    assert states(made)[0] == "RESIDENT"


def test_a_referenced_page_gets_another_round_on_either_list() -> None:
    made = machine(8, 4)
    write(made, 0, 1, 2)
    made.mm.links.referenced[0] = 1
    made.run(shrink_node(made.mm, made.nodes[0], Cause.DIRECT))
    lruvec = made.mm.lruvec(0, 0)
    assert (list(lruvec.active), held(made, 1), made.vmstat["pgactivate"]) == ([0], [1], 1)
    assert made.mm.links.referenced[0] == 0, "the next round counts anew"
    for page in (0, 2):
        made.mm.lru_add(page, active=True)
    made.mm.links.referenced[0] = 1
    made.run(shrink_node(made.mm, made.nodes[0], Cause.DIRECT))
    assert held(made, 1) == [1, 2], "of two active pages the referenced one stays"
    at_rest(made)


def test_where_touches_are_seen_it_takes_two_looks_to_become_active() -> None:
    made = machine(8, 4)
    write(made, 0, 1, 2)
    links, lruvec = made.mm.links, made.mm.lruvec(0, 0)
    links.accessed = array_column("B", 8)
    links.accessed[0] = 1
    made.run(shrink_node(made.mm, made.nodes[0], Cause.DIRECT))
    assert (list(lruvec.inactive), list(lruvec.active), held(made, 1)) == ([0, 2], [], [1])
    assert (links.accessed[0], links.referenced[0]) == (0, 1)
    links.accessed[0] = 1
    made.run(shrink_node(made.mm, made.nodes[0], Cause.DIRECT))
    assert held(made, 1) == [1, 2], "it had another round"
    assert not made.vmstat["pgactivate"]
    made.run(shrink_node(made.mm, made.nodes[0], Cause.DIRECT))
    assert (made.vmstat["pgactivate"], made.vmstat["pgdeactivate"]) == (1, 1), "and where nothing else is left, it goes"
    at_rest(made)


def test_a_round_that_looks_at_the_whole_list_ends_when_enough_is_reclaimed() -> None:
    """Most pages are in use, so it comes to that round; those that are not, beyond the cluster asked for, stay."""
    made = machine(20, 16)
    write(made, *range(12))
    links = made.mm.links
    links.accessed = array_column("B", 20)
    for page in range(8):
        links.accessed[page] = 1
    assert made.run(shrink_node(made.mm, made.nodes[0], Cause.DIRECT)) == 2
    assert held(made, 1) == [8, 9]
    at_rest(made)


def test_where_touches_are_seen_active_pages_grow_old_whether_they_were_touched_or_not() -> None:
    made = machine(8, 4)
    write(made, 0, 1, 2)
    links = made.mm.links
    links.accessed = array_column("B", 8)
    for page in (0, 1, 2):
        made.mm.lru_add(page, active=True)
    links.accessed[0] = 1
    made.run(shrink_node(made.mm, made.nodes[0], Cause.DIRECT))
    assert held(made, 1) == [0]
    assert made.vmstat["pgdeactivate"] == 3
    assert list(links.accessed) == [0] * 8


@DESIGN
def test_pinned_pages_stay(design: str) -> None:
    made = machine(6, 3, design=design)
    write(made, 0, 1, 2)
    made.table.pins[0] = 1
    write(made, 3, 4)
    assert states(made)[0] == "RESIDENT"
    assert made.run(reclaim_pages(made.mm, [0])) == 0
    at_rest(made)


@DESIGN
def test_when_demotion_fails_a_clean_page_of_a_file_is_dropped_and_nothing_else(design: str) -> None:
    """The second pass: its file has the page, so it need not be demoted; a page that is nowhere else stays."""
    made = machine(6, 3, Place("file", 1), design=design, extents=(Extent(0, 3), Extent(3, 3, source=True)))
    write(made, 0, 1)  # one of them goes down and fills the file
    read(made, 3)
    made.run(reclaim_pages(made.mm, [0]))
    assert held(made, 1) == [0]
    write(made, 4)
    assert states(made)[:5] == ["SLOTTED", "RESIDENT", "EMPTY", "SHADOWED", "RESIDENT"]
    assert made.run(reclaim_pages(made.mm, [1, 3, 4])) == 1
    at_rest(made)
    assert states(made)[:5] == ["SLOTTED", "RESIDENT", "EMPTY", "SLOTTED", "RESIDENT"]
    assert nodes(made)[3] == made.layout.source
    assert made.vmstat["pgdiscard"] == 1
    read(made, 3)


@DESIGN
@pytest.mark.parametrize("discard", [False, True])
def test_clean_pages_of_a_file_demote_or_are_discarded_as_the_user_chose(design: str, discard: bool) -> None:
    made = machine(4, 4, design=design, extents=(Extent(0, 4, source=True),), discard_clean=discard)
    read(made, 0)
    write(made, 1)
    assert made.run(reclaim_pages(made.mm, [0, 1])) == 2
    at_rest(made)
    dropped = discard or DESIGNS[design].drops_clean
    assert held(made, 1) == ([1] if dropped else [0, 1])
    assert made.vmstat["pgdiscard"] == dropped
    read(made, 0, 1)


@DESIGN
def test_kswapd_reclaims_up_to_the_high_watermark_and_sleeps_again(design: str) -> None:
    made = machine(12, 10, Place("file", 12), design=design)
    write(made, *range(7))
    start_kswapd(made)
    assert made.vmstat["kswapd_wakeups"] == 0
    write(made, 7)
    high = made.nodes[0].watermarks.high
    assert high <= made.nodes[0].free < high + 2 * 64
    assert made.vmstat["pgdemote_kswapd"] == made.vmstat["pgsteal_kswapd"] > 0
    assert (made.vmstat["pgdemote_direct"], made.vmstat["allocstall"]) == (0, 0)
    assert 0 in made.kswapd_asleep


def test_kswapd_of_a_node_in_which_nothing_can_move_sleeps() -> None:
    made = machine(4, 2, Place("file", 1))
    start_kswapd(made)
    write(made, 0, 1, 2)
    made.kswapd_wanted.add(0)
    at_rest(made)


def test_kswapd_of_a_failed_node_does_nothing() -> None:
    made = machine(4, 2, Place("zstd", 2), FILE)
    write(made, 0, 1, 2, 3)
    made.nodes[1].failed = True
    start_kswapd(made, 1)
    assert held(made, 1) == [0, 1]


def test_kswapd_of_each_node_sends_its_pages_one_node_down() -> None:
    made = machine(8, 2, Place("zstd", 2), FILE)
    start_kswapd(made, 0)
    start_kswapd(made, 1)
    for page in range(8):
        write(made, page)
    assert made.vmstat["pgdemote_kswapd"] > 4
    assert len(held(made, 1)) >= 1
    assert len(held(made, 2)) >= 5


def test_a_locked_page_is_put_back() -> None:
    made = machine(4, 3)
    write(made, 0, 1)
    lock_forever(made, 0)
    assert made.run(reclaim_pages(made.mm, [0, 1])) == 1
    del made.owners[0]
    at_rest(made)


def test_cold_advice_ignores_that_a_page_was_referenced() -> None:
    made = machine(4, 3)
    write(made, 0)
    made.mm.links.referenced[0] = 1
    assert made.run(reclaim_pages(made.mm, [0])) == 1
    assert made.vmstat["pgdemote_proactive"] == 1


def test_scans_and_steals_are_counted_by_cause() -> None:
    made = machine(4, 4)
    write(made, 0, 1)
    made.run(shrink_node(made.mm, made.nodes[0], Cause.DIRECT))
    made.run(shrink_node(made.mm, made.nodes[0], Cause.KSWAPD))
    for what in ("pgscan", "pgsteal", "pgdemote"):
        assert made.vmstat[f"{what}_direct"] == made.vmstat[f"{what}_kswapd"] == 1


@DESIGN
def test_when_all_nodes_are_full_a_page_that_cannot_go_costs_a_look_and_no_search_of_all_below(design: str) -> None:
    below = [Place(name, 8) for name in ("lz4", "zstd", "file")]
    made = machine(32, 8, *below, design=design)
    write(made, *range(32))
    before = counts(made).get("pgscan_direct", 0)
    assert made.run(shrink_node(made.mm, made.nodes[0], Cause.DIRECT)) == 0
    rounds = DEF_PRIORITY // 4 + 1
    assert counts(made)["pgscan_direct"] - before <= 8 * rounds
    at_rest(made)
