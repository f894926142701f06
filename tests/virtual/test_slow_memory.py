"""Slow memory that the program addresses, on the virtual clock."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from virtual_memories import COSTS, PAGE, at_rest, dram, file, memory, mixed, reads, slow, writes

from thermocline.errors import SpecError
from thermocline.protocol.migrate import DESIGNS
from thermocline.protocol.page import RESIDENT
from thermocline.virtual.machine import VirtualMemory

DRAM, NUMA = 0, 1


def tiered(pages: int = 32, **settings: object) -> VirtualMemory:
    return memory(dram(), slow(), file(), pages=pages, **settings)


def test_what_dram_has_no_room_for_lies_in_slow_memory() -> None:
    made = tiered()
    made.region(24)
    made.thread([writes(*range(24)), reads(*range(24))])
    made.run()
    at_rest(made)
    on_slow = [page for page in range(24) if made.mm.table.read(page)[:2] == (RESIDENT, NUMA)]
    assert len(on_slow) >= 8
    assert made.vmstat["pgfault"] == 24  # reading them again was no fault
    assert made.vmstat["pswpout"] == 0


def test_a_move_takes_what_the_kernel_takes_and_the_program_goes_on() -> None:
    """From a request to its answer; a thread's touches meanwhile do not wait."""
    made = tiered()
    made.region(2)
    made.place([0, 1], DRAM)
    made.drive_cold([0, 1], rounds=1)
    result = made.run()
    at_rest(made)
    assert made.vmstat["pgdemote_proactive"] == 2
    assert result.ns >= 2 * 50_000 + COSTS.worker.call


@pytest.mark.parametrize("design", DESIGNS)
def test_books_agree_whatever_is_touched(design: str) -> None:
    made = tiered(pages=72, design=design)
    made.region(72)
    random = np.random.default_rng(1)
    made.thread([mixed(random, 72, 2_000)])
    made.thread([mixed(random, 72, 2_000)], think_ns=1_000_000)
    made.run()
    at_rest(made)
    assert made.vmstat["pgmigrate_success"] > 0


def hot_in_slow_memory(touches: int = 400) -> VirtualMemory:
    """Four pages of slow memory are used every 40 ms, and twelve are not."""
    made = tiered()
    made.region(16)
    made.place(range(16), NUMA)
    made.thread([np.tile(reads(4, 5, 6, 7), touches // 4)], think_ns=10_000_000)
    return made


def test_pages_that_are_used_go_up_and_the_others_stay() -> None:
    made = hot_in_slow_memory()
    made.run()
    at_rest(made)
    assert [page for page in range(16) if made.mm.table.read(page).node == DRAM] == [4, 5, 6, 7]
    assert made.vmstat["numa_pages_migrated"] == made.vmstat["pgpromote_success"] == 4
    assert made.vmstat["numa_hint_faults"] == 4


def test_no_touch_waits_for_the_pager_to_be_seen() -> None:
    made = hot_in_slow_memory()
    result = made.run()
    assert made.vmstat["pgfault"] == 0
    assert result.threads[0].stalls.count == 0


def test_the_pauses_grow_while_nobody_comes_back() -> None:
    made = tiered()
    made.region(17)
    made.place(range(16), NUMA)
    made.place([16], DRAM)
    made.thread([np.full(6_000, 16 << 1, np.uint32)], think_ns=10_000_000)  # a minute, elsewhere
    made.run()
    at_rest(made)
    assert made.vmstat["numa_hint_faults"] == 0
    assert 16 <= made.vmstat["numa_pte_updates"] <= 6 * 16


def test_the_same_seed_gives_the_same_run() -> None:
    def run() -> str | None:
        made = memory(dram(), slow(), file(), pages=72, digest=True)
        made.region(72)
        made.thread([mixed(np.random.default_rng(2), 72, 3_000)], think_ns=1_000_000)
        return made.run().digest

    assert run() == run()


def test_costs_that_nobody_has_measured_are_asked_for() -> None:
    stores = {name: each for name, each in COSTS.stores.items() if name != "numa"}
    with pytest.raises(SpecError, match=r'no stores\.numa, which "numa:1" needs'):
        memory(dram(), slow(), costs=replace(COSTS, stores=stores))


def test_a_page_of_slow_memory_that_is_freed_gives_its_frame_back() -> None:
    made = tiered()
    region = made.region(16)
    other = made.region(1)
    made.place(range(16), NUMA)
    made.thread([writes(other.start)], think_ns=1_000_000)
    made.free(region)
    made.run()
    at_rest(made)
    assert made.mm.nodes[NUMA].used == 0
    assert made.mm.nodes[NUMA].peak == 16 * PAGE
