"""The experiment as one HTML page that needs nothing but itself: no network, no script, no file beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from importlib.resources import files

from thermocline.lab.comparison import Comparison, Order, compare
from thermocline.lab.outcome import Outcome
from thermocline.report import findings
from thermocline.report.curves import Axes, axes, mark, panel, style
from thermocline.report.experiment import repeats
from thermocline.report.figures import FIGURES, time_text
from thermocline.report.glossary import DESIGNS, INTERPRETERS, STATES, TEMPERATURES, in_order
from thermocline.report.story import QUESTION, designs_section, experiment_section
from thermocline.report.tables import errors_table, figures_table, overview_table

_TITLE = "Which threads wait when a page is demoted"
_LEAD = (
    "When memory is short, the pages that are used least move to slower memory. Before a page can move, room has to be "
    "allocated for it there, and that may take long. It can be allocated before the page is locked, under its lock, or "
    "not at all. This page shows what each of these costs the threads that just want the page."
)
_READING = (
    "Each curve says, for every time t, what share of the stalls was longer than t: the further to the left and the "
    "lower, the better. Both axes are logarithmic, and all panels have the same ones. A curve ends at the longest "
    "stall. Its mark is where it crosses 1%, which is the p99; with fewer than 100 stalls, at its end. Solid lines and "
    "filled marks are live, dashed lines and hollow marks virtual."
)
_ORDER = (
    "A model of this kind is for ranking designs, so it is asked for the order of each pair of them by the p99 of the "
    "stalls. Two designs are told apart if the ranges that their p99s span over the live repeats do not overlap; the "
    "others are too close to call, and no prediction about them is right or wrong."
)


def experiment_page(outcomes: Sequence[Outcome], machine: Mapping[str, str], command: str) -> str:
    """The page.

    Parameters
    ----------
    outcomes
        At most one for each cell and interpreter, in any order; one interpreter may be missing.
    machine
        What it was measured on: a name and a value each, in the order in which they are shown.
    command
        The command that makes this page again.

    Returns
    -------
    str
        An HTML document. Names and values are escaped; whatever is said about figures is computed from `outcomes`.
    """
    comparison = compare(outcomes)
    designs = in_order((outcome.design for outcome in outcomes), DESIGNS)
    states = in_order((outcome.state for outcome in outcomes), STATES)
    temperatures = in_order((outcome.temperature for outcome in outcomes), TEMPERATURES)
    strangers = [design for design in designs if design not in DESIGNS]
    scale = axes(outcomes)
    body = [
        _header(outcomes, designs, states, temperatures),
        QUESTION,
        designs_section(designs, strangers),
        experiment_section(states, temperatures),
        _overview(outcomes, strangers),
        '<div class="results">',
        _legend(outcomes, designs, strangers),
        *(_state(state, number, outcomes, comparison, scale, strangers) for number, state in enumerate(states)),
        "</div>",
        _prediction(comparison),
        _machine(machine, command),
    ]
    style_sheet = files("thermocline.report").joinpath("page.css").read_text("utf-8")
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"<title>{_TITLE}</title>\n<style>\n{style_sheet}</style>\n</head>\n<body>\n<main>\n"
        + "\n".join(part for part in body if part)
        + "\n</main>\n</body>\n</html>\n"
    )


def _header(
    outcomes: Sequence[Outcome], designs: Sequence[str], states: Sequence[str], temperatures: Sequence[str]
) -> str:
    runs = ", ".join(
        f"{interpreter} {repeats(outcomes, interpreter)}"
        for interpreter in in_order((outcome.interpreter for outcome in outcomes), INTERPRETERS)
    )
    ran = "no outcomes"
    if outcomes:
        ran = (
            f"{_many(designs, 'design')}, {_many(states, 'state')} of the target, "
            f"{_many(temperatures, 'temperature')} of the pages; each: {runs}"
        )
    sentences = "".join(f"<li>{escape(sentence)}</li>" for sentence in findings.proposed_against_merged(outcomes))
    found = ""
    if sentences:
        ranges = " In brackets: its range over the repeats." if any(len(o.stall_p99) > 1 for o in outcomes) else ""
        found = (
            '<aside class="found" aria-labelledby="found"><h2 id="found">In short</h2><p>Deferred allocates under the '
            "lock, batch before it. Of 100 stalls, 99 are no longer than the p99 stall."
            f"{ranges}</p><ul>{sentences}</ul></aside>"
        )
    links = [("question", "The question"), ("designs", "The designs"), ("experiment", "The experiment")]
    links += [("overview", "What came out")]
    links += [(f"state-{number}", f"Target {state}") for number, state in enumerate(states)]
    links += [("prediction", "The prediction"), ("machine", "The machine")]
    contents = "".join(f'<li><a href="#{ident}">{escape(name)}</a></li>' for ident, name in links)
    return (
        f'<header><h1>{_TITLE}</h1><p class="lead">{_LEAD}</p><p class="runs">{escape(ran)}</p>'
        f'<nav aria-label="Contents"><ul>{contents}</ul></nav>{found}</header>'
    )


def _many(names: Sequence[str], noun: str) -> str:
    return f"{len(names)} {noun}{'' if len(names) == 1 else 's'}"


def _overview(outcomes: Sequence[Outcome], strangers: Sequence[str]) -> str:
    interpreter = findings.preferred(outcomes)
    shown = [outcome for outcome in outcomes if outcome.interpreter == interpreter]
    tables = ""
    for group, name, what in (
        ("stalls", "p99", "p99 of the stalls"),
        ("migrated", "per second", "Pages migrated per second"),
    ):
        figure = next(figure for figure in FIGURES if (figure.group, figure.name) == (group, name))
        tables += overview_table(shown, figure, f"{what}, {interpreter}", strangers) if shown else ""
    note = (
        "<p>The first table says how long other threads wait, the second how many pages the design moves meanwhile: a "
        "design that moves no pages causes no waits. The stronger the shade, the more.</p>"
    )
    return f'<section id="overview" class="wide"><h2>What came out</h2>{note}{tables}</section>'


def _legend(outcomes: Sequence[Outcome], designs: Sequence[str], strangers: Sequence[str]) -> str:
    """Colours, marks and dashes; and a choice of the design to look at, by style sheet alone."""
    chips = '<label class="chip"><input type="radio" name="look" class="look-all" checked>all</label>'
    for design in designs:
        number = style(design, strangers)
        chips += (
            f'<label class="chip d{number}"><input type="radio" name="look" class="look-{number}">'
            f"{mark(number)}{escape(design)}</label>"
        )
    lines = "".join(
        f'<span class="line {"virtual" if interpreter == "virtual" else "live"}">'
        '<svg viewBox="0 0 30 8" width="30" height="8" aria-hidden="true"><path class="curve" d="M0 4H30"/></svg>'
        f"{escape(interpreter)}</span>"
        for interpreter in in_order((outcome.interpreter for outcome in outcomes), INTERPRETERS)
    )
    return (
        f'<section class="wide"><h2 id="stalls">The stalls</h2><p>{_READING}</p></section>'
        f'<fieldset class="legend"><legend class="unseen">Design to look at</legend>{chips}'
        f'<span class="lines">{lines}</span></fieldset>'
    )


def _state(
    state: str,
    number: int,
    outcomes: Sequence[Outcome],
    comparison: Comparison,
    scale: Axes,
    strangers: Sequence[str],
) -> str:
    here = [outcome for outcome in outcomes if outcome.state == state]
    panels, verdicts = "", ""
    for index, temperature in enumerate(in_order((outcome.temperature for outcome in here), TEMPERATURES)):
        cell = [outcome for outcome in here if outcome.temperature == temperature]
        drawn = panel(cell, scale, f"Stalls, target {state}, {temperature} pages", f"plot-{number}-{index}", strangers)
        without = ", ".join(f"{o.design} ({o.interpreter})" for o in cell if not o.stalls.count)
        note = f"<br><small>No stalls: {escape(without)}</small>" if without else ""
        panels += (
            f"<figure><figcaption><b>{escape(temperature)} pages</b>: share of stalls longer than t{note}</figcaption>"
            f"{drawn}</figure>"
        )
        order = comparison.order(state, temperature)
        verdicts += _verdict(order) if order is not None else ""
    meaning = STATES.get(state, "")
    errors = errors_table(comparison, state, strangers)
    ranking = f'<h4>The order of the designs, as predicted</h4><ul class="verdicts">{verdicts}</ul>' if verdicts else ""
    return (
        f'<section id="state-{number}" class="wide state"><h3>Target {escape(state)}</h3>'
        f'<p class="meaning">{escape(meaning[:1].upper() + meaning[1:])}{"." if meaning else ""}</p>'
        f'<div class="panels">{panels}</div>{figures_table(here, state, strangers)}{errors}{ranking}</section>'
    )


def _verdict(order: Order) -> str:
    boxes = "".join(
        f'<i class="{kind}"></i>' * len(pairs)
        for kind, pairs in (("same", order.agreements), ("other", order.disagreements), ("close", order.too_close))
    )
    if order.decided:
        said = f"{len(order.agreements)} of {order.decided} pairs in the order measured"
    else:
        said = "no pair was told apart"
    wrong = "".join(
        f"<li>{escape(pair.shorter)}'s p99 is below {escape(pair.longer)}'s live ({_both(pair.live)}), but not in "
        f"virtual time ({_both(pair.virtual)})</li>"
        for pair in order.disagreements
    )
    return (
        f'<li><b>{escape(order.temperature)} pages</b> <span class="boxes" aria-hidden="true">{boxes}</span> '
        f"<span>{said}, {len(order.too_close)} too close to call</span>{f'<ul>{wrong}</ul>' if wrong else ''}</li>"
    )


def _both(p99s: tuple[int, int]) -> str:
    return " and ".join(time_text(p99) if p99 else "no stalls" for p99 in p99s)


def _prediction(comparison: Comparison) -> str:
    heading = '<section id="prediction"><h2>The prediction</h2>'
    if not comparison.predictions:
        return f"{heading}<p>No cell was run under both interpreters, so there is nothing to compare.</p></section>"
    text = f"<p>{escape(findings.errors_in_short(comparison.predictions))}</p>"
    if comparison.orders:
        noise = escape(findings.noise_in_short(comparison.orders))
        text += f"<p>{_ORDER} {noise}</p><p>{escape(findings.orders_in_short(comparison))}</p>"
    return f"{heading}{text}</section>"


def _machine(machine: Mapping[str, str], command: str) -> str:
    facts = "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in machine.items())
    return (
        f'<section id="machine"><h2>The machine</h2><dl>{facts}</dl><h2>To make this page again</h2>'
        f'<pre tabindex="0"><code>{escape(command)}</code></pre></section>'
    )
