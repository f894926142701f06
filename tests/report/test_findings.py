from collections.abc import Sequence
from typing import Any

import pytest
from outcomes import NOTHING, everything, outcome, ranked

from thermocline.lab.comparison import compare
from thermocline.lab.outcome import Outcome
from thermocline.report.findings import (
    errors_in_short,
    noise_in_short,
    orders_in_short,
    preferred,
    proposed_against_merged,
)

MS = 1_000_000


def against(**p99s: tuple[tuple[int, ...], tuple[int, ...]]) -> list[Outcome]:
    """Outcomes of `deferred` and `batch` by temperature, under a full target."""
    found = []
    for temperature, (deferred, batch) in p99s.items():
        found += ranked({"deferred": deferred, "batch": batch}, temperature=temperature)
    return found


def said(outcomes: Sequence[Outcome]) -> str:
    [sentence] = proposed_against_merged(outcomes)
    return sentence.replace("\xa0", " ")


def test_a_multiple_is_computed_and_its_range_over_the_repeats_given() -> None:
    assert said(against(hot=((12 * MS, 14 * MS), (MS, MS)))) == (
        "Under a full target, deferred's p99 stall was 14 times batch's (12 to 14 ms against 1 ms)."
    )


def test_multiples_of_several_temperatures_are_a_range_with_the_figures_of_the_greatest() -> None:
    outcomes = against(hot=((4 * MS, 4 * MS), (2 * MS, 2 * MS)), cold=((9 * MS, 9 * MS), (3 * MS, 3 * MS)))
    assert said(outcomes) == (
        "Under a full target, deferred's p99 stall was 2.0 to 3.0 times batch's (on cold pages, 9 ms against 3 ms)."
    )


def test_what_the_repeats_do_not_tell_apart_is_not_said_to_differ() -> None:
    assert said(against(hot=((2 * MS, 9 * MS), (MS, 3 * MS)))) == (
        "Under a full target, the two were too close to call."
    )
    outcomes = against(hot=((2 * MS, 9 * MS), (MS, 3 * MS)), cold=((MS, MS), (4 * MS, 4 * MS)))
    assert said(outcomes) == (
        "Under a full target, the two were too close to call on hot pages; "
        "deferred's p99 stall was 0.25 times batch's on cold pages (1 ms against 4 ms)."
    )


def test_without_stalls_there_is_no_multiple() -> None:
    assert said(against(hot=((0, 0), (0, 0)))) == "Under a full target, there were no stalls under either."
    assert said(against(hot=((0, 0), (MS, MS)))) == "Under a full target, there were stalls under batch only."


def test_a_prediction_is_called_one_and_spoken_of_only_without_a_measurement() -> None:
    outcomes = ranked({"deferred": (2 * MS,), "batch": (MS,)}, "virtual")
    assert "is predicted to be 2.0 times" in said(outcomes)
    measured = against(hot=((8 * MS, 8 * MS), (MS, MS)))
    assert "was 8.0 times" in said([*outcomes, *measured])
    assert preferred(outcomes) == "virtual"


def test_nothing_is_said_of_a_state_that_lacks_one_of_the_two() -> None:
    assert proposed_against_merged([outcome("deferred"), outcome("relock")]) == []
    assert proposed_against_merged([]) == []


def test_the_errors_are_summed_up_by_their_median_and_the_worst() -> None:
    outcomes = []
    for design, p99 in (("batch", 110), ("relock", 95), ("deferred", 20)):
        outcomes += [*ranked({design: (100, 100)}), *ranked({design: (p99,)}, "virtual", migrated=4000, seconds=2.0)]
    assert errors_in_short(compare(outcomes).predictions) == (
        "Over the 3 cells that were run under both interpreters, the median error is 0.0% in pages migrated (at worst "
        "+0.0%), 0.0% in pages per second (at worst +0.0%) and 10% in the p99 of the stalls (at worst -80%)."
    )


def test_where_nothing_was_measured_there_is_no_error() -> None:
    nothing: dict[str, Any] = {"migrated": 0, "stalls": NOTHING}
    predictions = compare([outcome(**nothing), outcome(interpreter="virtual", **nothing)]).predictions
    assert errors_in_short(predictions).endswith("nothing was measured that could be predicted.")


def test_the_orders_are_summed_up() -> None:
    live = ranked({"batch": (1, 2), "relock": (2, 3), "deferred": (8, 9)})
    virtual = ranked({"batch": (5,), "relock": (9,), "deferred": (6,)}, "virtual")
    assert orders_in_short(compare(live + virtual)) == (
        "2 pairs of designs were told apart by the measurement, and the prediction has 1 of them in the same order; "
        "1 more was too close to call."
    )


@pytest.mark.parametrize(("repeats", "percent"), [(2, "33%"), (3, "10%"), (5, "0.79%")])
def test_the_noise_is_that_of_the_repeats(repeats: int, percent: str) -> None:
    live = ranked({"batch": (1,) * repeats, "relock": (2,) * repeats})
    comparison = compare(live + ranked({"batch": (1,), "relock": (2,)}, "virtual"))
    assert noise_in_short(comparison.orders).startswith(f"With {repeats} repeats, {percent} of the pairs")


def test_with_one_repeat_the_noise_is_unknown() -> None:
    comparison = compare(ranked({"a": (1,), "b": (2,)}) + ranked({"a": (1,), "b": (2,)}, "virtual"))
    assert "not known" in noise_in_short(comparison.orders)


def test_every_state_of_a_whole_experiment_is_spoken_of() -> None:
    sentences = proposed_against_merged(everything())
    assert [sentence.split()[2] for sentence in sentences] == ["roomy", "tight", "full", "failing"]
