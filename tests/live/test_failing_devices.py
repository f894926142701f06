"""Devices that fail when they are told to: every byte is right, or the program is told."""

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
from abilities import poisons
from test_suspicion import run

from thermocline import Memory, OutOfMemory

SIZE = 2 << 20


@pytest.mark.parametrize("call", [1, 2, 7, 40, 150])
@pytest.mark.parametrize("error", ["EIO", "ENOSPC"])
def test_a_write_that_fails_once_is_nothing(call: int, error: str, tmp_path: Path) -> None:
    ran = run(f"fail write file {error} {call}", "print(right())", f"file:{tmp_path}=16MiB")
    assert (ran.stdout, ran.returncode) == ("True\n", 0), ran.stderr


@pytest.mark.parametrize("call", [1, 40, 200])
def test_a_read_that_fails_once_is_a_sigbus_or_nothing(call: int, tmp_path: Path) -> None:
    ran = run(f"fail read file EIO {call}", "print(right())", f"file:{tmp_path}=16MiB")
    assert (ran.stdout, ran.returncode) in [("True\n", 0), ("", -signal.SIGBUS)], ran.stderr
    assert ran.returncode == 0 or "cannot be read" in ran.stderr


def test_a_device_that_hangs_is_a_stall(tmp_path: Path) -> None:
    ran = run("hang any file 30 1s", "print(right())", f"file:{tmp_path}=16MiB")
    assert (ran.stdout, ran.returncode) == ("True\n", 0), ran.stderr


@pytest.mark.parametrize("call", [1, 20, 300])
def test_a_node_whose_device_is_dead_is_passed_by(call: int, tmp_path: Path) -> None:
    """Pages go past it, what is in it can be read, and the user is told once."""
    below = f"lz4=128KiB;incompressible=demote, file:{tmp_path}=16MiB"
    ran = run(f"fail write lz4 EIO {call} on", "print(right())", below)
    assert (ran.stdout, ran.returncode) == ("True\n", 0), ran.stderr
    assert ran.stderr.count("lz4 refuses every write") == 1


def test_what_a_dead_device_should_hold_cannot_be_allocated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THERMOCLINE_INJECT", "fail write file EIO 1 on")
    with Memory(f"dram=1MiB, zstd=4MiB, file:{tmp_path}=64MiB", page_size="4KiB") as memory:
        plain = np.random.default_rng(0).integers(0, 256, 4 << 20, dtype="u1")
        tiered = memory.array(plain)
        memory.advise(tiered, "cold")
        other = memory.zeros(256 << 10, "u1")
        other[:] = plain[: len(other)]
        while not memory._regions.session.tables.header[8]:
            memory.advise(tiered, "cold")
            assert tiered.sum(dtype="i8") == plain.sum(dtype="i8")
        with pytest.raises(OutOfMemory):
            memory.zeros(16 << 20, "u1")
        assert np.array_equal(tiered, plain)
        del tiered, other


def run_alone(inject: str, program: str, directory: Path) -> subprocess.CompletedProcess[str]:
    """A program with a memory of 1 MiB of DRAM over a file, under injection."""
    prelude = f"""
        import os, threading
        from thermocline import Memory
        def make():
            return Memory("dram=1MiB, file:{directory}=16MiB", page_size="64KiB", readahead=0)
    """
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(prelude) + textwrap.dedent(program)],
        env={**os.environ, "THERMOCLINE_INJECT": inject},
        capture_output=True,
        text=True,
        check=False,
    )


def words_of(ran: subprocess.CompletedProcess[str]) -> list[str]:
    """The lines on stderr, but for what a kernel without UFFDIO_POISON has said besides."""
    return [line for line in ran.stderr.splitlines() if "this kernel cannot poison it" not in line]


FILL = """
    memory = make()
    array = memory.zeros(2 << 20, "u1")
    array[:] = 1
"""
DEAD = "refuses every write and is out of use"
WAITING = "cannot take the pages it should hold, and there is no room for them in any other node; waiting until arrays"


