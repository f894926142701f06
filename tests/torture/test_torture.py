"""The short cut of ``make torture``: every point once, some random instants, and some calls of stores."""

import pytest
from devices import MODES, judge, runs, sweep

import torture
from thermocline.protocol.migrate import DESIGNS
from torture import Outcome, at_points, at_random


def assert_right(outcome: Outcome, kills: int) -> None:
    assert (outcome.wrong, outcome.hangs) == (0, 0), outcome.said
    assert outcome.kills == kills


def test_a_pager_killed_at_each_point_of_the_protocol() -> None:
    """Effects that this workload never fails to bring about; ``make torture`` has them all."""
    sure = ("Commit", "CopyList", "Fill", "Lock", "Poison", "Punch", "Release", "Remap", "Reserve", "TryLock", "Unmap")
    rules = [
        rule
        for number, effect in enumerate(sure)
        for side in ("before", "after")
        for rule in torture.rules_at(side, effect, (number % 3 + 1,))
    ]
    assert_right(at_points(rules), len(rules))


def test_a_pager_killed_at_random_instants() -> None:
    assert_right(at_random(40, seed=1), 40)


def test_wrong_bytes_would_be_seen() -> None:
    """A store whose reads raise what nobody expects loses pages: the program gets a SIGBUS, which is no clean end."""
    outcome = at_points(["break read lz4 1 on", "break read file 1 on"])
    assert outcome.wrong == 1


@pytest.mark.parametrize(("number", "mode"), list(enumerate(MODES)), ids=list(MODES))
def test_a_store_that_fails_at_a_call(number: int, mode: str) -> None:
    """At some of the calls, under a design each; ``make torture`` has all calls."""
    swept = sweep(mode, list(DESIGNS)[number % len(DESIGNS)], 1 + 5 * number, 41)
    assert (swept.wrong, swept.hangs) == (0, 0), swept.said
    assert swept.points >= 2


def test_a_pager_that_does_not_survive_a_failing_store_would_be_seen() -> None:
    account = next(runs("break any any {call}", "batch", 20, 1000))
    assert judge(account, once=True, may_refuse=True) == ["the pager died"]
