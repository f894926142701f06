"""`thermocline lab`, as a user runs it."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from thermocline.cli import main
from thermocline.virtual.costs import Cost, Costs, StoreCosts

QUICK = ["--touches", "30", "--repeats", "2", "--pages", "16"]
STEPS = ("hit", "fault", "wake", "think", "turn", "message", "effect", "request", "submit", "worker", "install", "zero")
STEPS += ("protect", "unprotect", "punch", "read", "poison")


@pytest.fixture
def costs(tmp_path: Path) -> Path:
    path = tmp_path / "costs.json"
    shelf = StoreCosts(Cost(20_000), Cost(30_000), 1.5)
    made = Costs(cores=2, **dict.fromkeys(STEPS, Cost(2000)), stores={"zstd": shelf, "file": shelf})
    path.write_text(made.dumps())
    return path


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    try:
        status = main(["lab", *arguments])
    except SystemExit as exit:
        status = int(str(exit.code))
    assert status == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("thermocline lab: error: ") and said.err.count("\n") == 1
    return said.err


def test_live_and_virtual_side_by_side(tmp_path: Path, costs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page, figures = tmp_path / "lab.html", tmp_path / "lab.json"
    arguments = ["--costs", str(costs), "--state", "roomy", "--temperature", "warm", "--directory", str(tmp_path)]
    assert main(["lab", "batch", "relock", *QUICK, *arguments, "--html", str(page), "--json", str(figures)]) == 0
    said = capsys.readouterr()
    assert "prediction error" in said.out and "order of the designs" in said.out
    assert "\r" not in said.err, "no bar where nobody looks"
    found = json.loads(figures.read_text())
    cells = {(outcome["interpreter"], outcome["design"]) for outcome in found["outcomes"]}
    assert cells == {(interpreter, design) for interpreter in ("live", "virtual") for design in ("batch", "relock")}
    assert page.read_text().startswith("<!DOCTYPE html>")
    assert "thermocline lab batch relock" in page.read_text()


def test_virtual_alone_is_the_same_every_time(costs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = []
    for _ in range(2):
        assert main(["lab", "--virtual", *QUICK, "--costs", str(costs), "--state", "full", "--temperature", "hot"]) == 0
        said.append(capsys.readouterr().out)
    assert said[0] == said[1]
    assert "live" not in said[0].partition("\n")[2].replace("alive", "")


def test_what_is_wrong_is_said_in_a_line(tmp_path: Path, costs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "write one of" in refused(capsys, "btach")
    assert "write one of" in refused(capsys, "--state", "rommy")
    assert "write one of" in refused(capsys, "--temperature", "tepid")
    assert "pages is 3" in refused(capsys, "--pages", "3")
    assert "share" in refused(capsys, "--writes", "2")
    assert "no share" in refused(capsys, "--writes", "half")
    assert "is not a time" in refused(capsys, "--think", "soon")
    assert "cannot be written" in refused(capsys, "--html", str(tmp_path / "nowhere" / "lab.html"))
    assert "no costs can be read" in refused(capsys, "--virtual", "--costs", str(tmp_path / "none.json"))
    broken = json.loads(costs.read_text())
    del broken["punch"]
    costs.write_text(json.dumps(broken))
    assert "lack punch" in refused(capsys, "--virtual", "--costs", str(costs))
    broken["punch"] = {"call": -1}
    costs.write_text(json.dumps(broken))
    assert "punch.call is -1" in refused(capsys, "--virtual", "--costs", str(costs))


def test_ctrl_c_leaves_nothing_half_written(tmp_path: Path, costs: Path) -> None:
    """On a terminal, where there is a bar that says when the run is under way."""
    page = tmp_path / "out" / "lab.html"
    page.parent.mkdir()
    command = [sys.executable, "-m", "thermocline.cli", "lab", "--costs", str(costs), "--touches", "100000"]
    command += ["--directory", str(tmp_path), "--html", str(page), "--state", "roomy"]
    screen, terminal = pty.openpty()
    process = subprocess.Popen(command, stderr=terminal, stdout=subprocess.PIPE)
    os.close(terminal)
    shown = b""
    while b"live: roomy" not in shown:
        shown += os.read(screen, 4096)
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=60)[0] == b""
    assert process.returncode == 130
    assert os.listdir(page.parent) == []
    os.close(screen)
