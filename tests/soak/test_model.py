"""The short cut of ``make soak``: the same machine, a few examples for each design; and that failures are seen."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from machine import TieredArrays, spec_of
from own_files import PREFIX, OwnFiles, what_is_wrong_in
from subject import HangError, Step, Subject, Tally

from pagers import children
from thermocline.protocol.migrate import DESIGNS

PAGE = 4 << 10


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
def page() -> int:
    """Bytes of one."""
    return PAGE


@pytest.fixture
def subject(tmp_path: Path, page: int) -> Iterator[Subject]:
    """A program with an array of which most is below DRAM."""
    made = Subject(Tally())
    try:
        settings = {"design": "batch", "clean": "demote", "readahead": 0, "spec": spec_of(page, "store")}
        twins = tmp_path / "twins"
        twins.mkdir()
        made.start(0, str(twins), lossy=False, page=page)
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


def test_what_a_child_reads_wrong_is_a_failure(subject: Subject) -> None:
    subject.fork(0, 1, {})
    subject.tell("forge", key=0, at=0)
    with pytest.raises(AssertionError, match="verify, child 1: 1 bytes of page 0"):
        subject.tell("verify", 1)


def test_what_a_guest_writes_is_right_for_all(subject: Subject, tmp_path: Path) -> None:
    subject.start(1, str(tmp_path / "twins"), lossy=False, page=PAGE)
    first, handle = subject.tell("share", key=0)["said"]
    subject.tell("receive", 1, key=0, first=first, handle=handle)
    subject.tell("write", 1, key=0, start=1, stop=100_000, kind="ramp")
    subject.tell("verify")


def test_a_byte_that_a_killed_writer_cannot_have_written_is_a_failure(subject: Subject) -> None:
    part = {"key": 0, "start": 10, "stop": 5000, "kind": "ramp"}
    subject.fork(0, 1, {})
    subject.tell_all({1: Step("write", part)}, killed=1)
    subject.tell("adopt", **part)
    subject.tell("verify")
    subject.tell("write", **part)
    subject.tell("forge", key=0, at=11)
    with pytest.raises(AssertionError, match="byte 11 was neither there before nor written"):
        subject.tell("adopt", **{**part, "start": 11, "kind": "zeros"})


def test_a_process_that_ends_badly_is_a_failure(subject: Subject) -> None:
    subject.start(1, "", lossy=False, page=PAGE)
    os.kill(subject.members[1].pid, signal.SIGKILL)
    with pytest.raises(AssertionError, match="the guest 1 has ended with status -9"):
        subject.dismiss(1, "end")


@pytest.mark.parametrize("how", ["close", "replace"])
def test_what_somebody_else_writes_to_a_file_of_a_program_s_own_is_a_failure(
    subject: Subject, tmp_path: Path, how: str
) -> None:
    subject.tell("lose_descriptors", how=how)
    subject.tell("verify")
    with next((tmp_path / "twins").glob(f"{PREFIX}*")).open("a") as file:
        file.write("fork 1 2")
    assert "it holds" in what_is_wrong_in(tmp_path / "twins")
    with pytest.raises(AssertionError, match=r"somebody has written to 'own .*fork 1 2"):
        subject.tell("verify")


def test_a_program_that_is_run_anew_leaves_the_files_alone_that_it_had_opened(tmp_path: Path) -> None:
    for _ in range(2):  # of one process: what it knew of its files went with the program that it ran before
        os.close(OwnFiles().open(tmp_path))
    assert len(list(tmp_path.iterdir())) == 2
    assert what_is_wrong_in(tmp_path) == ""


def test_what_is_left_of_a_memory_in_a_program_that_was_run_anew_is_a_failure(subject: Subject, tmp_path: Path) -> None:
    subject.fork(0, 1, {})
    subject.execute(1, {0: Step("verify", {})})
    subject.tell("find_remains", 1)
    with pytest.raises(AssertionError, match=r"finds .*thermocline-arena"):
        subject.tell("find_remains", 0)


def test_what_goes_on_within_a_limit_is_right(subject: Subject) -> None:
    within = {"does": ["allocate", "map_file", "verify"], "pages": 10, "seed": 1}
    (refused,) = subject.tell("within", limit="NOFILE", room=0, **within)["said"]
    assert refused.startswith("map_file: OSError(24")
    subject.tell("forge", key=0, at=0)
    with pytest.raises(AssertionError, match="within, program: 1 bytes of page 0"):
        subject.tell("within", limit="AS", room=63, **within)


@pytest.mark.parametrize("page", [64 << 10])
def test_an_array_that_there_are_no_addresses_for_is_refused_and_leaves_nothing_behind(subject: Subject) -> None:
    """An arena grows by two MiB at a time."""
    within = {"does": ["allocate", "count"], "pages": 40, "seed": 1}
    (refused,) = subject.tell("within", limit="AS", room=0, **within)["said"]
    assert refused.startswith("allocate: OutOfMemory")
    assert subject.tell("within", limit="AS", room=63, **within)["said"] == []
    subject.tell("verify")
    subject.tell("close")
