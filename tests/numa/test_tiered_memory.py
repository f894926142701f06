"""Tiered memory on a machine with a slow node: who is where by the kernel's account, whatever goes wrong."""

from __future__ import annotations

import mmap
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from nodes import bring_online, online, take_offline

from thermocline import Memory, SpecError
from thermocline.live.tables import Tables
from thermocline.protocol.migrate import DESIGNS
from thermocline.protocol.page import RESIDENT, PageTable

sys.path.insert(0, str(Path(__file__).parent.parent))
from pagers import children, find_supervisor

pytestmark = pytest.mark.numa

MIB = 1 << 20
PAGE = 64 << 10
WORDS = PAGE // 8
#: Seconds that only a failure takes.
PATIENCE = 300.0


def filled(memory: Memory, pages: int) -> np.ndarray:
    """An array each of whose words holds its own number, and that does not compress to nothing."""
    made = memory.empty(pages * WORDS, "u8")
    for page in range(pages):
        made[page * WORDS : (page + 1) * WORDS] = pattern(page)
    return made


def pattern(page: int) -> np.ndarray:
    return np.arange(page * WORDS, (page + 1) * WORDS, dtype="u8") * np.uint64(0x9E3779B97F4A7C15)


def assert_intact(array: np.ndarray, added: int = 0) -> None:
    for page in range(len(array) // WORDS):
        assert (array[page * WORDS : (page + 1) * WORDS] == pattern(page) + np.uint64(added)).all(), f"page {page}"


def pages_on(memory: Memory) -> dict[int, int]:
    """Bytes of the arena on each of the machine's nodes, by the kernel's account (proc(5), numa_maps)."""
    address = memory._regions.session.address
    for line in Path("/proc/self/numa_maps").read_text().splitlines():
        if line.startswith(f"{address:x} "):
            return {int(node): int(count) * mmap.PAGESIZE for node, count in re.findall(r"\bN(\d+)=(\d+)", line)}
    raise AssertionError("the arena is not mapped")


def table(memory: Memory) -> PageTable:
    tables = memory._regions.session.tables
    return PageTable(tables.pages, tables.page_columns)


def on_node(memory: Memory, array: np.ndarray, node: int) -> list[int]:
    """The pages of an array, counted from its first, whose frames are on a node by the page table."""
    first = (array.ctypes.data - memory._regions.session.address) // PAGE
    entries = [table(memory).read(first + page) for page in range(len(array) // WORDS)]
    return [page for page, entry in enumerate(entries) if entry.state == RESIDENT and entry.node == node]


def wait_for(what: Callable[[], bool]) -> None:
    """Look until it is so: the pager tells nobody."""
    end = time.monotonic() + PATIENCE
    while not what():
        assert time.monotonic() < end, "it never came to be"
        time.sleep(0.01)


def rest(memory: Memory) -> None:
    """Wait until the pager has nothing to do: what it has reserved is used then, or given back."""
    header = memory._regions.session.tables.header
    header[Tables.HEADER_RESTED] = 0
    memory.stat()
    wait_for(lambda: header[Tables.HEADER_RESTED] != 0)


def kill_pager() -> None:
    supervisor = find_supervisor(os.getpid())
    (pager,) = children(supervisor)
    os.kill(pager, signal.SIGKILL)


def books_agree(memory: Memory, array: np.ndarray) -> bool:
    """Whether page table, budgets and kernel say the same of who is where: not while a frame is on its way."""
    first = (array.ctypes.data - memory._regions.session.address) // PAGE
    # What was unmapped from us, to see whether we use it, is not in numa_maps: touch it.
    for page in range(len(array) // WORDS):
        if table(memory).resident(first + page):
            array[page * WORDS : (page + 1) * WORDS : mmap.PAGESIZE // 8].sum()
    kernel, nodes = pages_on(memory), memory.stat()["nodes"]
    assert kernel.get(0, 0) <= nodes["dram"]["capacity"]
    assert kernel.get(1, 0) <= nodes["numa:1"]["capacity"]
    charged = {node: len(on_node(memory, array, node)) * PAGE for node in (0, 1)}
    return kernel.get(1, 0) == charged[1] == nodes["numa:1"]["used"]


def check_books(memory: Memory, array: np.ndarray) -> None:
    wait_for(lambda: books_agree(memory, array))


def used_without_a_fault(memory: Memory, array: np.ndarray) -> bool:
    """Read and write pages of slow memory -> whether that was no fault; not if reclaim has just taken one of them."""
    slow = on_node(memory, array, 1)[-8:]
    faults = memory.stat()["vmstat"]["pgfault"]
    for page in slow:
        assert (array[page * WORDS : (page + 1) * WORDS] == pattern(page)).all()
        array[page * WORDS : (page + 1) * WORDS] += np.uint64(0)
    return bool(slow) and memory.stat()["vmstat"]["pgfault"] == faults


@pytest.mark.parametrize("design", DESIGNS)
def test_arrays_beyond_dram_lie_in_slow_memory_and_are_used_there(design: str) -> None:
    with Memory("dram=2MiB, numa:1=4MiB, zstd=8MiB", design=design, readahead=0) as memory:
        array = filled(memory, 160)  # 10 MiB
        check_books(memory, array)
        if design != "discard":
            assert len(on_node(memory, array, 1)) >= 40
            wait_for(lambda: used_without_a_fault(memory, array))
        assert_intact(array)
        array += np.uint64(1)
        kill_pager()
        assert_intact(array, 1)
        check_books(memory, array)
        assert memory.stat()["pager"]["starts"] == 2
        assert memory.stat()["vmstat"]["pgmigrate_fail"] == 0


def test_pagers_that_are_killed_while_frames_move_leave_books_that_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the middle of the kernel's move, behind it, and before the frame that it came from is given back."""
    kills = "kill after CopyList 2; kill before Commit 50; kill after CopyList 4; kill before Release 30"
    monkeypatch.setenv("THERMOCLINE_INJECT", kills)
    with Memory("dram=2MiB, numa:1=4MiB, zstd=8MiB", readahead=0) as memory:
        array = filled(memory, 144)
        assert_intact(array)
        assert memory.stat()["pager"]["starts"] == 5
        check_books(memory, array)
        assert_intact(array)


def test_pages_that_are_used_go_up_and_the_others_stay() -> None:
    with Memory("dram=4MiB, numa:1=8MiB", readahead=0) as memory:
        array = filled(memory, 128)
        memory.advise(array, "cold")
        rest(memory)
        cold = on_node(memory, array, 1)
        hot = cold[10:18]
        faults = memory.stat()["vmstat"]["pgfault"]

        def used() -> bool:
            for page in hot:
                assert array[page * WORDS] == pattern(page)[0]
            return set(hot) <= set(on_node(memory, array, 0))

        wait_for(used)
        counters = memory.stat()["vmstat"]
        assert counters["pgfault"] == faults  # none of it has stopped the program
        assert counters["numa_hint_faults"] >= counters["numa_pages_migrated"] >= len(hot)
        assert len(on_node(memory, array, 1)) >= len(cold) - len(hot) - counters["numa_hint_faults"] + len(hot)
        check_books(memory, array)
        assert_intact(array)


def test_a_node_that_goes_offline_keeps_its_pages_and_is_out_of_use(capfd: pytest.CaptureFixture[str]) -> None:
    with Memory("dram=2MiB, numa:1=4MiB, zstd=16MiB", readahead=0) as memory:
        array = filled(memory, 64)
        rest(memory)
        assert on_node(memory, array, 1)
        blocks = take_offline(1)
        try:
            assert not online(1)
            assert_intact(array)
            more = filled(memory, 64)
            assert_intact(array)
            assert_intact(more)
            kill_pager()
            assert_intact(array)
            assert_intact(more)
            with pytest.raises(SpecError, match="memory node 1"):
                Memory("dram=2MiB, numa:1=4MiB")
        finally:
            bring_online(blocks)
    said = capfd.readouterr().err
    assert "numa:1" in said
    assert "there is no such memory node any more" in said


def test_pages_that_a_child_has_mapped_too_are_moved() -> None:
    with Memory("dram=2MiB, numa:1=8MiB", readahead=0) as memory:
        array = filled(memory, 24)
        child = os.fork()
        if child == 0:
            ok = all((array[page * WORDS : (page + 1) * WORDS] == pattern(page)).all() for page in range(24))
            os._exit(not ok)
        assert os.waitpid(child, 0)[1] == 0
        memory.advise(array, "cold")
        rest(memory)
        assert len(on_node(memory, array, 1)) == 24
        check_books(memory, array)


def test_dram_may_be_tied_to_a_node() -> None:
    with Memory("dram@0=2MiB, numa:1=4MiB") as memory:
        array = filled(memory, 24)
        check_books(memory, array)


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("dram=2MiB, numa:7=4MiB", "there is no memory node 7 online"),
        ("dram@1=2MiB, numa:0=4MiB", "is faster than memory node 1 above it"),
        ("dram=2MiB, numa:0=4MiB", "would leave no memory node for dram"),
        ("dram=2MiB, numa:1=400GiB", "is more than memory node 1 has"),
    ],
)
def test_what_this_machine_cannot_give_is_refused(spec: str, says: str) -> None:
    with pytest.raises(SpecError) as refused:
        Memory(spec)
    assert says in str(refused.value)
    assert "numa:1" in str(refused.value) or "smaller" in str(refused.value)


def test_a_memory_policy_that_forbids_the_node_is_told() -> None:
    program = "from thermocline import parse_spec; parse_spec('dram=2MiB, numa:1=4MiB')"
    command = ["numactl", "--membind=0", sys.executable, "-c", program]
    ran = subprocess.run(command, capture_output=True, text=True, check=False, timeout=PATIENCE)
    assert "numactl --membind" in ran.stderr


def test_without_the_privilege_pages_go_down_and_the_user_is_told_that_they_stay() -> None:
    program = (
        "import numpy as np, test_tiered_memory as t\n"
        "with t.Memory('dram=2MiB, numa:1=4MiB', readahead=0) as memory:\n"
        "    array = t.filled(memory, 48)\n"
        "    t.rest(memory)\n"
        "    print(len(t.on_node(memory, array, 1)))\n"
        "    t.wait_for(lambda: t.Path('said').read_text().count('not promoted') == 1)\n"
        "    t.assert_intact(array)\n"
    )
    directory = Path("/tmp/thermocline-unprivileged")
    directory.mkdir(exist_ok=True)
    with (directory / "said").open("w") as said:
        ran = subprocess.run(
            ["setpriv", "--bounding-set=-sys_nice", "--inh-caps=-sys_nice", sys.executable, "-c", program],
            cwd=directory,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, Path(__file__).parents[:2]))},
            stdout=subprocess.PIPE,
            stderr=said,
            text=True,
            check=False,
            timeout=PATIENCE,
        )
    text = (directory / "said").read_text()
    assert ran.returncode == 0, text
    assert int(ran.stdout) >= 8
    assert "run with CAP_SYS_NICE" in text


def test_the_doctor_shows_the_tree() -> None:
    command = [sys.executable, "-c", "from thermocline.cli import main; main(['doctor'])"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True, timeout=PATIENCE).stdout
    assert re.search(r"node 0: .*with processors, tier \d+ -> node 1 \(distance 20\)", shown)
    assert re.search(r"node 1: .*without processors, tier \d+\n", shown)
    assert re.search(r'Memory\("auto"\) is "dram=\d+, numa:1=\d+, zstd=', shown)
    assert re.search(r"ok +promotion", shown)
