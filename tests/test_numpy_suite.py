"""A cut of NumPy's own suite in 16 MiB of DRAM; ``make test-numpy`` runs the whole of it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

#: What allocates most: every kind of array operation, sorting, indexing, text parsing, masked arrays.
MODULES = ("numpy._core.tests.test_multiarray", "numpy._core.tests.test_numeric", "numpy.lib.tests", "numpy.fft.tests")


@pytest.mark.timeout(900)
def test_numpys_own_tests_pass(tmp_path: Path) -> None:
    stat = tmp_path / "stat.json"
    run = subprocess.run(
        [
            *(sys.executable, "-m", "thermocline.cli", "run", "--quiet", "--min-array", "4KiB", "--stat", str(stat)),
            *("--memory", f"dram=16MiB, zstd=64MiB, file:{tmp_path}=4GiB"),
            *(str(Path(__file__).with_name("numpy_suite.py")), *MODULES),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stdout[-5000:] + run.stderr[-5000:]
    books = json.loads(stat.read_text())
    assert books["arena"]["peak_resident"] <= 16 << 20
    assert books["vmstat"]["pgfault"] > 10_000, "the suite made no tiered arrays"
    assert books["pager"]["starts"] == 1, "the pager died and was replaced"
