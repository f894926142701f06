"""The suite of benchmarks checks what it reads, and runs whole."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

SUITE = Path(__file__).resolve().parent.parent / "benchmarks" / "suite"
sys.path.insert(0, str(SUITE))

from contents import BLOCK, KINDS, Contents  # noqa: E402
from limits import cgroup  # noqa: E402
from workloads import WORKLOADS, WrongError  # noqa: E402


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_written_is_what_is_right(kind: str) -> None:
    contents = Contents(kind)
    array = np.zeros(6 * BLOCK, "u8")
    for workload in WORKLOADS.values():
        seconds, amount = workload(array, contents, 1000)
        assert seconds > 0 and amount > 0
    assert np.array_equal(array, contents.at(np.arange(len(array))))


@pytest.mark.parametrize("name", [name for name in WORKLOADS if name != "fill"])
def test_two_pages_that_change_places_are_found(name: str) -> None:
    """All but the first words of these stretches are the same: it is their numbers that tell."""
    contents = Contents("int64")
    array = np.zeros(8 * BLOCK, "u8")
    WORKLOADS["fill"](array, contents, 0)
    halves = array.reshape(2, -1)
    halves[:] = halves[::-1].copy() + (name == "strided")  # it looks at no number
    with pytest.raises(WrongError):
        WORKLOADS[name](array, contents, 20_000)


def test_a_small_run(tmp_path: Path) -> None:
    try:
        with cgroup():
            pass
    except OSError as error:
        pytest.skip(f"no cgroup can be made here: {error}")
    command = [sys.executable, str(SUITE), "--quick", "--scale", "0.07", "--rounds", "1", "--contents", "int64"]
    sides = ["--sides", "thermocline", "plain", "--directory", str(tmp_path), "--json", str(tmp_path / "found.json")]
    ran = subprocess.run([*command, *sides], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    found = json.loads((tmp_path / "found.json").read_text())["results"]["int64"]
    assert not found["left_out"], found["left_out"]
    assert {side: list(workloads) for side, workloads in found["seconds"].items()} == {
        "thermocline": list(WORKLOADS),
        "plain": list(WORKLOADS),
    }
    assert found["spent"]["thermocline"] < found["spent"]["plain"]
