"""Faults on a page in every state, reading and writing; shadows; lost pages; readahead."""

from __future__ import annotations

import pytest
from machines import DISK, FILE, at_rest, counts, held, is_lost, lock_forever, machine, read, states, watched, write

from thermocline.check.layout import Extent, Place
from thermocline.check.machine import Machine
from thermocline.protocol.effects import Commit, Effect, Release, Remap
from thermocline.protocol.fault import fault, read_ahead
from thermocline.protocol.page import POISONED
from thermocline.protocol.reclaim import SWAP_CLUSTER_MAX, reclaim_pages, shrink_node
from thermocline.protocol.region import Advice
from thermocline.protocol.scan_control import Cause


def in_state(state: str) -> Machine:
    """A machine whose page 0 is in a state, and was written to unless that is impossible."""
    made = machine(2, 2)
    if state != "EMPTY":
        write(made, 0)
    if state in ("SLOTTED", "SHADOWED"):
        made.run(reclaim_pages(made.mm, [0]))
    if state == "SHADOWED":
        read(made, 0)
    if state == "POISONED":
        made.run(reclaim_pages(made.mm, [0]))
        made.failing_fills = {0}
        assert is_lost(made, 0)
    assert states(made)[0] == state
    return made


@pytest.mark.parametrize("write_", [False, True], ids=["read", "write"])
@pytest.mark.parametrize("state", ["EMPTY", "SLOTTED", "RESIDENT", "SHADOWED"])
def test_a_page_in_any_state_can_be_read_and_written(state: str, write_: bool) -> None:
    made = in_state(state)
    write(made, 0) if write_ else read(made, 0)
    shadow = state in ("SLOTTED", "SHADOWED") and not write_
    assert states(made)[0] == ("SHADOWED" if shadow else "RESIDENT")
    assert held(made, 1) == ([0] if shadow else [])
    made.run(reclaim_pages(made.mm, [0]))
    read(made, 0)


@pytest.mark.parametrize("write_", [False, True], ids=["read", "write"])
@pytest.mark.parametrize("state", ["EMPTY", "SLOTTED", "RESIDENT", "SHADOWED", "POISONED"])
def test_a_message_that_came_late_does_no_harm(state: str, write_: bool) -> None:
    """Whoever sent it may have been answered by then, or killed."""
    made = in_state(state)
    made.run(fault(made.mm, 0, write_))
    at_rest(made)
    if state == "POISONED":
        assert is_lost(made, 0)
    else:
        read(made, 0)
        write(made, 0)


def test_a_page_that_nobody_has_allocated_is_poisoned() -> None:
    made = machine(2, 2, extents=(Extent(0, 1),))
    assert is_lost(made, 1)
    assert states(made) == ["EMPTY", "EMPTY"]
    assert made.nodes[0].used == 0


def test_the_first_write_drops_the_shadow_before_the_page_becomes_writable() -> None:
    made = in_state("SHADOWED")
    seen: list[Effect] = []
    made.run(watched(fault(made.mm, 0, True), seen))
    steps = [type(effect) for effect in seen]
    assert steps.index(Commit) < steps.index(Release) < steps.index(Remap)
    assert counts(made)["shadow_dropped"] == 1
    assert held(made, 1) == []


def test_a_clean_page_demotes_without_a_copy() -> None:
    made = in_state("SHADOWED")
    made.failing_copies = {0}  # it would fail if it were tried
    assert made.run(reclaim_pages(made.mm, [0])) == 1
    assert states(made)[0] == "SLOTTED"
    assert made.vmstat["pgdemote_proactive"] == 2
    made.failing_copies = set()
    at_rest(made)
    read(made, 0)


def test_a_page_keeps_no_shadow_in_a_node_that_is_short_of_room() -> None:
    made = machine(4, 1, Place("zstd", 2), FILE)
    write(made, 0, 1, 2)  # zstd holds 0 and 1, and is full
    read(made, 0)
    assert states(made)[0] == "RESIDENT"
    assert "shadow_kept" not in counts(made)


def test_shadows_are_the_first_that_a_full_node_gives_up() -> None:
    made = machine(4, 2, Place("zstd", 3), FILE)
    write(made, 0, 1, 2)
    read(made, 0)
    assert states(made)[0] == "SHADOWED"
    assert made.run(shrink_node(made.mm, made.nodes[1], Cause.DIRECT)) == 1
    assert (states(made)[0], held(made, 2)) == ("RESIDENT", [])
    at_rest(made)
    write(made, 0)


def test_the_youngest_shadows_go_first() -> None:
    """Pages that came up long ago go down soon, and for nothing if they have one."""
    pages = SWAP_CLUSTER_MAX + 4
    made = machine(pages, pages, Place("zstd", 2 * pages), FILE)
    write(made, *range(pages))
    made.run(reclaim_pages(made.mm, range(pages)))
    read(made, *range(pages))
    assert set(states(made)) == {"SHADOWED"}
    assert made.run(shrink_node(made.mm, made.nodes[1], Cause.DIRECT)) == SWAP_CLUSTER_MAX
    assert states(made) == ["SHADOWED"] * 4 + ["RESIDENT"] * SWAP_CLUSTER_MAX


