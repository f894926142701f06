from collections.abc import Mapping
from itertools import combinations
from typing import Any

import pytest
from outcomes import NOTHING, outcome, ranked, times

from thermocline.lab.comparison import Comparison, Order, Pair, chance, compare


def pairs(found: tuple[Pair, ...]) -> set[tuple[str, str]]:
    return {(pair.shorter, pair.longer) for pair in found}


def order(live: Mapping[str, tuple[int, ...]], virtual: Mapping[str, tuple[int, ...]]) -> Order:
    [verdict] = compare(ranked(live) + ranked(virtual, "virtual")).orders
    return verdict


def one(live: dict[str, Any], virtual: dict[str, Any]) -> Comparison:
    return compare([outcome(interpreter="virtual", **virtual), outcome(**live)])


def test_live_and_virtual_meet_by_cell_whatever_their_order() -> None:
    outcomes = [
        outcome("batch", "virtual", state="tight"),
        outcome("batch", "live", state="full"),
        outcome("relock", "live", state="tight"),
        outcome("batch", "virtual", state="full"),
        outcome("relock", "virtual", state="tight", temperature="cold"),
        outcome("batch", "live", state="tight"),
    ]
    found = compare(outcomes)
    cells = [(prediction.live, prediction.virtual) for prediction in found.predictions]
    assert cells == [(outcomes[5], outcomes[0]), (outcomes[1], outcomes[3])]
    assert found.prediction(("full", "hot", "batch")) == found.predictions[1]
    assert found.prediction(("tight", "hot", "relock")) is None


def test_a_cell_that_comes_twice_is_an_error_that_names_it() -> None:
    with pytest.raises(ValueError, match="two live outcomes of full, hot, batch"):
        compare([outcome(), outcome(migrated=1)])


def test_pages_are_predicted_for_one_repeat() -> None:
    live, virtual = {"repeats": 5, "migrated": 1000}, {"repeats": 1, "migrated": 250}
    assert one(live, virtual).predictions[0].migrated == pytest.approx(0.25)


def test_errors_of_the_rate_and_of_the_p99() -> None:
    live = {"migrated": 1000, "seconds": 2.0, "stalls": times([400])}
    virtual = {"migrated": 1000, "seconds": 4.0, "stalls": times([500])}
    [prediction] = one(live, virtual).predictions
    assert prediction.migrated_per_second == pytest.approx(-0.5)
    assert prediction.stall_p99 == pytest.approx(0.25)


def test_nothing_measured_is_nothing_to_be_wrong_about() -> None:
    [prediction] = one({"migrated": 0, "stalls": NOTHING}, {}).predictions
    assert (prediction.migrated, prediction.migrated_per_second, prediction.stall_p99) == (None, None, None)


def test_designs_apart_by_more_than_the_noise_must_be_in_the_same_order() -> None:
    live = {"batch": (100, 110), "deferred": (400, 500), "relock": (200, 210)}
    verdict = order(live, {"batch": (50,), "deferred": (800,), "relock": (60,)})
    assert pairs(verdict.agreements) == {("batch", "deferred"), ("batch", "relock"), ("relock", "deferred")}
    assert (verdict.disagreements, verdict.too_close, verdict.decided) == ((), (), 3)


def test_a_pair_in_the_other_order_is_named_with_its_figures() -> None:
    verdict = order({"deferred": (400, 500), "batch": (100, 110)}, {"batch": (900,), "deferred": (800,)})
    assert verdict.disagreements == (Pair("batch", "deferred", (110, 500), (900, 800)),)
    assert (verdict.agreements, verdict.too_close) == ((), ())


def test_two_equal_predictions_are_no_order() -> None:
    verdict = order({"batch": (100, 110), "deferred": (400, 500)}, {"batch": (300,), "deferred": (300,)})
    assert pairs(verdict.disagreements) == {("batch", "deferred")}


@pytest.mark.parametrize("virtual", [{"batch": (1,), "relock": (2,)}, {"batch": (2,), "relock": (1,)}])
@pytest.mark.parametrize("relock", [(150, 300), (200, 300), (120, 130), (100, 400)])
def test_ranges_that_overlap_or_touch_are_too_close_to_call(
    relock: tuple[int, ...], virtual: dict[str, tuple[int, ...]]
) -> None:
    verdict = order({"batch": (100, 200), "relock": relock}, virtual)
    assert pairs(verdict.too_close) in ({("batch", "relock")}, {("relock", "batch")})
    assert verdict.decided == 0


def test_the_repeats_decide_the_order_and_not_the_pooled_p99() -> None:
    # One repeat with many stalls can pull the pooled p99 of the shorter design above the other's.
    live = ranked({"batch": (100, 110), "relock": (200, 210)})
    live[0] = outcome("batch", stalls=times([900]), stall_p99=(100, 110))
    [verdict] = compare(live + ranked({"batch": (1,), "relock": (2,)}, "virtual")).orders
    assert pairs(verdict.agreements) == {("batch", "relock")}


def test_a_design_that_makes_nobody_stall_comes_first() -> None:
    verdict = order({"batch": (0, 0), "deferred": (400, 500)}, {"batch": (0,), "deferred": (300,)})
    assert pairs(verdict.agreements) == {("batch", "deferred")}


def test_states_and_temperatures_are_ranked_apart() -> None:
    p99s = {"batch": (100, 110), "deferred": (400, 500)}
    outcomes = []
    for temperature, virtual in (
        ("hot", {"batch": (1,), "deferred": (2,)}),
        ("cold", {"batch": (2,), "deferred": (1,)}),
    ):
        outcomes += ranked(p99s, temperature=temperature) + ranked(virtual, "virtual", temperature=temperature)
    found = compare(outcomes)
    hot, cold = found.order("full", "hot"), found.order("full", "cold")
    assert hot is not None and cold is not None
    assert (len(hot.agreements), len(hot.disagreements)) == (1, 0)
    assert (len(cold.agreements), len(cold.disagreements)) == (0, 1)
    assert found.order("tight", "hot") is None


def test_one_design_has_no_order() -> None:
    assert compare([outcome(), outcome(interpreter="virtual")]).orders == ()


def test_the_fewest_repeats_are_known_and_pooled_p99s_count_as_one() -> None:
    assert order({"batch": (1, 2, 3), "relock": (7, 8)}, {"batch": (1,), "relock": (2,)}).repeats == 2
    live = [outcome("batch", stalls=times([500]), stall_p99=()), outcome("relock", stall_p99=(400, 450))]
    [verdict] = compare(live + ranked({"batch": (2,), "relock": (1,)}, "virtual")).orders
    assert verdict.repeats == 1
    assert pairs(verdict.agreements) == {("relock", "batch")}


@pytest.mark.parametrize("repeats", [1, 2, 3, 5])
def test_the_chance_to_tell_equals_apart_is_that_of_a_count(repeats: int) -> None:
    ways = list(combinations(range(2 * repeats), repeats))
    apart = sum(max(way) < repeats or min(way) >= repeats for way in ways)
    assert chance(repeats) == pytest.approx(apart / len(ways))
