"""The suite of benchmarks checks what it reads, shares DRAM fairly, leaves nothing behind, and runs whole."""

import json
import mmap
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

SUITE = Path(__file__).resolve().parent.parent / "benchmarks" / "suite"
sys.path.insert(0, str(SUITE))

import floor  # noqa: E402
import numerics  # noqa: E402
import render  # noqa: E402
from contents import BLOCK, KINDS, Contents, WrongError  # noqa: E402
from fairness import equal_limit  # noqa: E402
from goals import AIMS, goals  # noqa: E402
from limits import cgroup  # noqa: E402
from process import KilledError, persistent, said  # noqa: E402
from samples import DRAM, Table, in_turn  # noqa: E402
from swap import zram_swap  # noqa: E402
from workloads import ALGORITHMS, WORKLOADS, Work  # noqa: E402

MIB = 1 << 20


# -- the work ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_written_is_what_is_right(kind: str) -> None:
    array = np.zeros(6 * BLOCK, "u8")
    with Work(Contents(kind), len(array), 1000) as work:
        for name, workload in WORKLOADS.items():
            if name not in ALGORITHMS:
                assert workload.figure(array, work) > 0
        assert np.array_equal(array, work.contents.at(np.arange(len(array))))


@pytest.mark.parametrize("name", [name for name in WORKLOADS if not name.startswith("fill") and name not in ALGORITHMS])
def test_two_pages_that_change_places_are_found(name: str) -> None:
    """All but the first words of these stretches are the same: it is their numbers that tell."""
    array = np.zeros(8 * BLOCK, "u8")
    with Work(Contents("int64"), len(array), 20_000) as work:
        WORKLOADS["fill"].figure(array, work)
        halves = array.reshape(2, -1)
        halves[:] = halves[::-1].copy() + name.startswith("a word each")  # it looks at no number
        with pytest.raises(WrongError):
            WORKLOADS[name].figure(array, work)


class Wrong(np.ndarray):
    """An array that neither sorts nor multiplies as it should."""

    def sort(self) -> None:  # type: ignore[override]
        self[:-1].view(np.ndarray).sort()
        self[-1] = 0

    def __matmul__(self, other: np.ndarray) -> np.ndarray:
        product = np.matmul(self.view(np.ndarray), other.view(np.ndarray))
        product.flat[-1] += other.ndim - 1  # of a matrix, not of a vector
        return product


@pytest.mark.parametrize("algorithm", [numerics.multiply, numerics.sort])
def test_an_algorithm_knows_its_result(algorithm) -> None:
    words = np.zeros(1 << 16, "u8")
    assert algorithm(words)[1]
    assert not algorithm(words.view(Wrong))[1]


# -- fairness ---------------------------------------------------------------------------------------------------------


def test_limit_and_pool_come_to_the_total() -> None:
    """A pool that squeezes by 2.5, and takes a little more than that says."""

    def pool(limit: int) -> int:
        return int((256 * MIB - limit) / 2.5) + MIB // 2

    limit = equal_limit(147 * MIB, 256 * MIB, 64 * MIB, pool)
    assert not limit.reason
    assert limit.size + pool(limit.size) == pytest.approx(147 * MIB, rel=0.02)


@pytest.mark.parametrize("squeeze", [1.08, 1.0])
def test_what_the_pool_cannot_hold_in_the_total_is_said(squeeze: float) -> None:
    limit = equal_limit(147 * MIB, 256 * MIB, 64 * MIB, lambda limit: int((256 * MIB - limit) / squeeze))
    assert limit.size == 64 * MIB
    assert "cannot hold it in 147 MiB" in limit.reason


def test_ratios_are_of_the_same_round() -> None:
    """Round 1 is missing of one side: its figure of the other must not slip to round 2."""
    table = Table("", ["ours", "peer"])
    for number, (ours, peer) in enumerate([(2.0, 1.0), (None, 100.0), (6.0, 3.0)]):
        if ours is not None:
            table.add("row", "us", "ours", number, ours)
        table.add("row", "us", "peer", number, peer)
    ratio = table.cells["row"].over("ours", "peer")
    assert ratio is not None
    assert (ratio.median, ratio.rounds) == (2.0, 2)
    faster = table.cells["row"].speed("ours", "peer")
    assert faster is not None and faster.median == 0.5


