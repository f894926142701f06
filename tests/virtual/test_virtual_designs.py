"""Every design, with everything going on at once: nothing is lost, every thread is served, no budget is exceeded."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from virtual_memories import (
    COSTS,
    PAGE,
    at_rest,
    check_mapping,
    dram,
    file,
    memory,
    mixed,
    spread,
    writes,
    zstd,
)

from thermocline.protocol.effects import Commit
from thermocline.protocol.migrate import DESIGNS
from thermocline.spec import Compressed
from thermocline.virtual.machine import VirtualMemory

#: Seconds that a transfer of a late file takes longer.
LATE = 0.002

every_design = pytest.mark.parametrize("design", DESIGNS)


def churn(design: str) -> VirtualMemory:
    """Three times as many pages as frames, used by threads that think and one that does not; kswapd works."""
    made = memory(dram(24), zstd(24), file(128), pages=96, design=design, costs=spread(COSTS, 0.3), readahead=8, seed=7)
    made.region(40, ratio=2.0)
    made.region(32, ratio=1.0)  # does not compress: goes on to the file
    random = np.random.default_rng(1)
    for think_ns in (0, 30_000, 60_000):
        made.thread([mixed(random, 72, 250) for _ in range(2)], think_ns=think_ns)
    return made


def cold(design: str) -> VirtualMemory:
    """All pages fit, and reclaim sends them away all the same."""
    made = memory(dram(64), zstd(64), pages=48, design=design, costs=spread(COSTS, 0.2), seed=3)
    made.region(48)
    made.place(range(48), 0)
    random = np.random.default_rng(2)
    for _ in range(3):
        made.thread([mixed(random, 48, 300)], think_ns=20_000)
    made.drive_cold(range(32))
    return made


def full(design: str) -> VirtualMemory:
    """The target is full of pages that nobody wants, and what is below it is slow."""
    made = memory(dram(32), Compressed(256 * PAGE, "zstd", "store"), file(512, LATE), pages=320, design=design)
    made.region(320, ratio=1.0)
    made.place(range(24), 0)
    target = made.mm.nodes[1]
    made.place(range(24, 24 + target.capacity // target.slot_bytes), 1)
    random = np.random.default_rng(4)
    for _ in range(3):
        made.thread([mixed(random, 24, 500)], think_ns=100_000)
    made.drive_cold(range(24))
    return made


def ending(design: str) -> VirtualMemory:
    """Regions are freed, and others wanted, in the middle of it."""
    made = memory(dram(16), zstd(32), file(128), pages=96, design=design, costs=spread(COSTS, 0.1), readahead=8)
    first, _, third = made.region(24), made.region(24), made.region(24)
    random = np.random.default_rng(5)
    made.place(range(24, 36), 2)
    made.thread([mixed(random, 24, 60)], think_ns=10_000)
    made.thread([mixed(random, 24, 200) + np.uint32(48)], think_ns=20_000)
    made.thread([mixed(random, 24, 60) + np.uint32(96)], think_ns=5_000)
    made.drive_cold(range(72))
    made.will_need(range(24, 48), at_ns=3_000_000)
    made.free(first, at_ns=4_000_000)
    made.free(third, at_ns=5_000_000)
    return made


SCENES = {scene.__name__: scene for scene in (churn, cold, full, ending)}


@every_design
@pytest.mark.parametrize("scene", SCENES)
def test_everything_comes_to_rest(design: str, scene: str) -> None:
    made = SCENES[scene](design)
    result = made.run()
    at_rest(made)
    assert result.vmstat["pgfault"] > 20
    assert result.vmstat["pgmigrate_success"] + result.vmstat["pgmigrate_abort"] > 10
    for thread in made._program.threads:
        assert thread.killed or thread.stalls.read().count > 0


@every_design
@pytest.mark.parametrize("scene", [churn, full])
def test_a_page_can_be_written_only_while_dram_has_its_bytes(
    design: str, scene: Callable[[str], VirtualMemory], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = scene(design)
    commit = made._interpreter.commit
    committed = 0

    def checked(effect: object, task: object) -> None:
        nonlocal committed
        commit(effect, task)  # type: ignore[arg-type]
        committed += 1
        check_mapping(made, range(made.mm.table.pages))

    monkeypatch.setitem(made._scheduler.handlers, Commit, checked)
    made.run()
    assert committed > 100


@every_design
@pytest.mark.parametrize("scene", [churn, cold])
def test_before_the_mapping_changes_the_program_has_run_until_then(
    design: str, scene: Callable[[str], VirtualMemory], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = scene(design)
    changes = 0

    def checked(change: Callable[..., None]) -> Callable[..., None]:
        def change_now(*args: object, **kwargs: object) -> None:
            nonlocal changes
            changes += 1
            assert all(thread.at >= made._clock.now for thread in made._program.running)
            change(*args, **kwargs)

        return change_now

    for what in ("install", "protect", "unprotect", "punch"):
        monkeypatch.setattr(made._mapping, what, checked(getattr(made._mapping, what)))
    monkeypatch.setattr(made._program, "wake", checked(made._program.wake))
    made.run()
    assert changes > 100


def test_every_thread_makes_all_its_touches() -> None:
    result = churn("batch").run()
    assert [thread.touches for thread in result.threads] == [500, 500, 500]


def test_who_touches_a_freed_array_is_killed() -> None:
    assert [thread.killed for thread in ending("batch").run().threads] == [True, False, True]
    made = memory()
    region = made.region(4)
    made.thread([writes(0), writes(1)], think_ns=1_000_000)
    made.free(region, at_ns=1_500_000)
    result = made.run()
    assert result.threads[0].killed
    assert result.threads[0].touches == 1
    at_rest(made)


@pytest.mark.parametrize(("design", "waits"), [(design, design in ("deferred", "discard")) for design in DESIGNS])
def test_who_wants_a_page_waits_for_its_migration_only_if_a_device_is_waited_for_under_its_lock(
    design: str, waits: bool
) -> None:
    """Greg Thelen's concern: with `deferred`, that wait is for the write which makes room for the page."""
    made = memory(dram(), Compressed(32 * PAGE, "zstd", "store"), file(64, LATE), design=design, pages=64)
    made.region(64, ratio=1.0)
    made.place([0], 0)
    made._mapping.protect(0, 1)  # as one that came up for reading while there was no room for a shadow
    target = made.mm.nodes[1]
    made.place(range(1, 1 + target.capacity // target.slot_bytes), 1)
    made.drive_cold([0], rounds=1)
    made.thread([writes(0)], think_ns=150_000, keep_stalls=True)  # while room is made below
    result = made.run()
    ((stall,),) = (thread.stall_ns for thread in result.threads)
    assert stall > 1_500_000 if waits else stall < 100_000
    assert (result.lock_wait.max > 1_500_000) == waits
    assert (made.stopwatch.allocating.read().max > 2_000_000) == (design == "deferred")
    at_rest(made)
