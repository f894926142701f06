"""`thermocline doctor`: what it finds, and how it says so."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest

from thermocline.cli import doctor, main
from thermocline.live import system_calls, userfaultfd
from thermocline.topology import MemoryNode, Topology

GIB = 1 << 30


def test_each_finding_is_a_line_with_a_mark(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor"]) == 0
    first, *found = capsys.readouterr().out.partition("\nmemory nodes")[0].strip().splitlines()
    assert re.fullmatch(r"thermocline \S+, Linux \S+, \w+", first)
    assert {"userfaultfd", "lost", "container", "huge", "slow"} <= {line.split()[1] for line in found if line}
    assert all(line.split()[0] in ("ok", "note") for line in found if line)


def test_what_memory_auto_would_be_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    main(["doctor"])
    assert 'Memory("auto")' in capsys.readouterr().out


def test_the_tree_says_what_each_node_demotes_to_and_what_is_forbidden() -> None:
    nodes = {
        0: MemoryNode(0, 4 * GIB, GIB, True, {0: 10, 1: 20, 2: 30}, 4),
        1: MemoryNode(1, 8 * GIB, GIB, False, {0: 20, 1: 10, 2: 30}, 22),
        2: MemoryNode(2, 8 * GIB, GIB, False, {0: 30, 1: 30, 2: 10}, 22),
        3: MemoryNode(3, 0, 0, True, {}, 4),
    }
    assert list(doctor.tree(Topology(nodes, frozenset({0, 1}), None, True))) == [
        "node 0: 4 GiB, with processors, tier 4 -> node 1 (distance 20)",
        "node 1: 8 GiB, without processors, tier 22",
        "node 2: 8 GiB, without processors, tier 22, forbidden to this process",
        "node 3: no memory, with processors, tier 4",
    ]


def test_a_machine_where_no_memory_can_be_made_is_told_and_the_status_says_so() -> None:
    program = (
        "import sys\n"
        "import thermocline.live.userfaultfd\n"
        "from thermocline.cli import main\n"
        "from thermocline.errors import UnsupportedError\n"
        "def refused(): raise UnsupportedError('userfaultfd is not available here; allow it')\n"
        "thermocline.live.userfaultfd.open_userfaultfd = refused\n"
        "sys.exit(main(['doctor']))\n"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert ran.returncode == 1, ran.stderr
    assert re.search(r"^MISSING +userfaultfd +userfaultfd is not available here; allow it$", ran.stdout, re.MULTILINE)


def test_what_is_restricted_is_a_note_that_says_what_lifts_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def user_mode_only() -> userfaultfd.Opened:
        return userfaultfd.Opened(os.open(os.devnull, os.O_RDONLY), features=0, serves_system_calls=False)

    monkeypatch.setattr(userfaultfd, "open_userfaultfd", user_mode_only)
    monkeypatch.setattr(system_calls, "cover", lambda: False)  # this process keeps the calls that it has
    faults, calls, lost = doctor._faults()
    assert (faults.mark, calls.mark, lost.mark) == ("note", "note", "note")
    assert calls.says.startswith("not wrapped: ")
    assert "CAP_SYS_PTRACE" in faults.says
    assert "Linux 6.6" in lost.says
