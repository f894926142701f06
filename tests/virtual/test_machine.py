"""The facade: how a memory is laid out, and what is refused."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from virtual_memories import COSTS, PAGE, at_rest, dram, file, memory, reads, writes, zstd

from thermocline.errors import SpecError
from thermocline.protocol.page import EMPTY, POISONED, RESIDENT, SLOTTED
from thermocline.spec import Compressed, Dram, File, parse_spec
from thermocline.virtual.machine import VirtualMemory

# -- what is refused --------------------------------------------------------------------------------------------------


def test_an_unknown_design() -> None:
    with pytest.raises(SpecError, match="deferred"):
        memory(design="magic")


def test_a_node_that_nobody_knows_the_costs_of() -> None:
    with pytest.raises(SpecError, match=r'no stores\.lz4, which "lz4" needs'):
        memory(dram(), Compressed(32 * PAGE, "lz4"), costs=replace(COSTS, stores={"zstd": COSTS.stores["zstd"]}))


def test_more_pages_than_the_nodes_hold_if_nothing_compresses() -> None:
    nodes = dram(16), zstd(32), file(64)
    held = 16 + 32 * PAGE // 4776 + 64 - 4  # 74 quanta of 64 bytes for a page in pieces of a quantum each, and 40 bytes
    assert nodes[1].capacity // 4776 == memory(*nodes).mm.nodes[1].capacity // memory(*nodes).mm.nodes[1].slot_bytes
    memory(*nodes, pages=held)
    with pytest.raises(SpecError, match=str(held)):
        memory(*nodes, pages=held + 1)


@pytest.mark.parametrize("nodes", [(), (file(),), (dram(), dram()), (file(), dram())])
def test_what_is_no_demotion_path(nodes: tuple[Dram | File, ...]) -> None:
    with pytest.raises(SpecError, match="DRAM"):
        VirtualMemory(nodes, COSTS, page_size=PAGE, pages=4)


def test_a_node_that_is_too_small() -> None:
    with pytest.raises(SpecError, match="below the minimum"):
        memory(dram(15))


def test_a_region_of_more_pages_than_are_left() -> None:
    made = memory(pages=32)
    made.region(30)
    with pytest.raises(SpecError, match="2 are left"):
        made.region(3)


@pytest.mark.parametrize(
    ("settings", "text"), [({"group": 3}, "group 3"), ({"ratio": 0.0}, "above 0"), ({"advice": "cold"}, "random")]
)
def test_a_region_that_makes_no_sense(settings: dict[str, object], text: str) -> None:
    with pytest.raises(SpecError, match=text):
        memory().region(1, **settings)  # type: ignore[arg-type]


def test_a_page_is_placed_once_and_where_there_is_room() -> None:
    made = memory(dram(16), file(16), pages=28)
    made.region(20)
    made.place([0], 1)
    for pages, node in (([0], 0), ([20], 0), ([-1], 0), ([1], 2)):
        with pytest.raises(SpecError):
            made.place(pages, node)
    made.place(range(1, 17), 0)
    with pytest.raises(SpecError, match="dram has no room"):
        made.place([17], 0)


def test_a_memory_runs_once() -> None:
    made = memory()
    made.run()
    with pytest.raises(RuntimeError, match="once"):
        made.run()


def test_without_threads_a_client_must_know_when_to_stop() -> None:
    made = memory()
    made.region(1)
    made.drive_cold([0])
    with pytest.raises(SpecError, match="rounds"):
        made.run()


def test_a_touch_of_a_page_that_is_not_there() -> None:
    made = memory(pages=8)
    made.thread([reads(8)])
    with pytest.raises(ValueError, match="page 8 is touched, and there are 8"):
        made.run()


def test_a_trace_of_other_integers() -> None:
    made = memory()
    made.thread([np.array([1], np.int64)])  # type: ignore[list-item]
    with pytest.raises(TypeError, match="uint32"):
        made.run()


# -- how it is laid out -----------------------------------------------------------------------------------------------


def test_nodes_may_come_from_a_spec(tmp_path: object) -> None:
    nodes = parse_spec(f"dram=64KiB, zstd=256KiB, file:{tmp_path}=1MiB", PAGE)
    made = VirtualMemory(nodes, COSTS, page_size=PAGE, pages=32)
    assert [node.name for node in made.mm.nodes] == ["dram", "zstd", f"file:{tmp_path}", "source"]


def test_a_capacity_is_whole_pages() -> None:
    assert memory(Dram(17 * PAGE - 1), pages=8).mm.nodes[0].capacity == 16 * PAGE


def test_regions_lie_one_behind_the_other() -> None:
    made = memory()
    assert [(region.start, region.end) for region in (made.region(3), made.region(5))] == [(0, 3), (3, 8)]


def test_pages_are_where_they_were_placed() -> None:
    made = memory(dram(), zstd(), file())
    made.region(4)
    made.place([0], 0)
    made.place([1], 1)
    made.place([2], 2)
    assert [made.mm.table.state(page) for page in range(4)] == [RESIDENT, SLOTTED, SLOTTED, EMPTY]
    made.run()
    at_rest(made)


def test_a_page_takes_what_its_region_compresses_to() -> None:
    made = memory(dram(), zstd())
    calibrated, well, not_at_all = made.region(1), made.region(1, ratio=8.0), made.region(1, ratio=1.0)
    sizes = []
    for region in (calibrated, well, not_at_all):
        before = made.mm.nodes[1].used
        made.place([region.start], 1)
        sizes.append(made.mm.nodes[1].used - before)
    assert sizes == [PAGE // 3, PAGE // 8, made.mm.nodes[1].slot_bytes]
    at_rest(made)


def test_what_does_not_compress_goes_on_to_the_file() -> None:
    made = memory(dram(), zstd(), file())
    made.region(4, ratio=1.0)
    made.region(4, ratio=2.0)
    made.place(range(8), 0)
    made.drive_cold(range(8), rounds=1)
    result = made.run()
    assert result.vmstat["pgmigrate_incompressible"] == 4
    assert [made.mm.table.place(page)[0] for page in range(8)] == [2, 2, 2, 2, 1, 1, 1, 1]
    at_rest(made)


# -- what goes on in it -----------------------------------------------------------------------------------------------


def test_kswapd_makes_room_before_it_is_needed() -> None:
    made = memory(dram(64), file(128), pages=160)
    made.region(160)
    made.thread([writes(*range(160))], think_ns=1_000_000)
    result = made.run()
    assert result.vmstat["kswapd_wakeups"] > 0
    assert result.vmstat["allocstall"] == 0
    assert result.vmstat["pgdemote_kswapd"] >= 96
    at_rest(made)


def test_readahead_saves_faults() -> None:
    faults = []
    for readahead in (0, 32):
        made = memory(dram(512), file(512), pages=512, readahead=readahead)
        made.region(256)
        made.place(range(256), 1)
        made.thread([reads(*range(256))], think_ns=100_000)
        faults.append(made.run().vmstat["pgmajfault"])
        at_rest(made)
    assert faults[0] == 256
    assert faults[1] < 32


def test_what_will_be_needed_is_there() -> None:
    made = memory(dram(64), file(64), pages=64)
    made.region(32)
    made.place(range(32), 1)
    made.will_need(range(32))
    made.thread([reads(*range(32))], think_ns=10_000_000)
    result = made.run()
    assert result.vmstat["readahead_pages"] == 32
    assert result.threads[0].stalls.count == 0
    at_rest(made)


@pytest.mark.parametrize(("discard_clean", "counter"), [(True, "pgdiscard"), (False, "pgdemote_proactive")])
def test_a_clean_page_of_a_source_is_dropped_or_demoted(discard_clean: bool, counter: str) -> None:
    made = memory(dram(), zstd(), discard_clean=discard_clean)
    made.region(4, source=True)
    made.thread([reads(0, 1, 2, 3)])
    made.thread([reads(0)], think_ns=50_000_000)
    made.drive_cold(range(4), rounds=1, start_ns=20_000_000)
    result = made.run()
    assert result.vmstat[counter] == 4
    assert result.vmstat["pgmajfault"] == 5
    at_rest(made)


def test_a_group_keeps_to_its_limit() -> None:
    made = memory(dram(32), file(64), pages=64)
    group = made.group(1, dram_limit=6 * PAGE)
    made.region(24, group=1)
    made.thread([writes(*range(24))])
    made.run()
    assert group.peak_dram == 6 * PAGE
    at_rest(made)


def test_freed_pages_are_given_back() -> None:
    made = memory(dram(), zstd(), file())
    region = made.region(12)
    made.place(range(6), 0)
    made.place(range(6, 9), 1)
    made.place(range(9, 12), 2)
    made.free(region)
    made.run()
    assert [node.used for node in made.mm.nodes] == [0, 0, 0, 0]
    assert made.mm.region_of(0) is None
    at_rest(made)


def test_an_allocation_that_finds_no_room_for_a_minute_ends_in_sigbus() -> None:
    made = memory(dram(16), file(16), pages=17)
    made.region(17)
    made.place(range(16), 0)
    for page in range(16):
        made.mm.table.pins[page] = 1
    made.thread([reads(16)])
    result = made.run()
    assert result.threads[0].killed
    assert result.ns == pytest.approx(60e9, rel=0.01)
    assert made.mm.table.state(16) == EMPTY
    assert made._mapping.poisoned == {16}


def test_an_allocation_that_finds_no_room_waits_for_some() -> None:
    made = memory(dram(32), file(16), pages=40)
    other = made.region(1)
    made.region(32)
    made.place(range(32), 0)
    for page in range(1, 32):
        made.mm.table.pins[page] = 1
    made.mm.table.pins[0] = 1
    made.thread([reads(32)], keep_stalls=True)
    made.free(other, at_ns=1_000_000_000)
    result = made.run()
    assert not result.threads[0].killed
    assert result.threads[0].stall_ns == pytest.approx([1e9], rel=0.01)


def test_a_page_whose_bytes_are_lost_kills_who_touches_it() -> None:
    made = memory()
    made.region(2)
    made.mm.table.commit(1, POISONED)
    made.thread([reads(0, 1, 0)])
    made.thread([reads(0, 0)])
    result = made.run()
    assert [thread.killed for thread in result.threads] == [True, False]
    assert [thread.touches for thread in result.threads] == [1, 2]


def test_the_books_are_those_of_when_the_last_thread_ended() -> None:
    made = memory(dram(64), file(64), pages=64)
    made.region(64)
    made.place(range(48), 0)
    made.thread([reads(*[0] * 100)])
    made.drive_cold(range(1, 48))
    result = made.run()
    assert result.ns == 100 * 10
    assert result.vmstat["pgmigrate_success"] == 0
    assert made.vmstat["pgmigrate_success"] == 47
    assert made.now > result.ns
    at_rest(made)


def test_a_page_in_use_comes_up_less_often_where_touches_are_seen() -> None:
    faults = []
    for accessed_bits in (True, False):
        made = memory(dram(), file(256), pages=200, accessed_bits=accessed_bits)
        made.region(200)
        made.thread([writes(*(touched for page in range(1, 200) for touched in (0, page)))])
        made.run()
        at_rest(made)
        faults.append(made.vmstat["pgmajfault"])
    assert faults[0] < faults[1]