def test_who_waits_for_a_dead_device_is_told_what_for_and_how_long(tmp_path: Path) -> None:
    """At once, which is before the two seconds after which any want of room is told."""
    ran = run_alone("fail write file EIO 1 on; patience 1s", FILL, tmp_path)
    assert ran.returncode == -signal.SIGBUS, ran.stderr
    refused, dead, waiting = words_of(ran)
    assert "cannot be written to" in refused and "it stays where it is" in refused
    assert DEAD in dead
    assert f"file:{tmp_path} {WAITING}" in waiting
    assert "for up to 1 s, then the access ends in SIGBUS" in waiting


def test_who_gives_up_was_told(tmp_path: Path) -> None:
    """A full disk is not out of use: it may have room again."""
    ran = run_alone("fail write file ENOSPC 1 on; patience 1s", FILL, tmp_path)
    assert ran.returncode == -signal.SIGBUS, ran.stderr
    (line,) = words_of(ran)
    assert "there is no room for a page in any node; waiting (for up to 1 s" in line


def test_an_array_that_is_freed_ends_the_wait_for_a_dead_device(tmp_path: Path) -> None:
    program = """
        hears, says = os.pipe()
        os.dup2(says, 2)
        memory = make()
        other = [memory.zeros(512 << 10, "u1")]
        other[0][:] = 2
        def free():
            for line in os.fdopen(hears):
                if "waiting until arrays are freed" in line:
                    other.clear()
                    return
        threading.Thread(target=free).start()
        array = memory.zeros(1 << 20, "u1")
        array[: 512 << 10] = 1
        array[512 << 10 :] = 3
        print(array[: 512 << 10].sum(), array[512 << 10 :].sum())
    """
    ran = run_alone("fail write file EIO 1 on", program, tmp_path)
    assert (ran.stdout, ran.returncode) == (f"{512 << 10} {3 * (512 << 10)}\n", 0), ran.stderr


def test_patience_ends_although_the_pager_is_kept_busy(tmp_path: Path) -> None:
    """Somebody asks for the books all the time, so the pager is never without news."""
    program = """
        memory = make()
        def ask():
            while True:
                memory.stat()
        threading.Thread(target=ask, daemon=True).start()
        array = memory.zeros(2 << 20, "u1")
        array[:] = 1
    """
    ran = run_alone("fail write file EIO 1 on; patience 1s", program, tmp_path)
    assert ran.returncode == -signal.SIGBUS, ran.stderr
    assert ran.stderr.count(WAITING) == 1


def test_patience_ends_although_the_device_takes_its_time_to_refuse(tmp_path: Path) -> None:
    """Each look for room takes longer than the pause after which allocations count as another case."""
    ran = run_alone("hang write file 1 100ms on; fail write file ENOSPC 1 on; patience 2s", FILL, tmp_path)
    assert ran.returncode == -signal.SIGBUS, ran.stderr
    assert ran.stderr.count("there is no room for a page in any node") == 1


@poisons
def test_a_page_that_was_refused_for_want_of_room_is_not_lost(tmp_path: Path) -> None:
    """An access to it stays refused, until it is brought up where there is room again."""
    program = """
        PAGE = 64 << 10
        scratch = os.memfd_create("scratch")
        def read(page):
            try:
                os.pwrite(scratch, below[page * PAGE : (page + 1) * PAGE].data, 0)
            except OSError:
                return "refused"
            return set(os.pread(scratch, PAGE, 0))
        memory = make()
        below = memory.zeros(2 * PAGE, "u1")
        below[:] = 5
        memory.advise(below, "cold")
        above = memory.zeros(16 * PAGE, "u1")
        above[:] = 6
        print(read(0), above.min(), above.max())
        del above
        with memory.pin(below):
            print(read(0), read(1))
    """
    ran = run_alone("fail write file EIO 3 on; patience 1s", program, tmp_path)
    assert (ran.stdout, ran.returncode) == ("refused 6 6\n{5} {5}\n", 0), ran.stderr


def test_a_message_that_nobody_can_hear_costs_nothing(tmp_path: Path) -> None:
    """Standard error is a pipe whose reader has gone, as behind ``| head``."""
    program = """
        hears, says = os.pipe()
        os.close(hears)
        os.dup2(says, 2)
        memory = make()
        array = memory.zeros(2 << 20, "u1")
        array[:] = 1
        print(array.min(), memory.stat()["pager"]["starts"])
    """
    ran = run_alone("fail write file EIO 1", program, tmp_path)
    assert (ran.stdout, ran.returncode) == ("1 1\n", 0)
