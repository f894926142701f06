"""What a calibration finds: a step that is made slower on purpose costs more, and no other does.

The true costs on this machine are not known, so there is no other way to tell a right cost from a wrong one.
What is made slower takes a millisecond or more; what is not stays far below that, even on a machine that is busy.
"""

from __future__ import annotations

import gc
import math
import os
import select
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from thermocline.cli import main
from thermocline.errors import StoreError, ThermoclineError, UnsupportedError
from thermocline.lab.calibration import assembly, contents, mapping, program, shelves, threads
from thermocline.lab.calibration.assembly import calibrate
from thermocline.lab.calibration.loop import Loop
from thermocline.lab.calibration.mapping import ARENA_BYTES, Mapping
from thermocline.lab.calibration.meter import Meter, replaced
from thermocline.lab.calibration.program import Program
from thermocline.lab.calibration.samples import Samples, fit
from thermocline.live.arena import Arena
from thermocline.live.stores.compressed import CompressedStore
from thermocline.live.stores.file import FileStore
from thermocline.live.userfaultfd import UserFaultFd
from thermocline.memory import Memory
from thermocline.protocol.interpreter import Interpreter
from thermocline.protocol.scheduler import Scheduler
from thermocline.virtual.costs import Cost, Costs, StoreCosts

MILLISECOND = 1_000_000  # nanoseconds
ROUNDS = 1

Slow = Callable[..., None]


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> Slow:
    """Makes something take a millisecond longer, or as many as are asked for."""

    def make_slow(thing: object, name: str, milliseconds: int = 1) -> None:
        original = getattr(thing, name)

        def slower(*arguments: Any, **named: Any) -> Any:
            until = time.perf_counter_ns() + milliseconds * MILLISECOND
            while time.perf_counter_ns() < until:
                pass
            return original(*arguments, **named)

        monkeypatch.setattr(thing, name, slower)

    return make_slow


@pytest.fixture
def running() -> Iterator[Program]:
    with Program(ARENA_BYTES) as made:
        yield made


def a_mapping(running: Program) -> Mapping:
    return Mapping(running, len(os.sched_getaffinity(0)))


def measured_mapping() -> dict[str, Cost]:
    with Program(ARENA_BYTES) as running, closing(a_mapping(running)) as made:
        return made.measure(ROUNDS)


def measured_loop(directory: Path) -> dict[str, Cost]:
    with Program(ARENA_BYTES) as running, closing(Loop(running, str(directory))) as loop:
        return loop.measure(ROUNDS)


def crowded(directory: Path) -> tuple[float, float, dict[str, Cost]]:
    with Program(ARENA_BYTES) as running, closing(Loop(running, str(directory))) as loop:
        return loop.crowded(ROUNDS)


def some_costs() -> Costs:
    steps = {field.name: Cost(7.0) for field in fields(Costs) if field.name not in {"cores", "stores"}}
    return Costs(cores=1, stores={"file": StoreCosts(Cost(1.0), Cost(1.0))}, **steps)