def test_sides_take_turns_back_and_forth() -> None:
    assert list(in_turn("ab", 2)) == [(0, "a"), (0, "b"), (1, "b"), (1, "a")]


# -- processes, limits, swap ------------------------------------------------------------------------------------------


def test_a_wrong_byte_is_no_missing_peer() -> None:
    script = f"import sys; sys.path.insert(0, {str(SUITE)!r}); from contents import check; check(False, 'scan')"
    with pytest.raises(WrongError, match="scan"):
        said([sys.executable, "-c", script])


def test_who_was_killed_has_another_try() -> None:
    tries = iter([KilledError("killed"), {"seconds": 1.0, "saved": 0}])

    def run() -> dict[str, float]:
        if isinstance(found := next(tries), Exception):
            raise found
        return found

    assert persistent(run) == {"seconds": 1.0, "saved": 1}


def test_a_process_over_its_limit_is_kept_alive() -> None:
    try:
        with cgroup() as group, group.kept_alive() as saved:
            if not (group.path / "memory.oom_control").exists():
                pytest.skip("with cgroups of version 2, the kernel kills")
            pid = os.fork()
            if not pid:
                group.enter()
                group.limit(group.used() + 2 * MIB)
                memory = mmap.mmap(-1, 8 * MIB)
                for at in range(0, len(memory), mmap.PAGESIZE):
                    memory[at] = 1
                os._exit(0)
            assert os.waitpid(pid, 0)[1] == 0
            assert saved
    except OSError as error:
        pytest.skip(f"no cgroup can be made here: {error}")


def test_swap_is_gone_after_a_failure() -> None:
    device = ""
    try:
        with zram_swap(4 * MIB) as zram:
            device = zram.device.name
            assert device in Path("/proc/swaps").read_text()
            raise ValueError
    except OSError as error:
        pytest.skip(f"no swap can be made here: {error}")
    except ValueError:
        pass
    assert device not in Path("/proc/swaps").read_text()
    assert not Path("/sys/block", device).exists()


# -- the floor --------------------------------------------------------------------------------------------------------

needs_compiler = pytest.mark.skipif(shutil.which("gcc") is None, reason="there is no C compiler")


@needs_compiler
@pytest.mark.parametrize("one_core", [True, False])
def test_the_floor_answers(one_core: bool, tmp_path: Path) -> None:
    program = floor.compiled(tmp_path)
    try:
        assert floor.floor(program, 4096, 64, 1, one_core) > 0
    except OSError as error:
        if "userfaultfd" in str(error):
            pytest.skip(str(error))
        raise


@needs_compiler
def test_a_floor_that_does_not_compile_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "floor.c").write_text("int main(void) { return x; }\n")
    monkeypatch.setattr(floor, "HERE", tmp_path)
    with pytest.raises(OSError, match="gcc failed"):
        floor.compiled(tmp_path)


# -- the page ---------------------------------------------------------------------------------------------------------


def results(*tables: Table) -> dict[str, object]:
    about = {"command": "make bench", "rounds": 5, "seconds": 60.0, "date": "today", "machine": "", "versions": ""}
    return {**about, "left_out": {}, "tables": {table.title: table.as_dict() for table in tables}}


def scan_table(ours: float) -> Table:
    table = Table("arrays, int64", ["thermocline", "zram"])
    for number in range(5):
        table.add("scan", "GB/s", "thermocline", number, ours)
        table.add("scan", "GB/s", "zram", number, 0.2)
    return table


@pytest.mark.parametrize("ours, verdict", [(1.1, "int64: met"), (0.5, "int64: **short, 2 times**")])
def test_a_shortfall_is_marked(ours: float, verdict: str) -> None:
    (line,) = (
        line for line in render.page(results(scan_table(ours))).splitlines() if "scan, compressible / zram" in line
    )
    assert line.endswith(f"| {verdict} |")


def test_a_peer_with_more_memory_is_marked() -> None:
    table = scan_table(1.1)
    for side, taken in (("thermocline", 100.0), ("zram", 150.0)):
        table.add(DRAM, "MiB", side, 0, taken)
    assert "zram had 1.5 times the DRAM" in render.page(results(table))


def test_what_was_not_measured_is_no_goal_met() -> None:
    assert {goal.verdict for goal in goals({})} == {"**open**"}


def test_every_aim_names_a_row_that_is_measured() -> None:
    measured = {*WORKLOADS, "held by a byte of compressed memory"}
    assert {aim.row for aim in AIMS if aim.tables[0].startswith("arrays")} <= measured


