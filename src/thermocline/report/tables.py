"""The tables of the page, as HTML."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from html import escape
from itertools import groupby
from math import log

from thermocline.lab.comparison import Comparison, Prediction, p99_range
from thermocline.lab.outcome import Outcome
from thermocline.report import figures
from thermocline.report.curves import mark, style
from thermocline.report.experiment import rows
from thermocline.report.figures import FIGURES, Figure, Kind
from thermocline.report.glossary import DESIGNS, STATES, TEMPERATURES, in_order

#: Where there is no figure.
_NONE = "&ndash;"
_DESIGN = '<th scope="col" rowspan="2">design</th>'


def figures_table(outcomes: Sequence[Outcome], state: str, strangers: Sequence[str]) -> str:
    """All figures of one state: a row for each design and interpreter, together by temperature."""
    groups = [(name, len(list(columns))) for name, columns in groupby(FIGURES, key=lambda figure: figure.group)]
    # The spread of the p99s stands beside the figures of the stalls: it is what decides an order.
    head = _DESIGN + '<th scope="col" rowspan="2"><span class="unseen">interpreter</span></th>'
    names = ""
    for group, count in groups:
        head += f'<th scope="colgroup" colspan="{count + (group == "stalls")}">{escape(group)}</th>'
        names += "".join(
            f'<th scope="col"{_first(index)}>{escape(figure.name)}</th>'
            for index, figure in enumerate(figure for figure in FIGURES if figure.group == group)
        )
        names += '<th scope="col">p99 of each repeat</th>' if group == "stalls" else ""
    bodies = ""
    for temperature in in_order((outcome.temperature for outcome in outcomes), TEMPERATURES):
        here = rows([outcome for outcome in outcomes if outcome.temperature == temperature])
        width = 2 + len(FIGURES) + 1
        bodies += (
            f'<tbody><tr class="part"><th scope="rowgroup" colspan="{width}"><span>{escape(temperature)} pages</span>'
            "</th></tr>"
        )
        for design, pair in groupby(here, key=lambda outcome: outcome.design):
            bodies += _rows(design, list(pair), strangers)
        bodies += "</tbody>"
    caption = f"Target {state}: figures of a repeat, on average; percentiles are of all repeats together."
    return _table("figures", f"Figures, target {state}", caption, head, names, bodies)


def overview_table(outcomes: Sequence[Outcome], figure: Figure, caption: str, strangers: Sequence[str]) -> str:
    """One figure of all cells: designs down, states and temperatures across, shaded by size on a logarithmic scale."""
    states = in_order((outcome.state for outcome in outcomes), STATES)
    temperatures = in_order((outcome.temperature for outcome in outcomes), TEMPERATURES)
    values = {outcome.cell: figure.of(outcome) for outcome in outcomes}
    shade = _shades([value for value in values.values() if value])
    head = _DESIGN + "".join(
        f'<th scope="colgroup" colspan="{len(temperatures)}">target {escape(state)}</th>' for state in states
    )
    names = "".join(
        f'<th scope="col"{_first(index)}>{escape(temperature)}</th>'
        for _ in states
        for index, temperature in enumerate(temperatures)
    )
    body = ""
    for design in in_order((outcome.design for outcome in outcomes), DESIGNS):
        cells = ""
        for state in states:
            for index, temperature in enumerate(temperatures):
                value = values.get((state, temperature, design))
                amount = f' style="--amount:{shade(value):.2f}"' if value is not None else ""
                cells += f"<td{_first(index)}{amount}>{_written(figure, value)}</td>"
        body += f"<tr>{_design(design, strangers)}{cells}</tr>"
    return _table("overview", caption, caption, head, names, f"<tbody>{body}</tbody>")


def errors_table(comparison: Comparison, state: str, strangers: Sequence[str]) -> str:
    """How far the predictions of one state are off: designs down, temperatures across."""
    here = [prediction for prediction in comparison.predictions if prediction.live.state == state]
    if not here:
        return ""
    temperatures = in_order((prediction.live.temperature for prediction in here), TEMPERATURES)
    columns: list[tuple[str, Callable[[Prediction], float | None]]] = [
        ("pages", lambda prediction: prediction.migrated),
        ("per second", lambda prediction: prediction.migrated_per_second),
        ("p99 stall", lambda prediction: prediction.stall_p99),
    ]
    head = _DESIGN + "".join(
        f'<th scope="colgroup" colspan="{len(columns)}">{escape(temperature)} pages</th>'
        for temperature in temperatures
    )
    names = "".join(
        f'<th scope="col"{_first(index)}>{name}</th>' for _ in temperatures for index, (name, _of) in enumerate(columns)
    )
    body = ""
    for design in in_order((prediction.live.design for prediction in here), DESIGNS):
        cells = ""
        for temperature in temperatures:
            found = comparison.prediction((state, temperature, design))
            for index, (_, of) in enumerate(columns):
                value = of(found) if found is not None else None
                text = _NONE if value is None else figures.error(value).replace("-", "&minus;")
                cells += f"<td{_first(index)}>{text}</td>"
        body += f"<tr>{_design(design, strangers)}{cells}</tr>"
    caption = f"Target {state}: error of the prediction, as (virtual - live) / live."
    return _table("errors", f"Prediction errors, target {state}", caption, head, names, f"<tbody>{body}</tbody>")


def _rows(design: str, outcomes: Sequence[Outcome], strangers: Sequence[str]) -> str:
    text = ""
    for number, outcome in enumerate(outcomes):
        text += f'<tr class="{"live" if outcome.interpreter == "live" else "virtual"}">'
        if not number:
            text += _design(design, strangers, span=len(outcomes))
        text += f'<td class="interpreter">{escape(outcome.interpreter)}</td>'
        for group, columns in groupby(FIGURES, key=lambda figure: figure.group):
            for index, figure in enumerate(columns):
                text += f"<td{_first(index)}>{_written(figure, figure.of(outcome))}</td>"
            text += _spread(outcome) if group == "stalls" else ""
        text += "</tr>"
    return text


def _spread(outcome: Outcome) -> str:
    low, high = p99_range(outcome)
    if len(outcome.stall_p99) < 2 or not high:
        return f"<td>{_NONE}</td>"
    return f"<td>{_unit(figures.range_text(low, high))}</td>"


def _design(design: str, strangers: Sequence[str], span: int = 1) -> str:
    rowspan = f' rowspan="{span}"' if span > 1 else ""
    return f'<th scope="row" class="design"{rowspan}>{mark(style(design, strangers))}{escape(design)}</th>'


def _written(figure: Figure, value: float | None) -> str:
    if value is None:
        return _NONE
    if figure.kind is Kind.TIME:
        return _time(value)
    return escape(figures.share(value) if figure.kind is Kind.SHARE else figures.full_count(value))


def _time(nanoseconds: float) -> str:
    return _unit(figures.time_text(nanoseconds))


def _unit(text: str) -> str:
    """Make the last unit as wide as any, so that numbers end in one line."""
    number, unit = text.rsplit("\N{NO-BREAK SPACE}", 1)
    return f'{number}\N{NO-BREAK SPACE}<span class="unit">{unit}</span>'


def _shades(values: Sequence[float]) -> Callable[[float], float]:
    """From 0 for the least value to 1 for the greatest; 0 if they are all alike."""
    if not values or min(values) == max(values):
        return lambda _: 0.0
    low, high = log(min(values)), log(max(values))
    return lambda value: (log(value) - low) / (high - low) if value > 0 else 0.0


def _first(index: int) -> str:
    """The first column of a group stands apart."""
    return "" if index else ' class="first"'


def _table(kind: str, label: str, caption: str, head: str, names: str, bodies: str) -> str:
    """A table. If it is wider than a phone it scrolls by itself, with keys too."""
    return (
        f'<div class="scrolled" role="region" aria-label="{escape(label)}" tabindex="0"><table class="{kind}">'
        f"<caption><span>{escape(caption)}</span></caption><thead><tr>{head}</tr><tr>{names}</tr></thead>"
        f"{bodies}</table></div>"
    )
