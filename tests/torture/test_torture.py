"""The short cut of ``make torture``: every point once, some random instants, some calls of stores, and some rot."""

import pytest
import rot
from devices import MODES, judge, runs, sweep

import torture
from thermocline.live.injection import NATIVE
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


def test_a_pager_killed_behind_each_store_of_the_native_half() -> None:
    rules = torture.rules_at("after", NATIVE, tuple(range(1, 21)))
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


ROTS = pytest.mark.skipif(bool(rot.why_not()), reason=rot.why_not())


@ROTS
@pytest.mark.parametrize(("damage", "finder"), list(rot.CLASSES), ids=[rot.name_of(*each) for each in rot.CLASSES])
def test_a_store_that_rots(damage: str, finder: str) -> None:
    """At some points, in one store after another; ``make torture`` has more of each in each."""
    _, stores = rot.CLASSES[damage, finder]
    store = stores[list(rot.CLASSES).index((damage, finder)) % len(stores)]
    decayed = rot.decay(damage, finder, store, 9, seed=1)
    assert (decayed.wrong, decayed.hangs) == (0, 0), decayed.said
    assert decayed.points >= 8


@ROTS
def test_what_may_not_come_of_rot_would_be_seen() -> None:
    """Each of what is looked for, one by one."""
    (account,) = rot.runs("a flipped bit", "reader", "plain file", 1, seed=0)
    assert rot.judge(account) == []
    for what, fault in (
        ({"wrong": 1}, "words are wrong"),
        ({"bystanders": 1}, "a page was refused that was not damaged"),
        ({"unnoticed": 1}, "damage was not noticed"),
        ({"unexplained": 1}, "what was said is not what was refused"),
        ({"left": 4096}, "bytes are charged for, and there is no array"),
        ({"starts": 2}, "the pager died"),
    ):
        assert rot.judge({**account, **what}) == [fault]
