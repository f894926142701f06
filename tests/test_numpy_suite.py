"""A cut of NumPy's own suite in 16 MiB of DRAM; ``make test-numpy`` runs the whole of it."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

#: What allocates most: every kind of array operation, sorting, indexing, text parsing, masked arrays.
MODULES = ("numpy._core.tests.test_multiarray", "numpy._core.tests.test_numeric", "numpy.lib.tests", "numpy.fft.tests")


@pytest.mark.timeout(900)
def test_numpys_own_tests_pass(tmp_path: Path) -> None:
    books = pass_in_16_mib(tmp_path, [], MODULES)
    assert books["vmstat"]["pgfault"] > 10_000, "the suite made no tiered arrays"
    assert books["pager"]["starts"] == 1, "the pager died and was replaced"


@pytest.mark.timeout(900)
@pytest.mark.skipif(os.geteuid() != 0, reason="the helpers' descriptors are open to root only")
def test_numpys_own_tests_pass_while_the_pager_is_killed_five_times_a_second(tmp_path: Path) -> None:
    killer = [sys.executable, str(Path(__file__).with_name("pagers.py")), "--kills-a-second", "5", "--"]
    books = pass_in_16_mib(tmp_path, killer, MODULES[1:2])
    assert books["pager"]["starts"] > 10, "hardly any pager was killed"


def pass_in_16_mib(directory: Path, prefix: Sequence[str], modules: Sequence[str]) -> dict[str, Any]:
    """Run some of NumPy's tests in 16 MiB of DRAM, see that they pass -> the counters."""
    stat = directory / "stat.json"
    run = subprocess.run(
        [
            *prefix,
            *(sys.executable, "-m", "thermocline.cli", "run", "--quiet", "--min-array", "4KiB", "--stat", str(stat)),
            *("--memory", f"dram=16MiB, zstd=64MiB, file:{directory}=4GiB"),
            *(str(Path(__file__).with_name("numpy_suite.py")), *modules),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stdout[-5000:] + run.stderr[-5000:]
    books: dict[str, Any] = json.loads(stat.read_text())
    assert books["arena"]["peak_resident"] <= 16 << 20
    return books