def test_a_loop_ends_without_a_word(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Its pager is told that it is over. One whose supervisor is gone raises an alarm."""
    with Program(ARENA_BYTES) as running, closing(Loop(running, str(tmp_path))) as loop:
        loop.measure(ROUNDS)
    assert capfd.readouterr() == ("", "")


class TestSamples:
    def test_a_line_is_found_again(self) -> None:
        call, byte = fit({size: 900 + 0.05 * size for size in (4096, 65536, 1 << 20)})
        assert call == pytest.approx(900)
        assert byte == pytest.approx(0.05)

    def test_a_small_size_counts_as_much_as_a_large_one(self) -> None:
        """A large size that is dearer by half must not double the price of the small ones."""
        call, byte = fit({4096: 1000, 8192: 1100, 16384: 1300, 2 << 20: 1.5 * 52_100})
        assert call + byte * 4096 == pytest.approx(1000, rel=0.25)

    def test_no_cost_is_negative(self) -> None:
        call, byte = fit({4096: 100, 65536: 3000})
        assert call == 0
        assert 100 / 4096 < byte < 3000 / 65536
        call, byte = fit({4096: 3000, 65536: 100})
        assert 100 < call < 3000
        assert byte == 0

    def test_one_size_is_all_call(self) -> None:
        assert fit({0: 700}) == (pytest.approx(700), 0)
        assert fit({4096: 700}) == (pytest.approx(700), 0)

    def test_what_takes_no_time_costs_nothing(self) -> None:
        samples = Samples()
        samples.add(0)
        assert samples.cost() == Cost(0.0)

    def test_the_spread_is_that_of_the_logarithms(self) -> None:
        samples = Samples()
        random = np.random.default_rng(1)
        for size, median in ((4096, 1000), (65536, 5000)):
            for factor in np.exp(0.3 * random.standard_normal(2000)):
                samples.add(median * factor, size)
        cost = samples.cost()
        assert cost.spread == pytest.approx(0.3, abs=0.03)
        assert cost.of(4096) == pytest.approx(1000, rel=0.05)

    def test_a_few_disturbed_times_change_nothing(self) -> None:
        samples = Samples()
        for index in range(100):
            samples.add(1_000_000_000 if index % 10 == 0 else 500)
        assert samples.cost() == Cost(500.0)

    def test_what_is_not_the_steps_is_taken_off(self) -> None:
        samples = Samples()
        samples.add(500)
        assert samples.cost(less=120).call == 380
        assert samples.cost(less=1000).call == 0


class TestMeter:
    def test_calls_are_added_up_and_the_rest_is_not(self, slow: Slow) -> None:
        class Thing:
            def work(self) -> int:
                return 7

            def rest(self) -> None:
                pass

        slow(Thing, "work", 2)
        slow(Thing, "rest", 20)
        thing, meter = Thing(), Meter()
        with meter.on(thing, "work"):
            thing.rest()
            assert [thing.work(), thing.work()] == [7, 7]
        assert 4 * MILLISECOND <= meter.total < 20 * MILLISECOND
        meter.reset()
        thing.work()
        assert meter.total == 0

    def test_what_was_replaced_is_put_back_after_an_error(self) -> None:
        thing = Samples()
        with pytest.raises(ZeroDivisionError), replaced(thing, {"median": lambda: 1 // 0}):
            thing.median()
        assert thing.median() == 0


class TestMapping:
    @pytest.mark.parametrize(
        ("thing", "method", "name"),
        [
            (Arena, "install", "install"),
            (Arena, "install_zeros", "zero"),
            (Arena, "protect", "protect"),
            (Arena, "unprotect", "unprotect"),
            (Arena, "punch", "punch"),
            (Arena, "read", "read"),
            (UserFaultFd, "poison", "poison"),
            (UserFaultFd, "read", "message"),
            (Scheduler, "spawn", "message"),
        ],
    )
    def test_a_slow_step_is_seen_where_it_is(self, thing: object, method: str, name: str, slow: Slow) -> None:
        slow(thing, method)
        measured = measured_mapping()
        assert measured[name].of(4096) >= 0.7 * MILLISECOND  # the line need not go through the least size
        # How soon a process runs that was woken is in the hands of whatever else this machine does.
        others = measured.keys() - {name, "fault", "wake", "message"}
        assert {other for other in others if measured[other].of(4096) >= 0.5 * MILLISECOND} == set()

    def test_a_pager_that_hears_of_a_fault_late_is_a_slow_fault(self, running: Program, slow: Slow) -> None:
        class News:
            """An epoll whose methods can be replaced."""

            def __init__(self, epoll: select.epoll) -> None:
                self.poll, self.close = epoll.poll, epoll.close

        with closing(a_mapping(running)) as made:
            made._news = news = News(made._news)  # type: ignore[assignment]
            slow(news, "poll", 3)  # in the middle of which the touch is
            measured = made.measure(ROUNDS)
        assert measured["fault"].call >= MILLISECOND
        assert measured["message"].call < 0.5 * MILLISECOND

    def test_a_thread_that_goes_on_late_is_a_slow_wake(self, monkeypatch: pytest.MonkeyPatch) -> None:
        touched = Program.touched

        def late(self: Program, count: int) -> list[tuple[int, int]]:
            return [(begun, ended + MILLISECOND) for begun, ended in touched(self, count)]

        monkeypatch.setattr(Program, "touched", late)
        measured = measured_mapping()
        assert measured["wake"].call >= MILLISECOND
        assert measured["install"].of(4096) < 0.5 * MILLISECOND

    def test_what_an_answer_takes_is_no_part_of_a_fault_or_a_wake(
        self, slow: Slow, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(mapping, "_EXTENTS", {4096: 4, 65536: 4})  # few, for they take long
        for answer in ("install", "install_zeros", "unprotect"):
            slow(Arena, answer, 20)
        measured = measured_mapping()
        assert measured["install"].of(4096) >= 18 * MILLISECOND
        assert measured["fault"].call < 15 * MILLISECOND
        assert measured["wake"].call < 15 * MILLISECOND

    def test_what_a_touch_takes_by_itself_is_no_part_of_a_fault(self, monkeypatch: pytest.MonkeyPatch) -> None:
        touched = Program.touched

        def early(self: Program, count: int) -> list[tuple[int, int]]:
            return [(begun - 20 * MILLISECOND, ended) for begun, ended in touched(self, count)]

        monkeypatch.setattr(Program, "touched", early)
        assert measured_mapping()["fault"].call < 15 * MILLISECOND

    @pytest.mark.skipif(len(os.sched_getaffinity(0)) == 1, reason="there is one processor for both")
    def test_the_program_runs_elsewhere_while_pages_are_taken_from_it(
        self, running: Program, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        states: dict[str, set[str]] = {}
        shared: set[int] = set()

        def watch(name: str) -> None:
            do = getattr(Arena, name)
            seen = states[name] = set()

            def watched(*arguments: Any, **named: Any) -> None:
                shared.update(os.sched_getaffinity(0) & os.sched_getaffinity(running.pid))
                seen.add(_state(running.pid))
                do(*arguments, **named)

            monkeypatch.setattr(Arena, name, watched)

        with closing(a_mapping(running)) as made:
            for name in ("protect", "punch", "install", "unprotect"):
                watch(name)
            before = os.sched_getaffinity(0)
            made.measure(ROUNDS)
        assert states["protect"] == states["punch"] == {"R"}
        assert "R" not in states["install"] | states["unprotect"]  # it waits for a page
        assert not shared
        assert os.sched_getaffinity(0) == os.sched_getaffinity(running.pid) == before

    def test_one_processor_is_enough(self) -> None:
        before = os.sched_getaffinity(0)
        os.sched_setaffinity(0, {min(before)})
        try:
            measured = measured_mapping()
        finally:
            os.sched_setaffinity(0, before)
        assert all(cost.of(4096) >= 0 for cost in measured.values())
        assert measured["install"].byte > 0

    def test_a_program_that_dies_is_an_error_and_no_hang(self, running: Program, slow: Slow) -> None:
        with closing(a_mapping(running)) as made:

            def killed(*_: object) -> None:
                os.kill(running.pid, signal.SIGKILL)

            made._arena.install_zeros = killed  # type: ignore[method-assign]
            with pytest.raises(ThermoclineError, match="has ended; calibrate again"):
                made._serve("zero", made._arena.install_zeros)


class TestProgram:
    def test_every_touch_is_timed(self, running: Program) -> None:
        before = time.perf_counter_ns()
        Arena(running.arena, 4096, [running.mapping]).install_zeros(0, 3 * 4096)
        running.touch([0, 8192, 4096])
        touches = running.touched(3)
        stamps = [before, *(stamp for touch in touches for stamp in touch), time.perf_counter_ns()]
        assert stamps == sorted(stamps)
        assert [os.pread(running.arena, 1, offset) for offset in (0, 4096, 8192)] == [b"\1"] * 3

    def test_it_sleeps_before_each_touch(self, running: Program) -> None:
        Arena(running.arena, 4096, [running.mapping]).install_zeros(0, 4096)
        before = time.perf_counter_ns()
        running.touch([0, 0], pause=0.002)
        (first, _), (second, _) = running.touched(2)
        assert first - before >= 2 * MILLISECOND
        assert second - first >= 2 * MILLISECOND

    def test_it_runs_while_it_is_told_to(self, running: Program) -> None:
        Arena(running.arena, 4096, [running.mapping]).install_zeros(0, 4096)
        used = _processor_time(running.pid)
        with running.running(0):
            while _processor_time(running.pid) - used < 0.05:
                pass
        running.touch([0])
        assert len(running.touched(1)) == 1

    def test_it_is_gone_when_it_was_closed_though_it_waits_for_a_page(self) -> None:
        with Program(ARENA_BYTES) as made:
            made.touch([0])
            assert select.select([made.uffd.fd], [], [], 20)[0]
        with pytest.raises(ProcessLookupError):
            os.kill(made.pid, 0)

    def test_it_ends_when_whoever_measures_is_killed_while_it_waits_for_a_page(self) -> None:
        code = """
            from thermocline.lab.calibration.mapping import ARENA_BYTES
            from thermocline.lab.calibration.program import Program
            import select
            program = Program(ARENA_BYTES)
            program.touch([0])
            select.select([program.uffd.fd], [], [])
            print(program.pid, flush=True)
            select.select([], [], [])
        """
        lines = "\n".join(line.strip() for line in code.splitlines())
        with subprocess.Popen([sys.executable, "-c", lines], stdout=subprocess.PIPE, text=True) as measuring:
            assert measuring.stdout is not None
            sentinel = os.pidfd_open(int(measuring.stdout.readline()))
            measuring.kill()
        try:
            assert select.select([sentinel], [], [], 20)[0], "it is still there"
        finally:
            os.close(sentinel)

    def test_what_it_cannot_do_is_told_in_its_words(self, no_userfaultfd: None) -> None:
        with pytest.raises(UnsupportedError, match=r"^there is none here; get one$"):
            Program(ARENA_BYTES)


def _stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat, from the third on (proc(5))."""
    with open(f"/proc/{pid}/stat") as stat:
        return stat.read().rpartition(")")[2].split()


def _state(pid: int) -> str:
    """R: it runs, or would if it had a processor."""
    return _stat(pid)[0]


def _processor_time(pid: int) -> float:
    user, system = _stat(pid)[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


@pytest.fixture
def no_userfaultfd(monkeypatch: pytest.MonkeyPatch) -> None:
    """Refuse userfaultfd to the program that is measured."""
    popen = subprocess.Popen
    refusal = (
        "from thermocline.lab.calibration import program; from thermocline.errors import UnsupportedError\n"
        "def refuse(): raise UnsupportedError('there is none here; get one')\n"
        "program.open_userfaultfd = refuse; program.main("
    )

    def refused(command: list[str], **settings: Any) -> subprocess.Popen[bytes]:
        return popen([*command[:-1], command[-1].replace("program.main(", refusal)], **settings)

    monkeypatch.setattr(program.subprocess, "Popen", refused)


class TestLoop:
    def test_a_slow_turn_is_seen(self, slow: Slow, tmp_path: Path) -> None:
        slow(Scheduler, "run_foreground")
        measured = measured_loop(tmp_path)
        assert measured["turn"].call >= MILLISECOND

    def test_workers_of_a_busy_pager_are_seen(self, slow: Slow, tmp_path: Path) -> None:
        reading, writing, costs = crowded(tmp_path)
        assert 0 < reading < MILLISECOND * 20 and 0 < writing < MILLISECOND * 20
        slow(FileStore, "read", 2)
        assert crowded(tmp_path)[0] >= 2 * MILLISECOND
        slow(FileStore, "write", 3)
        assert crowded(tmp_path)[1] >= 3 * MILLISECOND
        slow(ThreadPoolExecutor, "submit", 4)
        assert crowded(tmp_path)[2]["submit"].call >= 4 * MILLISECOND
        assert costs["worker"].call > 0

    def test_what_a_turn_runs_is_no_part_of_it(self, slow: Slow, tmp_path: Path) -> None:
        slow(Scheduler, "run_background")
        assert measured_loop(tmp_path)["turn"].call < 0.5 * MILLISECOND

    def test_a_slow_effect_is_seen(self, slow: Slow, tmp_path: Path) -> None:
        slow(Interpreter, "commit")  # before any interpreter is made; some two effects in ten
        assert measured_loop(tmp_path)["effect"].call >= 0.05 * MILLISECOND

    def test_what_is_done_to_pages_is_no_part_of_an_effect(self, slow: Slow, tmp_path: Path) -> None:
        for method in ("install", "punch", "protect"):
            slow(Arena, method)
        for method in ("read", "write"):
            slow(CompressedStore, method)
        measured = measured_loop(tmp_path)
        assert 0 < measured["effect"].call < 0.05 * MILLISECOND

    def test_nothing_of_it_stays(self, tmp_path: Path) -> None:
        before = threading.active_count()
        measured_loop(tmp_path)
        assert threading.active_count() == before
        assert os.listdir(tmp_path) == []


class TestThreads:
    def test_a_long_sleep_is_seen_as_what_it_is_too_long(self, monkeypatch: pytest.MonkeyPatch) -> None:
        sleep = time.sleep
        monkeypatch.setattr(threads.time, "sleep", lambda seconds: sleep(seconds + 0.002))
        assert 2 * MILLISECOND <= threads.think(ROUNDS).call < 20 * MILLISECOND

    def test_what_was_asked_for_is_no_part_of_it(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def punctual(seconds: float) -> None:
            until = time.perf_counter_ns() + seconds * 1e9
            while time.perf_counter_ns() < until:
                pass

        monkeypatch.setattr(threads.time, "sleep", punctual)
        assert threads.think(ROUNDS).call < 50_000

    def test_a_slow_request_is_seen_by_half(self, slow: Slow) -> None:
        slow(Memory, "advise", 10)
        assert 5 * MILLISECOND <= threads.request(ROUNDS).call < 10 * MILLISECOND

    def test_a_hit_is_one_of_many(self, slow: Slow) -> None:
        slow(np, "take", 2)
        assert 1000 <= threads.hit(ROUNDS).call < 20_000


class TestShelves:
    @pytest.mark.parametrize(
        ("kind", "measure"),
        [
            (CompressedStore, lambda directory: shelves.compressed("lz4", ROUNDS)),
            (FileStore, lambda directory: shelves.file(str(directory), ROUNDS)),
        ],
    )
    @pytest.mark.parametrize("method", ["read", "write"])
    def test_a_slow_store_is_seen(
        self, kind: type, measure: Callable[[Path], StoreCosts], method: str, slow: Slow, tmp_path: Path
    ) -> None:
        slow(kind, method, 3)
        found = measure(tmp_path)
        other = "write" if method == "read" else "read"
        assert getattr(found, method).of(4096) >= 3 * MILLISECOND
        assert getattr(found, method).of(65536) >= 3 * MILLISECOND
        assert getattr(found, other).of(4096) < 3 * MILLISECOND

    def test_the_ratio_is_that_of_what_pages_are_charged(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(CompressedStore, "size", lambda self, slot: 16384)
        assert shelves.compressed("lz4", ROUNDS).ratio == 4

    def test_pages_of_numbers_pack_and_not_to_nothing(self) -> None:
        assert 1.2 < shelves.compressed("zstd", ROUNDS).ratio < 4

    def test_a_file_has_a_ratio_of_one_and_leaves_none(self, tmp_path: Path) -> None:
        assert shelves.file(str(tmp_path), ROUNDS).ratio == 1
        assert os.listdir(tmp_path) == []

    def test_a_store_that_gives_back_something_else_is_not_measured(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(CompressedStore, "read", lambda *_: None)
        with pytest.raises(StoreError, match="came back as another"):
            shelves.compressed("lz4", ROUNDS)

    def test_the_pages_are_always_the_same(self) -> None:
        first, second = contents.random_walk(4096), contents.random_walk(4096)
        assert [next(first) for _ in range(3)] == [next(second) for _ in range(3)]
        assert len(next(first)) == 4096


class TestCalibration:
    def test_everything_is_measured_and_can_be_read_again(self, tmp_path: Path) -> None:
        path = tmp_path / "costs.json"
        assert main(["calibrate", "--quick", "--directory", str(tmp_path), str(path)]) == 0
        assert os.listdir(tmp_path) == ["costs.json"]
        found = Costs.load(path)
        assert found.cores == len(os.sched_getaffinity(0))
        assert set(found.stores) == {"file", "lz4", "zstd"}
        costs = {field.name: getattr(found, field.name) for field in fields(Costs)}
        del costs["cores"], costs["stores"]
        for name, store in found.stores.items():
            assert store.ratio >= 1
            costs |= {f"{name}.read": store.read, f"{name}.write": store.write}
        for name, cost in costs.items():
            assert all(math.isfinite(part) for part in (cost.call, cost.byte, cost.spread)), name
            assert cost.of(65536) > 0 or name in {"wake", "worker", "turn"}, name
        for name in ("install", "zero", "punch", "read", "zstd.write", "zstd.read", "lz4.write", "lz4.read"):
            assert costs[name].byte > 0, name

    @pytest.mark.parametrize("stage", ["the disk", "faults and pages", "the pager", "threads"])
    def test_a_calibration_that_is_interrupted_leaves_nothing(self, stage: str, tmp_path: Path) -> None:
        def interrupt(what: str) -> None:
            if what == stage:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            calibrate(str(tmp_path), quick=True, progress=interrupt)
        assert os.listdir(tmp_path) == []

    def test_this_process_is_as_before(self, tmp_path: Path) -> None:
        seen: list[tuple[float, bool]] = []

        def look(_: object) -> None:
            seen.append((sys.getswitchinterval(), gc.isenabled()))

        before = sys.getswitchinterval()
        sys.setswitchinterval(0.004)
        gc.enable()
        try:
            with pytest.raises(StoreError):
                calibrate(str(tmp_path / "none"), quick=True, progress=look)
            assert sys.getswitchinterval() == pytest.approx(0.004)
            assert gc.isenabled()
        finally:
            sys.setswitchinterval(before)
            gc.enable()
        assert seen == [(pytest.approx(0.0005), False)]


@pytest.fixture
def stub(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Instead of a calibration: made-up costs, and a list of the directories that were to be measured."""
    asked: list[str] = []

    def fake(directory: str, **_: object) -> Costs:
        asked.append(directory)
        return some_costs()

    monkeypatch.setattr(assembly, "calibrate", fake)
    return asked


class TestCommand:
    def test_without_a_file_the_costs_go_to_stdout(self, stub: list[str], capfd: pytest.CaptureFixture[str]) -> None:
        assert main(["calibrate"]) == 0
        out, err = capfd.readouterr()
        assert Costs.loads(out) == some_costs()
        assert out == some_costs().dumps()
        assert err == ""
        assert stub == [tempfile.gettempdir()]

    def test_the_directory_is_the_one_that_is_named(
        self, stub: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        main(["calibrate", "--directory", "there", "costs.json"])
        assert stub == [str(tmp_path / "there")]
        assert Costs.load(tmp_path / "costs.json") == some_costs()

    def test_a_file_that_is_there_is_replaced(self, stub: list[str], tmp_path: Path) -> None:
        path = tmp_path / "costs.json"
        path.write_text("old" * 10_000)
        assert main(["calibrate", str(path)]) == 0
        assert path.read_text() == some_costs().dumps()
        assert os.listdir(tmp_path) == ["costs.json"]

    @pytest.mark.parametrize("name", ["none/costs.json", ".", ""])
    def test_a_file_that_cannot_be_written_is_told_before_anything_is_measured(
        self,
        name: str,
        stub: list[str],
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        capfd: pytest.CaptureFixture[str],
    ) -> None:
        monkeypatch.chdir(tmp_path)
        with pytest.raises(SystemExit) as exit_:
            main(["calibrate", name])
        out, err = capfd.readouterr()
        assert (exit_.value.code, out, stub) == (2, "", [])
        assert err.startswith(f'thermocline calibrate: error: the file "{name}" cannot be written (')
        assert err.endswith("); name another one\n")
        assert err.count("\n") == 1
        assert os.listdir(tmp_path) == []

    @pytest.mark.parametrize("when", [KeyboardInterrupt, OSError(28, "No space left on device")])
    @pytest.mark.parametrize("old", [True, False])
    def test_writing_that_ends_in_the_middle_leaves_what_was_there(
        self,
        when: BaseException | type[BaseException],
        old: bool,
        stub: list[str],
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        capfd: pytest.CaptureFixture[str],
    ) -> None:
        path = tmp_path / "costs.json"
        if old:
            path.write_text("old")

        def interrupted(*_: object) -> None:
            raise when

        monkeypatch.setattr(os, "rename", interrupted)
        if when is KeyboardInterrupt:
            assert main(["calibrate", str(path)]) == 130
        else:
            with pytest.raises(SystemExit) as exit_:
                main(["calibrate", str(path)])
            assert exit_.value.code == 2
            assert "cannot be written (No space left on device)" in capfd.readouterr().err
        assert os.listdir(tmp_path) == (["costs.json"] if old else [])
        assert not old or path.read_text() == "old"

    def test_ctrl_c_ends_it_and_writes_nothing(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def interrupted(*_: object, **__: object) -> Costs:
            raise KeyboardInterrupt

        monkeypatch.setattr(assembly, "calibrate", interrupted)
        assert main(["calibrate", str(tmp_path / "costs.json")]) == 130
        assert os.listdir(tmp_path) == []

    def test_a_directory_that_takes_no_file_is_told(self, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(SystemExit) as exit_:
            main(["calibrate", "--directory", str(tmp_path / "none"), str(tmp_path / "costs.json")])
        out, err = capfd.readouterr()
        assert (exit_.value.code, out) == (2, "")
        assert err.startswith(f"thermocline calibrate: error: file:{tmp_path}/none: takes no file (")
        assert err.count("\n") == 1
        assert os.listdir(tmp_path) == []

    def test_a_machine_that_cannot_tier_is_told(
        self, no_userfaultfd: None, tmp_path: Path, capfd: pytest.CaptureFixture[str]
    ) -> None:
        assert main(["calibrate", str(tmp_path / "costs.json")]) == 2
        out, err = capfd.readouterr()
        assert (out, err) == ("", "thermocline calibrate: error: there is none here; get one\n")
        assert os.listdir(tmp_path) == []

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [(["--quik"], '"--quik" is unknown; write --quick'), (["a", "b"], '"b" is unknown; write --help')],
    )
    def test_a_mistake_is_one_line_and_exit_status_2(
        self, arguments: list[str], message: str, stub: list[str], capfd: pytest.CaptureFixture[str]
    ) -> None:
        with pytest.raises(SystemExit) as exit_:
            main(["calibrate", *arguments])
        assert exit_.value.code == 2
        assert capfd.readouterr() == ("", f"thermocline calibrate: error: {message}\n")
        assert stub == []

    @pytest.mark.parametrize("terminal", [True, False])
    def test_a_terminal_is_shown_what_is_measured(
        self, terminal: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        shown: list[str] = []

        def fake(directory: str, *, quick: bool, progress: Callable[[str], None]) -> Costs:
            progress("the disk")
            shown.append(capsys.readouterr().err)
            return some_costs()

        monkeypatch.setattr(assembly, "calibrate", fake)
        monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal)
        assert main(["calibrate", str(tmp_path / "costs.json")]) == 0
        assert ["measuring the disk" in line for line in shown] == [terminal]
        left = capsys.readouterr().err.replace("\r", "").replace("\x1b[K", "")
        assert left == ""
