"""The same seed gives the same run, bit for bit: in this process, in another, and whether it is watched or not."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from virtual_memories import COSTS, dram, file, memory, mixed, reads, spread, zstd

from thermocline.protocol.migrate import DESIGNS
from thermocline.virtual import program, thread
from thermocline.virtual.machine import VirtualMemory
from thermocline.virtual.result import Result
from thermocline.virtual.thread import ProgramThread

HERE = Path(__file__).parent


def run(design: str = "batch", *, seed: int = 1, by: float = 0.3, **settings: object) -> Result:
    """Threads that think and that don't, more pages than frames, and a client that asks for more."""
    made: VirtualMemory = memory(
        dram(16), zstd(24), file(128), pages=80, design=design, seed=seed, costs=spread(COSTS, by), **settings
    )
    made.region(40, ratio=3.0)
    made.region(40, ratio=1.0)
    random = np.random.default_rng(9)
    for think_ns in (0, 0, 25_000):
        made.thread([mixed(random, 80, 120)], think_ns=think_ns, keep_stalls=True)
    made.drive_cold(range(10, 30))
    return made.run()


@pytest.mark.parametrize("design", DESIGNS)
def test_two_runs_are_the_same(design: str) -> None:
    first, second = run(design, digest=True), run(design, digest=True)
    assert first == second
    assert first.digest


def test_another_seed_is_another_run() -> None:
    assert run(seed=1, digest=True).digest != run(seed=2, digest=True).digest


def test_without_a_spread_the_seed_does_not_matter() -> None:
    assert run(seed=1, by=0.0, digest=True).digest == run(seed=2, by=0.0, digest=True).digest


def test_nobody_notices_that_he_is_watched() -> None:
    seen: list[tuple[int, str]] = []
    watched = run(digest=True, trace=lambda time, text: seen.append((time, text)))
    assert replace(watched, digest=None) == run()
    assert watched.digest == run(digest=True).digest
    assert len(seen) > 1000


def test_the_trace_says_what_happened() -> None:
    seen: list[tuple[int, str]] = []
    made = memory(trace=lambda time, text: seen.append((time, text)), readahead=4)
    made.region(8)
    made.thread([np.array([1, 3, 5], np.uint32)])
    made.run()
    assert seen[0] == (0, "thread 0: fault, write of page 0")
    assert seen[1] == (26_000, "fault: Lock(page=0)")
    assert seen[4] == (29_000, "fault: Fill(pages=[0], parts=0, writable=True)")
    assert (40_512, "thread 0: goes on") in seen
    assert any(text == "fault: Spawn(read_ahead)" for _, text in seen)
    assert any(text == "thread 0: ended" for _, text in seen)


@pytest.mark.parametrize("hash_seed", ["0", "4711"])
def test_another_process_comes_to_the_same(hash_seed: str) -> None:
    code = "from test_determinism import run; print(run('deferred', digest=True).digest)"
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": os.pathsep.join([str(HERE), *sys.path])}
    found = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert found.stdout.strip() == run("deferred", digest=True).digest


def test_it_does_not_matter_how_many_touches_are_looked_up_together(monkeypatch: pytest.MonkeyPatch) -> None:
    usual = run(by=0.0, digest=True)
    for module, name, value in (
        (thread, "_ONE_BY_ONE", 0),
        (thread, "_LEAST", 3),
        (program, "_LEAST", 1),
        (program, "_MORE", 2),
    ):
        monkeypatch.setattr(module, name, value)
    assert run(by=0.0, digest=True) == usual


def test_what_was_looked_up_before_a_page_went_down_is_not_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    def result() -> Result:
        made = memory(dram(16), zstd(32), pages=24, digest=True)
        made.region(24)
        made.place(range(16), 0)
        made.thread([reads(*[*range(16)] * 2500)])  # nothing but hits, until the other one's fault takes a frame
        made.thread([reads(16)], think_ns=10_000)
        return made.run()

    def ready(self: ProgramThread, count: int) -> int:
        pages = self._piece[self._index : self._index + count]
        allowed = self._mapping.allowed[pages]
        return len(pages) if allowed.all() else int(allowed.argmin())

    usual = result()
    assert usual.threads[0].stalls.count > 0
    monkeypatch.setattr(ProgramThread, "_ready", ready)
    assert result() == usual


def test_a_million_hits() -> None:
    made = memory()
    made.region(8)
    made.place(range(8), 0)
    made.thread([np.arange(1_000_000, dtype=np.uint32) % 16])
    assert made.run().threads[0].touches == 1_000_000


def test_it_does_not_matter_how_a_trace_is_cut_into_arrays() -> None:
    results = []
    for size in (1, 7, 1000):
        made = memory(dram(16), file(64), pages=40, digest=True)
        made.region(40)
        whole = mixed(np.random.default_rng(3), 40, 400)
        made.thread(whole[at : at + size] for at in range(0, 400, size))
        results.append(made.run())
    assert results[0] == results[1] == results[2]
