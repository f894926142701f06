"""Forked children on a virtual clock: which processes pay for a copy, and which do not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from virtual_memories import COSTS, at_rest, dram, file, memory, mixed, reads, slow, writes
from virtual_memories import spread as spread_costs

from thermocline.errors import SpecError
from thermocline.virtual.machine import VirtualMemory
from thermocline.virtual.result import Result

#: When the program goes on with its touches, long after the fork.
_LATER = 5_000_000


def resident(pages: int = 4, **settings: Any) -> VirtualMemory:
    """A memory whose pages are all in DRAM, and were written."""
    made = memory(**settings)
    made.region(pages)
    made.place(range(pages), 0)
    return made


def run(made: VirtualMemory) -> Result:
    result = made.run()
    at_rest(made)
    return result


def test_a_child_that_reads_what_is_in_dram_takes_no_fault() -> None:
    made = resident()
    child = made.fork().thread([reads(0, 1, 2, 3)])
    result = run(made)
    assert child.touches == 4
    assert (result.vmstat["pgfault"], result.vmstat["cow_pages"], result.vmstat["cow_copies"]) == (0, 0, 0)


def test_the_programs_first_write_after_a_fork_is_a_fault_and_a_copy_and_its_second_is_none() -> None:
    made = resident()
    made.fork().thread([reads()])
    made.thread([writes(0, 0, 1, 0)], think_ns=_LATER)
    result = run(made)
    assert (result.vmstat["pgfault"], result.vmstat["cow_pages"], result.vmstat["cow_copies"]) == (2, 2, 2)


def test_a_program_that_only_reads_gives_no_copies() -> None:
    made = resident()
    made.fork().thread([reads(0)])
    made.thread([reads(0, 1, 2, 3)], think_ns=_LATER)
    assert run(made).vmstat["pgfault"] == 0


def test_what_a_child_writes_is_its_own_and_takes_no_fault() -> None:
    made = resident()
    child = made.fork()
    child.thread([writes(0, 1, 0)])
    result = run(made)
    assert (result.vmstat["pgfault"], result.vmstat["cow_copies"]) == (0, 0)
    assert list(child.mapping.own[:3]) == [True, True, False]


def test_a_child_that_has_the_frame_mapped_gets_a_copy_by_way_of_a_saved_one() -> None:
    """Which takes longer: the frame is withdrawn and brought back."""
    times = []
    for touched in (reads(), reads(0)):
        made = resident()
        child = made.fork()
        child.thread([touched])
        thread = made.thread([writes(0)], think_ns=_LATER, keep_stalls=True)
        result = run(made)
        assert (result.vmstat["cow_pages"], result.vmstat["cow_copies"]) == (1, 1)
        assert child.mapping.own[0]
        assert thread.stall_ns is not None
        times += thread.stall_ns
    assert times[0] < times[1]


def test_each_of_two_children_gets_its_copy() -> None:
    made = resident()
    first, second = made.fork(), made.fork()
    first.thread([reads()])
    second.thread([reads()])
    made.thread([writes(0)], think_ns=_LATER)
    result = run(made)
    assert (result.vmstat["cow_pages"], result.vmstat["cow_copies"]) == (1, 2)
    assert first.mapping.own[0]
    assert second.mapping.own[0]


def test_a_page_that_was_below_at_the_fork_comes_up_for_the_child() -> None:
    made = memory()
    made.region(4)
    made.place(range(4), 1)
    child = made.fork().thread([reads(0, 1)])
    result = run(made)
    assert (child.touches, result.vmstat["pgfault"], result.vmstat["pgmajfault"]) == (2, 2, 2)


def test_a_page_of_slow_memory_is_lifted_for_a_child_that_has_it_mapped() -> None:
    made = memory(dram(), slow(), file(), promotion=False)
    made.region(2)
    made.place(range(2), 1)
    child = made.fork()
    child.thread([reads(0)])
    made.thread([writes(0)], think_ns=_LATER)
    run(made)
    assert child.mapping.own[0]
    assert [made.mm.table.read(page).frame for page in range(2)] == [0, 1]


def test_forks_are_given_in_order() -> None:
    made = resident()
    made.fork(at_ns=1_000)
    with pytest.raises(SpecError, match="in order"):
        made.fork(at_ns=999)


@pytest.mark.parametrize("spread", [0.0, 0.2])
def test_a_run_with_children_is_the_same_every_time(spread: float) -> None:
    def digest() -> str | None:
        random = np.random.default_rng(3)
        costs = spread_costs(COSTS, spread) if spread else COSTS
        made = memory(dram(16), file(), pages=32, costs=costs, digest=True, seed=5)
        made.region(32)
        made.place(range(12), 0)
        made.place(range(12, 32), 1)
        for start in (0, 3_000_000):
            made.fork(at_ns=start).thread([mixed(random, 32, 200)])
        made.thread([mixed(random, 32, 400)])
        made.drive_cold(range(8), rounds=5)
        return run(made).digest

    assert digest() == digest()
