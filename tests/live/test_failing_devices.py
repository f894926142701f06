"""Devices that fail when they are told to: every byte is right, or the program is told."""

import signal
from pathlib import Path

import numpy as np
import pytest
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
