"""The experiment, run: on real memory and on a virtual clock."""

from __future__ import annotations

from pathlib import Path

import pytest

from thermocline.lab import live
from thermocline.lab.campaign import run_live_cells, run_virtual_cells
from thermocline.lab.experiment import Cell, Experiment, WrongByte, cells
from thermocline.lab.live import LiveCell
from thermocline.lab.outcome import Outcome, Segment, Times, pool
from thermocline.lab.prober import Prober, Touches
from thermocline.protocol.histogram import Distribution, Histogram
from thermocline.protocol.migrate import DESIGNS
from thermocline.protocol.stopwatch import TIMED
from thermocline.protocol.vmstat import NAMES
from thermocline.virtual.costs import Cost, Costs, StoreCosts

COSTS = Costs(
    cores=2,
    **dict.fromkeys(
        ("hit", "fault", "wake", "think", "turn", "message", "effect", "request", "submit", "worker", "poison"),
        Cost(1000),
    ),
    **dict.fromkeys(("install", "zero", "protect", "unprotect", "punch", "read"), Cost(3000, 0.2)),
    stores={
        "zstd": StoreCosts(Cost(5000, 0.3), Cost(9000, 1.0, 0.1), 1.5),
        "file": StoreCosts(Cost(40_000, 1.0), Cost(40_000, 1.0)),
    },
)


def small(directory: Path) -> Experiment:
    return Experiment(str(directory), pages=16, touches=60, repeats=2, think=0.0001)


def counted(outcomes: list[Outcome]) -> dict[str, Outcome]:
    return {outcome.design: outcome for outcome in outcomes}


def test_every_design_migrates_while_threads_go_on_and_no_byte_is_wrong(tmp_path: Path) -> None:
    started: list[tuple[str, Cell]] = []
    groups = cells(sorted(DESIGNS), ["roomy"], ["warm"])
    found = run_live_cells(small(tmp_path), groups, lambda interpreter, cell: started.append((interpreter, cell)))
    assert [outcome.design for outcome in found] == sorted(DESIGNS)
    assert sorted(started) == sorted(("live", cell) for cell in groups[0] * 2)
    assert started[:6] != started[6:], "the designs take turns in being the first"
    for outcome in found:
        assert outcome.touches == 2 * 60 * 2
        assert outcome.migrated > 0
        assert 0 < outcome.stalls.count <= outcome.touches
        assert len(outcome.stall_p99) == outcome.repeats == 2
        assert outcome.seconds > 0 and outcome.cpu_ns > 0
        assert outcome.stalls.p50 <= outcome.stalls.p99 <= outcome.stalls.max
        assert sum(count for _, count in outcome.stalls.classes) == outcome.stalls.count
    assert counted(found)["deferred"].allocating.count > 0
    assert all(outcome.allocating.count == 0 for outcome in found if outcome.design in ("batch", "prealloc", "relock"))


@pytest.mark.parametrize("interpreter", ["live", "virtual"])
def test_an_allocation_that_fails_moves_nothing(interpreter: str, tmp_path: Path) -> None:
    groups = cells(["batch", "deferred"], ["failing"], ["hot"])
    found = counted(
        run_live_cells(small(tmp_path), groups, lambda *_: None)
        if interpreter == "live"
        else run_virtual_cells(small(tmp_path), groups, COSTS, lambda *_: None)
    )
    assert (found["batch"].migrated, found["deferred"].migrated) == (0, 0)
    assert found["batch"].source_lock.count == 0
    assert 0 < found["deferred"].allocating.total < found["deferred"].source_lock.total


def test_a_full_target_keeps_deferred_pages_locked_while_the_slow_node_is_written(tmp_path: Path) -> None:
    found = counted(
        run_virtual_cells(small(tmp_path), cells(["deferred", "relock"], ["full"], ["warm"]), COSTS, lambda *_: None)
    )
    assert found["deferred"].allocating.max > 2_000_000
    assert found["relock"].allocating.count == 0


def test_the_virtual_run_is_the_same_every_time(tmp_path: Path) -> None:
    groups = cells(sorted(DESIGNS), ["full"], ["hot"])
    first, second = (run_virtual_cells(small(tmp_path), groups, COSTS, lambda *_: None) for _ in range(2))
    assert first == second
    assert len({outcome.seconds for outcome in first}) > 1, "the designs differ"


def test_a_wrong_byte_ends_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Prober.run

    def lies(prober: Prober) -> Touches:
        return run(prober)._replace(mismatches=1)

    monkeypatch.setattr(live.Prober, "run", lies)
    with LiveCell(small(tmp_path), Cell("batch", "roomy", "hot")) as made, pytest.raises(WrongByte):
        made.run(0)


def distribution(*times: int) -> Distribution:
    histogram = Histogram()
    for time in times:
        histogram.add(time)
    return histogram.read()


def test_repeats_are_pooled() -> None:
    def segment(seconds: float, stalls: list[int], locked: int) -> Segment:
        timed = dict.fromkeys(TIMED, distribution()) | {"source_lock": distribution(locked)}
        return Segment(seconds, 100, stalls, timed, dict.fromkeys(NAMES, 1), 1000)

    found = pool("live", Cell("batch", "full", "hot"), [segment(1.0, [10, 20], 500), segment(2.0, [30], 900)])
    assert (found.seconds, found.touches, found.repeats, found.cpu_ns) == (3.0, 200, 2, 2000)
    assert (found.migrated, found.aborts, found.failures, found.refaults) == (6, 2, 2, 2)
    assert (found.stalls.count, found.stalls.total, found.stalls.max) == (3, 60, 30)
    assert found.stall_p99 == (20, 30)
    assert (found.source_lock.count, found.source_lock.total, found.source_lock.max) == (2, 1400, 900)
    assert found.allocating == Times(0, 0, 0, 0, 0, 0)


def test_times_one_by_one() -> None:
    found = Times.of(range(1, 1001))
    assert (found.count, found.p50, found.p99, found.p999, found.max) == (1000, 501, 991, 1000, 1000)
    assert Times.of([]) == Times(0, 0, 0, 0, 0, 0)
