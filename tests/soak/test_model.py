"""The short cut of ``make soak``: the same machine, a few examples for each design; and that failures are seen."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from machine import SPEC, TieredArrays
from subject import HangError, Subject, Tally

from pagers import children
from thermocline.protocol.migrate import DESIGNS


@pytest.mark.parametrize("design", sorted(DESIGNS))
def test_what_is_read_is_what_was_written_whatever_goes_wrong(design: str) -> None:
    machine = type("TieredArrays", (TieredArrays,), {"design": design})
    machine.TestCase.settings = settings(
        max_examples=10,
        stateful_step_count=50,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    try:
        machine.TestCase("runTest").runTest()
    finally:
        machine.stop_program()


@pytest.fixture
def subject(tmp_path: Path) -> Iterator[Subject]:
    """A program with an array of which most is below DRAM."""
    made = Subject(Tally())
    try:
        settings = {"design": "batch", "clean": "demote", "readahead": 0, "spec": SPEC.format(rule="store")}
        twins = tmp_path / "twins"
        twins.mkdir()
        made.start(0, str(twins), lossy=False)
        made.tell("open", inject="", directory=str(tmp_path), **settings)
        made.find_helpers()
        made.tell("allocate", key=0, pages=60, group=0, kind="noise", seed=1)
        yield made
    finally:
        made.end()


def test_a_hang_is_a_failure_that_says_where_everybody_is(subject: Subject) -> None:
    subject.limit = 1.0
    os.kill(children(subject.supervisor)[0], signal.SIGSTOP)
    with pytest.raises(HangError) as hang:
        subject.tell("verify")
    assert "in compare" in str(hang.value), "the stack of the program"
    assert "pager" in str(hang.value) and "T (stopped)" in str(hang.value), "what its helpers do"
    assert not subject.running


def test_a_program_that_is_ended_is_a_failure(subject: Subject) -> None:
    os.kill(subject.supervisor, signal.SIGKILL)
    with pytest.raises(AssertionError, match="verify ended the program, status -9"):
        subject.tell("verify")


def test_a_wrong_byte_is_a_failure(subject: Subject) -> None:
    subject.tell("forge", key=0, at=4097)
    with pytest.raises(AssertionError, match=r"verify, program: 1 bytes of page 1 .*first byte 4097"):
        subject.tell("verify")
