"""The short cut of ``make torture``: every point once, and some random instants."""

import torture
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
