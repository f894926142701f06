"""Tiered memory on a machine with a slow node: where the pages are by the kernel's account, whatever goes wrong."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from arrays import (
    PATIENCE,
    WORDS,
    assert_intact,
    check_books,
    filled,
    kill_pager,
    on_node,
    pattern,
    rest,
    used_without_a_fault,
    wait_for,
)
from nodes import bring_online, online, take_offline

from thermocline import Memory, SpecError
from thermocline.protocol.migrate import DESIGNS

pytestmark = pytest.mark.numa


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
        "from arrays import *\n"
        "with Memory('dram=2MiB, numa:1=4MiB', readahead=0) as memory:\n"
        "    array = filled(memory, 48)\n"
        "    rest(memory)\n"
        "    print(len(on_node(memory, array, 1)))\n"
        "    wait_for(lambda: Path('said').read_text().count('not promoted') == 1)\n"
        "    assert_intact(array)\n"
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
