"""The demonstration, small: the same answers in plain memory and in a quarter of it."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("sklearn", reason="the demo needs its own extra: pip install thermocline[demo]")

DEMO = Path(__file__).parents[1] / "demo"
MIB = 1 << 20

DOCUMENTS, TERMS = 3_000, 2_000
MATRIX = DOCUMENTS * TERMS * 4  # bytes
SMALL = [str(DEMO / "topics.py"), f"--documents={DOCUMENTS}", f"--terms={TERMS}", "--components=20"]

# One thread adds up in one order, so that results can be compared to the last bit.
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


def output(*command: str | Path) -> str:
    """What a command prints; it must succeed."""
    done = subprocess.run(
        [sys.executable, *map(str, command)],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, dict[str, Any]]:
    """What the plain run prints, and its results."""
    out = tmp_path_factory.mktemp("plain") / "out.json"
    return output(*SMALL, "--out", out), json.loads(out.read_text())


def test_answers_make_sense(plain: tuple[str, dict[str, Any]]) -> None:
    printed, results = plain
    assert "Nearest to Lib/calendar.py" in printed
    assert "Lib/datetime.py" in results["neighbours"]["Lib/calendar.py"]
    assert not {"self", "import", "the", "none"} & {term for topic in results["topics"] for term in topic["terms"]}
    assert sum(topic["documents"] for topic in results["topics"]) == len(results["labels"]) == DOCUMENTS


def test_program_knows_nothing_of_us() -> None:
    assert "thermocline" not in (DEMO / "topics.py").read_text()


def test_plain_run_repeats(plain: tuple[str, dict[str, Any]], tmp_path: Path) -> None:
    assert output(*SMALL, "--out", tmp_path / "out.json") == plain[0]
    assert json.loads((tmp_path / "out.json").read_text()) == plain[1]


def test_tiered_run_is_identical(plain: tuple[str, dict[str, Any]], tmp_path: Path) -> None:
    pytest.importorskip("thermocline.memory")
    pytest.importorskip("thermocline.cli.run")
    budget = MATRIX // 4 // MIB * MIB
    memory = f"dram={budget // MIB}MiB, zstd={budget // MIB}MiB, file:{tmp_path}=256MiB"
    run = ["-m", "thermocline.cli", "run", "--memory", memory, "--stat", tmp_path / "stat.json", "--"]

    assert output(*run, *SMALL, "--out", tmp_path / "out.json") == plain[0]
    assert json.loads((tmp_path / "out.json").read_text()) == plain[1]

    stat = json.loads((tmp_path / "stat.json").read_text())
    assert 0 < stat["arena"]["peak_resident"] <= budget
    assert stat["vmstat"]["pgdemote_kswapd"] + stat["vmstat"]["pgdemote_direct"] > 0


def test_an_unknown_file_is_a_usage_error() -> None:
    command = [sys.executable, *SMALL, "--query", "no/such/file"]
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert "not among the documents: no/such/file" in done.stderr
