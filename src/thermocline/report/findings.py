"""What the outcomes say, in sentences. Every number in them is computed; nothing is said that is not measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median

from thermocline.lab.comparison import Comparison, Order, Prediction, chance, p99_range, told_apart
from thermocline.lab.outcome import Outcome
from thermocline.report.figures import error, range_text, times_as_long
from thermocline.report.glossary import STATES, TEMPERATURES, in_order

#: The two designs that the thread was about: what was proposed, and what was merged.
PROPOSED, MERGED = "deferred", "batch"


def preferred(outcomes: Sequence[Outcome]) -> str:
    """The interpreter whose outcomes are spoken of: live, if there are any."""
    there = {outcome.interpreter for outcome in outcomes}
    return "live" if "live" in there else next(iter(sorted(there)), "live")


def proposed_against_merged(outcomes: Sequence[Outcome]) -> list[str]:
    """A sentence for each state: the p99 stall of `deferred` as a multiple of `batch`'s. None where one is missing."""
    interpreter = preferred(outcomes)
    found = {outcome.cell: outcome for outcome in outcomes if outcome.interpreter == interpreter}
    sentences = []
    for state in in_order((outcome.state for outcome in outcomes), STATES):
        pairs = {}
        for temperature in in_order((outcome.temperature for outcome in outcomes), TEMPERATURES):
            proposed = found.get((state, temperature, PROPOSED))
            merged = found.get((state, temperature, MERGED))
            if proposed is not None and merged is not None:
                pairs[temperature] = proposed, merged
        if pairs:
            article = "an" if state[:1] in "aeiou" else "a"
            sentences.append(f"Under {article} {state} target, {_against(pairs, predicted=interpreter != 'live')}.")
    return sentences


def errors_in_short(predictions: Sequence[Prediction]) -> str:
    """How far all predictions are off: the median size of the error, and the worst."""
    cells = f"{len(predictions)} cell{'' if len(predictions) == 1 else 's'}"
    parts = []
    for what, found in (
        ("in pages migrated", [prediction.migrated for prediction in predictions]),
        ("in pages per second", [prediction.migrated_per_second for prediction in predictions]),
        ("in the p99 of the stalls", [prediction.stall_p99 for prediction in predictions]),
    ):
        errors = [value for value in found if value is not None]
        if errors:
            typical = error(median(map(abs, errors))).lstrip("+")
            parts.append(f"{typical} {what} (at worst {error(max(errors, key=abs))})")
    if not parts:
        return f"In the {cells} that were run under both interpreters, nothing was measured that could be predicted."
    return f"Over the {cells} that were run under both interpreters, the median error is {_joined(parts)}."


def orders_in_short(comparison: Comparison) -> str:
    """How many pairs of designs are in the right order, and how many could not be told apart."""
    agreed = sum(len(order.agreements) for order in comparison.orders)
    decided = sum(order.decided for order in comparison.orders)
    close = sum(len(order.too_close) for order in comparison.orders)
    if not decided:
        return f"No pair of designs was told apart by the measurement; {close} were too close to call."
    told = "1 pair of designs was" if decided == 1 else f"{decided} pairs of designs were"
    return (
        f"{told} told apart by the measurement, and the prediction has {agreed} of them in the same order; "
        f"{close} more {'was' if close == 1 else 'were'} too close to call."
    )


def noise_in_short(orders: Sequence[Order]) -> str:
    """How often the rule by which designs are told apart is wrong, for as many repeats as there are."""
    repeats = min((order.repeats for order in orders), default=0)
    if repeats < 2:
        return "With a single repeat the noise is not known, and every difference counts as one."
    return (
        f"With {repeats} repeats, {chance(repeats) * 100:.2g}% of the pairs that do not differ would be told apart by "
        "chance."
    )


def _against(pairs: Mapping[str, tuple[Outcome, Outcome]], *, predicted: bool) -> str:
    """How one design compares with another over the temperatures, those that came out alike together."""
    alike: dict[str, list[str]] = {}
    for temperature, (one, other) in pairs.items():
        alike.setdefault(_relation(one, other), []).append(temperature)
    clauses = []
    for relation, temperatures in alike.items():
        where = f" on {_joined(temperatures)} pages" if len(temperatures) < len(pairs) else ""
        if relation == "multiple":
            clauses.append(_multiple({name: pairs[name] for name in temperatures}, where, predicted=predicted))
        else:
            clauses.append(f"{relation}{where}")
    return "; ".join(clauses)


def _relation(one: Outcome, other: Outcome) -> str:
    if not one.stalls.count and not other.stalls.count:
        return "there were no stalls under either"
    if not told_apart(one, other):
        return "the two were too close to call"
    if one.stalls.count and other.stalls.count:
        return "multiple"
    return f"there were stalls under {(one if one.stalls.count else other).design} only"


def _multiple(pairs: Mapping[str, tuple[Outcome, Outcome]], where: str, *, predicted: bool) -> str:
    """The multiple, or its range over the temperatures, with the figures of the greatest."""
    multiples = {name: one.stalls.p99 / other.stalls.p99 for name, (one, other) in pairs.items()}
    greatest = max(multiples, key=lambda name: multiples[name])
    one, other = pairs[greatest]
    low, high = times_as_long(min(multiples.values())), times_as_long(multiples[greatest])
    span = high if low == high else f"{low} to {high}"
    which = f"on {greatest} pages, " if len(pairs) > 1 else ""
    figures = f"{which}{range_text(*p99_range(one))} against {range_text(*p99_range(other))}"
    was = "is predicted to be" if predicted else "was"
    return f"{one.design}'s p99 stall {was} {span} times {other.design}'s{where} ({figures})"


def _joined(parts: Sequence[str]) -> str:
    *most, last = parts
    return f"{', '.join(most)} and {last}" if most else last
