"""A run that cannot go on says which thread waits for what, and does not go on for ever."""

from __future__ import annotations

from dataclasses import replace

import pytest
from virtual_memories import COSTS, dram, file, memory, reads, writes

from thermocline.virtual import pager
from thermocline.virtual.costs import Cost
from thermocline.virtual.pager import Stalled


def test_a_thread_that_waits_for_a_lock_that_nobody_gives_up() -> None:
    made = memory()
    made.region(4)
    made.place([3], 1)
    made._scheduler.try_lock(3)
    made.thread([reads(0, 3)])
    with pytest.raises(Stalled, match=r"thread 0 waits for page 3 \(SLOTTED in file:.*, locked\) since 40522 ns"):
        made.run()


def test_a_thread_that_nobody_wakes() -> None:
    made = memory()
    made.region(1)
    made._program.wake = lambda start, count: None  # type: ignore[method-assign]
    made.thread([writes(0)])
    with pytest.raises(Stalled, match=r"thread 0 waits for page 0 \(RESIDENT, not locked\)"):
        made.run()


def test_a_request_that_nobody_answers() -> None:
    made = memory()
    made.region(1)
    made.place([0], 0)
    made._scheduler.try_lock(0)
    made.free(made._regions[1])
    with pytest.raises(Stalled, match="1 requests have no answer"):
        made.run()


def test_a_pager_that_is_never_done_and_leaves_no_processor_to_the_program(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pager, "_LOST_TURNS", 500)
    made = memory(costs=replace(COSTS, cores=1, request=Cost(0)))
    made.region(2)
    made.thread([reads(0)])
    made.drive_cold([1])
    with pytest.raises(Stalled, match="thread 0 waits for a processor; the pager has turned 500 times"):
        made.run()


def test_a_thread_that_faults_again_and_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pager, "_LOST_TURNS", 500)
    made = memory(dram(), file())
    made.region(1)
    made._mapping.install = lambda start, count, writable: None  # type: ignore[method-assign]
    made.thread([reads(0)])
    with pytest.raises(Stalled, match=r"thread 0 waits for page 0 \(RESIDENT, not locked\).*no thread got any further"):
        made.run()


def test_a_thread_that_sleeps_long_is_not_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pager, "_LOST_TURNS", 50)
    made = memory()
    made.region(2)
    made.place([0, 1], 0)
    made.thread([reads(0)], think_ns=100_000_000)
    made.drive_cold([1])
    assert made.run().cold_requests > 500