def test_results_come_between_the_marks(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"before\n{render.BEGIN}\nold\n{render.END}\nafter\n")
    (tmp_path / "found.json").write_text(json.dumps(results(scan_table(1.0))))
    command = [sys.executable, str(SUITE), "--render", str(tmp_path / "found.json"), "--page", str(page)]
    subprocess.run(command, check=True)
    text = page.read_text()
    assert text.startswith("before\n") and text.endswith("after\n") and "old" not in text
    assert "| scan | 1 GB/s ±0 % | 0.2 GB/s ±0 %; 5 (5 to 5) |" in text


def test_a_page_without_marks_stays_as_it_is(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("text\n")
    with pytest.raises(ValueError, match="no <!--"):
        render.into(page, "results")
    assert page.read_text() == "text\n"


# -- all of it --------------------------------------------------------------------------------------------------------


def run(directory: Path, *options: str, **environment: str) -> dict[str, Table]:
    """The tables of a small run."""
    try:
        with cgroup():
            pass
    except OSError as error:
        pytest.skip(f"no cgroup can be made here: {error}")
    command = [sys.executable, str(SUITE), "--quick", "--scale", "0.07", "--rounds", "1", "--directory", str(directory)]
    ran = subprocess.run(
        [*command, "--json", str(directory / "found.json"), *options],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    found = json.loads((directory / "found.json").read_text())
    assert not found["left_out"]
    return {name: Table.of(table) for name, table in found["tables"].items()}


def test_arrays(tmp_path: Path) -> None:
    sides = ["thermocline", "memmap", "plain"]
    table = run(tmp_path, "--sections", "arrays", "--sides", *sides)["arrays, int64"]
    assert not table.remarks
    rows = {row: set(cell.samples) for row, cell in table.cells.items() if row in WORKLOADS}
    assert rows and all(there == set(sides) for there in rows.values())
    spent = {side: max(table.cells[DRAM].of(side)) for side in table.sides}
    assert spent["memmap"] <= spent["thermocline"] + 2 < spent["plain"]


def test_zram_has_the_dram_that_ours_took(tmp_path: Path) -> None:
    table = run(tmp_path, "--sections", "arrays", "--sides", "thermocline", "zram", "--scale", "0.25")["arrays, int64"]
    if any("was left out" in remark for remark in table.remarks):
        pytest.skip(table.remarks[0])
    assert not table.remarks
    spent = {side: max(table.cells[DRAM].of(side)) for side in table.sides}
    assert spent["zram"] == pytest.approx(spent["thermocline"], rel=0.15)


def test_a_peer_that_does_not_start_is_left_out_with_its_reason(tmp_path: Path) -> None:
    (tmp_path / "zict.py").write_text("raise ImportError('it is broken here')\n")
    path = os.pathsep.join(filter(None, [str(tmp_path), os.environ.get("PYTHONPATH")]))
    table = run(tmp_path, "--sections", "whole arrays", PYTHONPATH=path)["whole arrays"]
    assert "zict was left out from round 1: ImportError: it is broken here." in table.remarks
    assert set(table.cells["get"].samples) & {"thermocline", "zict"} == {"thermocline"}


def test_a_whole_program_on_all_sides(tmp_path: Path) -> None:
    table = run(tmp_path, "--sections", "programs", "--sides", "thermocline", "plain")["programs"]
    assert {row for row, cell in table.cells.items() if cell.unit == "s"} == {"svd", "tables", "pagerank"}
    assert all(set(cell.samples) == {"thermocline", "plain"} for cell in table.cells.values())


def test_a_section_is_measured_again(tmp_path: Path) -> None:
    earlier = results(scan_table(1.0))
    (tmp_path / "found.json").write_text(json.dumps(earlier))
    found = run(tmp_path, "--sections", "start", "--update")
    assert set(found) == {"arrays, int64", "start"}


def test_what_is_not_an_array(tmp_path: Path) -> None:
    found = run(tmp_path, "--sections", "resident", "start", "floor", "scale")
    assert set(found["resident"].cells) == {"sequential", "random"}
    assert found["start"].cells["import and start"].of("thermocline")
    assert all(set(cell.samples) == {"thermocline", "floor"} for cell in found["floor"].cells.values())
    assert 0 < found["scale"].cells["metadata"].of("64 GiB")[0] < 5
