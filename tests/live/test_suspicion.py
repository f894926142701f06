"""Pagers that die again and again at the same page: what happens to that page, and that no other is affected."""

import os
import re
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from thermocline import Memory
from thermocline.errors import SpecError
from thermocline.live.suspicion import Despair, Suspicion, note_of, read_note

PRELUDE = """
import os, sys
import numpy as np
from thermocline import Memory

memory = Memory("dram=1MiB, {below}", page_size="4KiB", readahead=0)
plain = (np.arange(2 << 20) // 7).astype("u1")
array = memory.array(plain)
def right(*lost):
    return all(np.array_equal(array[at : at + 4096], plain[at : at + 4096])
               for at in range(0, len(plain), 4096) if at // 4096 not in lost)
"""


def run(inject: str, then: str, below: str = "zstd=4MiB") -> subprocess.CompletedProcess[str]:
    """A program whose pages are twice its DRAM, under injection."""
    return subprocess.run(
        [sys.executable, "-c", PRELUDE.format(below=below) + textwrap.dedent(then)],
        env={**os.environ, "THERMOCLINE_INJECT": inject},
        capture_output=True,
        text=True,
        check=False,
    )


def by_signal(number: int) -> int:
    """A wait status, as wait(2) has it."""
    return number


def by_status(status: int) -> int:
    return status << 8


@pytest.mark.parametrize("down", [False, True])
def test_a_note_says_the_page_and_the_way(down: bool) -> None:
    assert [read_note(note_of(page, down=down)) for page in (0, 1, 1 << 31)] == [(0, down), (1, down), (1 << 31, down)]
    assert note_of(0) != 0


@pytest.mark.parametrize("status", [by_status(1), by_signal(signal.SIGSEGV), by_signal(signal.SIGABRT)])
def test_the_third_death_in_a_row_convicts(status: int) -> None:
    suspicion = Suspicion()
    deaths = [suspicion.convicts(note_of(3), status, hopeless=False) for _ in range(4)]
    assert deaths == [False, False, True, False]


def test_deaths_elsewhere_or_nowhere_begin_the_count_anew() -> None:
    suspicion = Suspicion()
    notes = [3, 3, 4, 3, 3, None, 3, 3]
    assert not any(
        suspicion.convicts(0 if page is None else note_of(page), by_status(1), hopeless=False) for page in notes
    )


def test_the_way_makes_a_difference() -> None:
    suspicion = Suspicion()
    ways = [True, True, False, True, True]
    assert not any(suspicion.convicts(note_of(3, down=down), by_status(1), hopeless=False) for down in ways)


def test_kills_from_outside_convict_nobody() -> None:
    suspicion = Suspicion()
    assert not any(suspicion.convicts(note_of(3), by_signal(signal.SIGKILL), hopeless=False) for _ in range(20))


def test_kills_convict_before_the_program_has_to_be_ended() -> None:
    suspicion = Suspicion()
    kills = [suspicion.convicts(note_of(3), by_signal(signal.SIGKILL), hopeless=number == 5) for number in range(6)]
    assert kills == [False] * 5 + [True]


def test_deaths_at_no_page_convict_nobody() -> None:
    suspicion = Suspicion()
    assert not any(suspicion.convicts(0, by_status(1), hopeless=True) for _ in range(9))


KILLED, FAILED = by_signal(signal.SIGKILL), by_status(1)


def test_the_sixth_death_of_their_own_without_a_fault_is_the_last() -> None:
    despair = Despair(patience=30)
    assert [despair.grows(FAILED, 7, 0.0, rested=False) for _ in range(6)] == [False] * 5 + [True]


def test_an_answered_fault_is_hope() -> None:
    despair = Despair(patience=30)
    assert not any(despair.grows(FAILED, faults, 0.0, rested=False) for faults in (1, 1, 1, 1, 2, 2, 2, 2, 2))


def test_kills_from_outside_are_borne_for_a_while() -> None:
    despair = Despair(patience=30)
    assert not any(despair.grows(KILLED, 7, second, rested=False) for second in range(31))
    assert despair.grows(KILLED, 7, 31, rested=False)


def test_who_has_rested_is_killed_for_ever() -> None:
    despair = Despair(patience=30)
    assert not any(despair.grows(KILLED, 7, second, rested=True) for second in range(0, 1000, 10))
    assert [despair.grows(FAILED, 7, 1000, rested=True) for _ in range(6)][-1], "not who has failed"


def test_a_page_that_kills_whoever_brings_it_up_is_lost_alone() -> None:
    then = """
        array = memory.zeros(2 << 20, "u1")
        first = 512  # the pages of the array before it
        def set_all(*lost):
            for at in range(0, len(plain), 4096):
                if first + at // 4096 not in lost:
                    array[at : at + 4096] = plain[at : at + 4096]
        set_all(600)
        print(right(600 - first), memory.stat()["vmstat"]["poisoned_pages"], flush=True)
        array[(600 - first) * 4096]
    """
    ran = run("exit up at 600", then)
    assert (ran.stdout, ran.returncode) == ("True 0\n", -signal.SIGBUS), ran.stderr
    assert ran.stderr.count("at page 600 (") == 1 and "SIGBUS" in ran.stderr


def test_a_page_that_kills_whoever_moves_it_stays_and_nothing_is_lost() -> None:
    then = """
        memory.advise(array, "cold")
        print(right(), memory.stat()["pager"]["starts"], memory.stat()["vmstat"]["poisoned_pages"])
    """
    ran = run("exit down at 17", then)
    assert ran.stdout == "True 4 0\n", ran.stderr
    assert ran.stderr.count("at page 17 (") == 1 and "stays where it is" in ran.stderr


def test_a_worker_that_dies_names_its_page(tmp_path: Path) -> None:
    """Every read of the file is a bug, which comes to light in a thread that is not the pager's first."""
    ran = run("break read file 1 on", "array.sum()", f"file:{tmp_path}=16MiB")
    assert ran.returncode == -signal.SIGBUS, ran.stderr
    assert len(re.findall(r"status 1\) at page \d+ \(.* that page is lost", ran.stderr)) == 1


def test_a_mistake_in_what_is_injected_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    for text in ("kill before Comit 7", "kill before Commit 0", "fail write file ENOSUCH 1", "nonsense"):
        monkeypatch.setenv("THERMOCLINE_INJECT", text)
        with pytest.raises(SpecError, match=text):
            Memory("dram=1MiB, zstd=4MiB")
