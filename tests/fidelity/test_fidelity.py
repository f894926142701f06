"""Programs do, in tiered memory, all that they do under plain Python: no user can tell."""

import json
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path

import pytest
from _pytest.mark import ParameterSet
from corpus import Program, programs
from outcome import LIMIT, Outcome, outcome_of
from pinned import PINNED, pinned
from settings import SETTINGS, Setting

import ordinary

LIMITS = Path(__file__).parents[2] / "docs" / "limits.md"
PROGRAMS = programs()


@pytest.fixture
def directory() -> Iterator[Path]:
    """One that every user may write in. Its name is short: a program may make a socket there."""
    path = Path(tempfile.mkdtemp(prefix="fidelity-"))
    path.chmod(0o777)
    yield path
    shutil.rmtree(path)


def cells() -> Iterator[ParameterSet]:
    """Each program in each setting, those of one program beside each other (for ``--dist loadgroup``)."""
    for program in PROGRAMS:
        for setting in SETTINGS:
            if program.makes_sense_in(setting.name):
                group = pytest.mark.xdist_group(program.name)
                yield pytest.param(program, setting, id=f"{program.name}-{setting.name}", marks=group)


@lru_cache(maxsize=4)
def may_be_started_by(*command: str) -> bool:
    return (
        not command
        or subprocess.run([*command, "true"], check=False, stderr=subprocess.DEVNULL, timeout=LIMIT).returncode == 0
    )


def plain_and_tiered(program: Program, setting: Setting, directory: Path) -> tuple[Outcome, Outcome]:
    """What comes of a program under plain Python, and in a setting."""
    stat = directory / "stat"
    plain = outcome_of([*program.started_by, *setting.user, sys.executable, str(program.path)], directory)
    command = [*program.started_by, *setting.user, *setting.command([str(program.path)], stat)]
    return plain, outcome_of(command, directory, setting.kills)


@pytest.mark.timeout(3 * LIMIT)
@pytest.mark.parametrize(("program", "setting"), list(cells()))
def test_a_program_is_the_same_in_tiered_memory(
    program: Program,
    setting: Setting,
    directory: Path,
    record_property: Callable[[str, object], None],
) -> None:
    if program.missing():
        pytest.skip(f"not installed: {', '.join(program.missing())}")
    if setting.ordinary and ordinary.impossible:
        pytest.skip(ordinary.impossible)
    if not may_be_started_by(*program.started_by, *setting.user):
        pytest.skip(f"not allowed: {' '.join([*program.started_by, *setting.user])}")
    plain, tiered = plain_and_tiered(program, setting, directory)
    record_property("plain", plain.seconds)
    record_property("tiered", tiered.seconds)
    differences = plain.differences(tiered)
    known = pinned(program.name, setting.name)
    if known is None:
        assert not differences
        assert "Not tiered" in program.fields or demoted(directory / "stat"), "none of its arrays was demoted"
    else:
        assert differences.keys() == known.parts
        assert known.says in tiered.stdout + tiered.stderr
        assert known.says not in plain.stdout + plain.stderr


def demoted(stat: Path) -> int:
    """How many pages went down, by the counters of the run."""
    vmstat: dict[str, int] = json.loads(stat.read_text())["vmstat"]
    return sum(count for name, count in vmstat.items() if name.startswith("pgdemote_"))


def test_every_program_says_what_it_checks() -> None:
    names = {setting.name for setting in SETTINGS}
    for program in PROGRAMS:
        assert len(program.docstring) > 40, program.name
        assert program.fields.get("Settings", "full").split(", ")[0] in names, program.name


def test_what_is_pinned_is_in_the_docs() -> None:
    text = re.sub(r"\s+", " ", LIMITS.read_text())
    for known in PINNED:
        assert known.program in {program.name for program in PROGRAMS}
        assert known.paragraph in text, known.program


TELLTALE = """
import os, sys
import numpy as np
tiered = "thermocline" in sys.modules
a = np.ones(1_000_000)
a += 1
{}
"""


@pytest.mark.parametrize(
    ("does", "part"),
    [
        ("print(tiered)", "stdout"),
        ("print(tiered, file=sys.stderr)", "stderr"),
        ("sys.exit(tiered)", "status"),
        ("if tiered: os.kill(os.getpid(), 9)", "status"),
        ("open('f', 'w').write(str(tiered))", "file f"),
        ("os.umask(0); os.close(os.open('f', os.O_CREAT, 0o600 + tiered))", "file f"),
        ("if tiered: os.mkdir('d')", "file d"),
    ],
)
def test_a_program_that_is_not_the_same_is_found(does: str, part: str, directory: Path) -> None:
    path = directory / "telltale.py"
    path.write_text(TELLTALE.format(does))
    plain, tiered = plain_and_tiered(Program(path), SETTINGS[0], directory)
    assert list(plain.differences(tiered)) == [part]
    assert demoted(directory / "stat")