def test_counters_of_faults() -> None:
    made = machine(2, 2)
    write(made, 0)
    assert (made.vmstat["pgfault"], made.vmstat["pgmajfault"]) == (1, 0)
    made.run(reclaim_pages(made.mm, [0]))
    read(made, 0)
    assert (made.vmstat["pgfault"], made.vmstat["pgmajfault"], made.vmstat["pgpromote_success"]) == (2, 1, 1)
    write(made, 0)
    assert (made.vmstat["pgfault"], made.vmstat["pgfault_write_protect"]) == (3, 1)


def test_a_page_that_comes_back_soon_is_active() -> None:
    made = machine(6, 4)
    write(made, 0, 1, 2, 3)
    for page in (1, 2):
        made.mm.lru_add(page, active=True)
    made.run(reclaim_pages(made.mm, [0]))
    read(made, 0)
    assert 0 in list(made.mm.lruvec(0, 0).active)
    assert (made.vmstat["workingset_refault"], made.vmstat["workingset_activate"]) == (1, 1)


def test_a_page_that_cannot_be_read_is_lost_alone_and_gives_its_room_back() -> None:
    made = machine(4, 3)
    write(made, 0, 1, 2)
    made.run(reclaim_pages(made.mm, [0, 1, 2]))
    made.failing_fills = {1}
    assert made.run(read_ahead(made.mm, range(3), False)) == 3
    assert states(made) == ["SHADOWED", "POISONED", "SHADOWED", "EMPTY"]
    assert made.vmstat["poisoned_pages"] == 1
    assert held(made, 1) == [0, 2]
    at_rest(made)
    assert is_lost(made, 1)
    read(made, 0, 2)
    assert made.entry(1).state == POISONED


def test_readahead_brings_a_stream_in_runs_and_counts_pages() -> None:
    made = machine(24, 16, Place("file", 24), readahead_pages=8)
    for page in range(8):
        write(made, page)
    made.run(reclaim_pages(made.mm, list(range(8))))
    faults = made.vmstat["pgfault"]
    read(made, *range(8))
    assert made.vmstat["pgfault"] - faults < 8
    assert made.vmstat["readahead_pages"] >= 3
    assert states(made)[:8] == ["SHADOWED"] * 8


def test_readahead_skips_what_somebody_is_busy_with_and_what_is_there() -> None:
    made = machine(6, 6, DISK)
    write(made, 0, 1, 2, 3)
    made.run(reclaim_pages(made.mm, [0, 1, 3]))
    lock_forever(made, 1)
    assert made.run(read_ahead(made.mm, range(4), False), "readahead") == 2
    assert states(made)[:4] == ["SHADOWED", "SLOTTED", "RESIDENT", "SHADOWED"]


def test_readahead_stops_where_there_is_no_room() -> None:
    made = machine(3, 1, Place("file", 2))
    write(made, 0, 1, 2)
    assert made.run(read_ahead(made.mm, range(2), False)) == 0
    at_rest(made)
    read(made, 2)


def test_random_advice_reads_nothing_ahead_and_sequential_advice_at_once() -> None:
    windows = []
    for advice in (Advice.RANDOM, Advice.NORMAL, Advice.SEQUENTIAL):
        made = machine(16, 16, extents=(Extent(0, 16, advice=advice),), readahead_pages=4)
        write(made, 0)
        first = made.vmstat["readahead_pages"]
        if not first:
            write(made, 1)
        windows.append((first, made.vmstat["readahead_pages"]))
    assert windows == [(0, 0), (0, 2), (2, 2)]


def test_a_window_ends_with_its_array() -> None:
    made = machine(20, 16, extents=(Extent(0, 3), Extent(3, 17)), readahead_pages=4)
    write(made, 0, 1)
    assert states(made)[:5] == ["RESIDENT"] * 3 + ["EMPTY"] * 2


def test_backwards_readahead_ends_at_the_first_page() -> None:
    made = machine(20, 16, extents=(Extent(0, 4), Extent(4, 16)), readahead_pages=8)
    write(made, 6, 5, 4)
    assert states(made)[:7] == ["EMPTY"] * 4 + ["RESIDENT"] * 3


def test_a_run_of_zeros_and_bytes_is_filled_in_one() -> None:
    made = machine(4, 4)
    write(made, 1)
    made.run(reclaim_pages(made.mm, [1]))
    assert made.run(read_ahead(made.mm, range(3), False)) == 3
    at_rest(made)
    read(made, 0, 1, 2)
    write(made, 0, 1, 2)
    read(made, 0, 1, 2)
