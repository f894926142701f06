"""The experiment in a terminal, and as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import groupby

from thermocline.lab.comparison import Comparison, Order, compare
from thermocline.lab.outcome import Outcome
from thermocline.report.figures import FIGURES, error, number_and_unit, short
from thermocline.report.glossary import DESIGNS, INTERPRETERS, STATES, TEMPERATURES, in_order

#: No line is longer.
WIDTH = 120


def experiment_tables(outcomes: Sequence[Outcome]) -> str:
    """All outcomes as plain text of at most 120 columns, without a newline at the end.

    For each state of the target and temperature of the pages there is a table of figures, then, where both
    interpreters were run, how far the prediction is off, and whether it has the designs in the right order.

    Parameters
    ----------
    outcomes
        At most one for each cell and interpreter, in any order.
    """
    if not outcomes:
        return "no outcomes"
    comparison = compare(outcomes)
    blocks = []
    for state, temperature in places(outcomes):
        here = [outcome for outcome in outcomes if outcome.cell[:2] == (state, temperature)]
        blocks.append(f"target {state}, pages {temperature}  ({_runs(here)})\n{_figures(here)}")
        if any(prediction.live.cell[:2] == (state, temperature) for prediction in comparison.predictions):
            blocks.append(_errors(here, comparison))
        order = comparison.order(state, temperature)
        if order is not None:
            blocks.append(_verdict(order))
    if comparison.orders:
        blocks.append(_all_orders(comparison))
    return "\n\n".join(blocks)


def experiment_json(outcomes: Sequence[Outcome], machine: Mapping[str, str], command: str) -> str:
    """The outcomes and their comparison as JSON: a line for each outcome, so that two files can be compared by line.

    Parameters
    ----------
    outcomes
        At most one for each cell and interpreter.
    machine
        What they were measured on.
    command
        What measures them again.
    """
    comparison = compare(outcomes)
    errors = [
        {
            "cell": prediction.live.cell,
            "migrated": prediction.migrated,
            "migrated_per_second": prediction.migrated_per_second,
            "stall_p99": prediction.stall_p99,
        }
        for prediction in comparison.predictions
    ]
    parts = {
        "command": json.dumps(command),
        "machine": json.dumps(dict(machine)),
        "outcomes": _lines([outcome.as_dict() for outcome in outcomes]),
        "prediction_errors": _lines(errors),
        "orders": _lines([asdict(order) for order in comparison.orders]),
    }
    return "{\n" + ",\n".join(f'"{name}": {text}' for name, text in parts.items()) + "\n}\n"


def places(outcomes: Sequence[Outcome]) -> list[tuple[str, str]]:
    """The states and temperatures that there are, in their order."""
    there = {outcome.cell[:2] for outcome in outcomes}
    states = in_order((outcome.state for outcome in outcomes), STATES)
    temperatures = in_order((outcome.temperature for outcome in outcomes), TEMPERATURES)
    return [(state, temperature) for state in states for temperature in temperatures if (state, temperature) in there]


def rows(outcomes: Sequence[Outcome]) -> list[Outcome]:
    """Outcomes by design, and live before virtual."""
    designs = in_order((outcome.design for outcome in outcomes), DESIGNS)
    interpreters = in_order((outcome.interpreter for outcome in outcomes), INTERPRETERS)
    return sorted(outcomes, key=lambda o: (designs.index(o.design), interpreters.index(o.interpreter)))


def repeats(outcomes: Sequence[Outcome], interpreter: str) -> str:
    """How often an interpreter was run: "5 repeats", or "3 to 5 repeats"; nothing if it was not."""
    counts = {outcome.repeats for outcome in outcomes if outcome.interpreter == interpreter}
    if not counts:
        return ""
    low, high = min(counts), max(counts)
    return f"{low} to {high} repeats" if low != high else f"{high} repeat{'' if high == 1 else 's'}"


def _runs(outcomes: Sequence[Outcome]) -> str:
    interpreters = in_order((outcome.interpreter for outcome in outcomes), INTERPRETERS)
    return "; ".join(f"{interpreter}: {repeats(outcomes, interpreter)}" for interpreter in interpreters)


def _figures(outcomes: Sequence[Outcome]) -> str:
    ordered = rows(outcomes)
    cells = [["design", "", *(figure.short for figure in FIGURES)]]
    previous = ""
    for outcome in ordered:
        name = "" if outcome.design == previous else outcome.design
        previous = outcome.design
        cells.append([name, outcome.interpreter, *(short(figure, outcome) for figure in FIGURES)])
    # A gap before each group of figures, and the least that parts two columns within it.
    gaps = [0, 1]
    headings: list[tuple[str, int]] = []
    for group, figures in groupby(FIGURES, key=lambda figure: figure.group):
        count = len(list(figures))
        headings.append((group, count))
        gaps += [2, *[1] * (count - 1)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = [_groups(headings, gaps, widths)]
    for row in cells:
        line = f"{row[0]:{widths[0]}} {row[1]:{widths[1]}}"
        for cell, gap, width in zip(row[2:], gaps[2:], widths[2:], strict=True):
            line += " " * gap + f"{cell:>{width}}"
        lines.append(line.rstrip())
    return "\n".join(lines)


def _groups(headings: Sequence[tuple[str, int]], gaps: Sequence[int], widths: Sequence[int]) -> str:
    """The line above the headings of the columns: the name of each group between dashes, as wide as its columns."""
    line, column = " " * (widths[0] + gaps[1] + widths[1]), 2
    for name, count in headings:
        gap, *gaps_within = gaps[column : column + count]
        width = sum(widths[column : column + count]) + sum(gaps_within)
        ruled = f" {name} ".center(width, "-") if len(name) + 4 <= width else name.center(width)
        line += " " * gap + ruled
        column += count
    return line.rstrip()


def _errors(outcomes: Sequence[Outcome], comparison: Comparison) -> str:
    found = [comparison.prediction(outcome.cell) for outcome in rows(outcomes) if outcome.interpreter == "live"]
    cells = [("prediction error", "pages", "per s", "stall p99")] + [
        (
            f"  {prediction.live.design}",
            error(prediction.migrated),
            error(prediction.migrated_per_second),
            error(prediction.stall_p99),
        )
        for prediction in found
        if prediction is not None
    ]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return "\n".join(
        f"{first:{widths[0]}}" + "".join(f"  {cell:>{width}}" for cell, width in zip(rest, widths[1:], strict=True))
        for first, *rest in cells
    )


def _verdict(order: Order) -> str:
    lines = [f"order of the designs by p99 stall: {verdict(order)}"]
    for pair in order.disagreements:
        lines.append(f"  {pair.shorter} before {pair.longer}: live {_both(pair.live)}, virtual {_both(pair.virtual)}")
    if order.repeats < 2:
        lines.append("  with one live repeat the noise is not known: every difference counts")
    return "\n".join(lines)


def verdict(order: Order) -> str:
    """How many pairs of designs are in the same order, and how many could not be told apart."""
    close = f"{len(order.too_close)} too close to call"
    if not order.decided:
        return f"no pair that live can tell apart, {close}"
    return f"{len(order.agreements)} of {order.decided} pairs as live, {close}"


def _both(p99s: tuple[int, int]) -> str:
    return ", ".join(" ".join(number_and_unit(p99)) if p99 else "no stalls" for p99 in p99s)


def _all_orders(comparison: Comparison) -> str:
    agreed = sum(len(order.agreements) for order in comparison.orders)
    decided = sum(order.decided for order in comparison.orders)
    close = sum(len(order.too_close) for order in comparison.orders)
    return f"over all: {agreed} of {decided} pairs in the same order, {close} too close to call"


def _lines(values: Sequence[object]) -> str:
    """A JSON array with a value on each line. NaN and infinities are no JSON: they raise ValueError."""
    return "[" + ",".join(f"\n{json.dumps(value, allow_nan=False)}" for value in values) + "\n]"
