"""Distributions of stalls as curves: the share of stalls longer than t, over t, both axes logarithmic.

A curve starts where the shortest stall lies, at 100%, and ends at the longest one, at one stall. All of it is drawn
by hand as SVG, in one colour and one mark a design (the style sheet knows the colours, as ``d0``, ``d1``, ...), and
all panels of a page have the same axes, so any two can be compared by eye.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from math import ceil, floor, log10

from thermocline.lab.outcome import Outcome, Times
from thermocline.report.figures import time_text
from thermocline.report.glossary import DESIGNS, in_order

#: Of a panel, in units of its view box; at full width on a desktop a unit is about a pixel.
WIDTH, HEIGHT = 400, 330
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 388, 12, 288

#: A class is an eighth of an octave wide, and an outcome gives its upper bound.
_CLASS = 2 ** (1 / 8)

#: Colours and marks there are. With more designs than that they come round again.
STYLES = 6
#: Around the origin: disc, square, triangle up, diamond, triangle down, cross.
_MARKS = (
    "M-4.2 0a4.2 4.2 0 1 0 8.4 0a4.2 4.2 0 1 0 -8.4 0z",
    "M-3.8 -3.8h7.6v7.6h-7.6z",
    "M0 -4.8L4.8 3.8H-4.8z",
    "M0 -5.4L5.4 0L0 5.4L-5.4 0z",
    "M0 4.8L4.8 -3.8H-4.8z",
    "M-1.7 -5h3.4v3.3h3.3v3.4h-3.3v3.3h-3.4v-3.3h-3.3v-3.4h3.3z",
)


@dataclass(frozen=True, slots=True)
class Axes:
    """Powers of ten: of nanoseconds from left to right, and of the share at the bottom (100% is at the top)."""

    least: int
    most: int
    bottom: int

    def x(self, nanoseconds: float) -> float:
        """Where a time lies; what is off the axis lies at its end."""
        along = (log10(max(nanoseconds, 1e-9)) - self.least) / (self.most - self.least)
        return _LEFT + (_RIGHT - _LEFT) * min(max(along, 0.0), 1.0)

    def y(self, share: float) -> float:
        """Where a share lies."""
        down = log10(max(share, 1e-300)) / self.bottom
        return _TOP + (_BOTTOM - _TOP) * min(max(down, 0.0), 1.0)


def axes(outcomes: Sequence[Outcome]) -> Axes:
    """Axes on which the stalls of all these outcomes have room, in whole decades."""
    curves = [curve for outcome in outcomes if (curve := tail(outcome.stalls))]
    if not curves:
        return Axes(3, 6, -2)
    shortest, longest = min(curve[0][0] for curve in curves), max(curve[-1][0] for curve in curves)
    least, most = floor(log10(max(shortest, 1))), ceil(log10(max(longest, 1)))
    bottom = floor(log10(min(curve[-1][1] for curve in curves)))
    return Axes(least, max(most, least + 2), min(bottom, -2))


def tail(times: Times) -> list[tuple[float, float]]:
    """The complementary distribution: (t in nanoseconds, share of the times longer than t), falling to one time.

    Within a class times are taken to be spread evenly on a logarithmic scale. Empty without times or without classes.
    """
    total = sum(count for _, count in times.classes)
    points: list[tuple[float, float]] = []
    left, below = total, 0.0
    for upper, count in times.classes:
        if not count:
            continue
        lower = max(below, min(upper / _CLASS, times.max))
        if not points or points[-1][0] < lower:
            points.append((lower, left / total))
        left -= count
        if left:
            points.append((upper, left / total))
        else:  # the last class: it ends at the longest time, and a share of nothing has no place on the axis
            points.append((max(min(upper, times.max), lower), 1 / total))
        below = upper
    return points


def style(design: str, others: Sequence[str] = ()) -> int:
    """The number of a design's colour and mark; designs that have none of their own take them in turn."""
    known = list(DESIGNS)
    number = known.index(design) if design in known else len(known) + list(others).index(design)
    return number % STYLES


def mark(number: int) -> str:
    """The mark of a design, for a legend or a table."""
    return (
        f'<svg class="key d{number}" viewBox="-7 -7 14 14" width="14" height="14" aria-hidden="true">'
        f'<path class="mark" d="{_MARKS[number]}"/></svg>'
    )


def panel(outcomes: Sequence[Outcome], scale: Axes, name: str, ident: str, strangers: Sequence[str] = ()) -> str:
    """The curves of one state and temperature as one SVG element.

    Parameters
    ----------
    outcomes
        What is drawn; measurements on top of predictions, and otherwise the first design on top.
    scale
        The axes.
    name
        What is shown, as text for screen readers.
    ident
        A prefix for ids in the document.
    strangers
        Designs that have no style of their own, in an order that is the same for all panels.
    """
    known = in_order((outcome.design for outcome in outcomes), DESIGNS)
    drawn = [outcome for outcome in outcomes if tail(outcome.stalls)]
    drawn.sort(key=lambda o: (o.interpreter == "live", -known.index(o.design)))
    said = "; ".join(f"{o.design} {o.interpreter} {time_text(o.stalls.p99)}" for o in reversed(drawn))
    series = "".join(_series(outcome, scale, style(outcome.design, strangers)) for outcome in drawn)
    if not drawn:
        middle = f'x="{(_LEFT + _RIGHT) / 2:.1f}" y="{(_TOP + _BOTTOM) / 2:.1f}"'
        series = f'<text class="none" {middle} text-anchor="middle">no stalls</text>'
    description = f"p99 of the stalls: {said}." if drawn else "No stalls."
    return (
        f'<svg class="plot" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-labelledby="{ident}-title {ident}-desc">'
        f'<title id="{ident}-title">{escape(name)}</title>'
        f'<desc id="{ident}-desc">Share of stalls longer than t, over t, both logarithmic. {escape(description)}</desc>'
        f"{_grid(scale)}{series}</svg>"
    )


def _series(outcome: Outcome, scale: Axes, number: int) -> str:
    stalls = outcome.stalls
    points = tail(stalls)
    line = "M" + "L".join(f"{scale.x(time):.1f} {scale.y(share):.1f}" for time, share in points)
    # With less than a hundred stalls the curve ends above 1%, and its p99 is its end.
    at = f"{scale.x(stalls.p99):.1f} {scale.y(max(0.01, points[-1][1])):.1f}"
    said = (
        f"{outcome.design}, {outcome.interpreter}: p50 {time_text(stalls.p50)}, p99 {time_text(stalls.p99)}, "
        f"longest {time_text(stalls.max)}, of {stalls.count:,} stalls"
    )
    return (
        f'<g class="series d{number} {"virtual" if outcome.interpreter == "virtual" else "live"}">'
        f'<title>{escape(said)}</title><path class="hit" d="{line}"/><path class="curve" d="{line}"/>'
        f'<path class="mark" transform="translate({at.replace(" ", ",")})" d="{_MARKS[number]}"/></g>'
    )


def _grid(scale: Axes) -> str:
    parts = []
    decades = range(scale.least, scale.most + 1)
    every = 1 if len(decades) <= 8 else 2
    for power in decades:
        x = scale.x(10**power)
        parts.append(f'<path class="grid" d="M{x:.1f} {_TOP}V{_BOTTOM}"/>')
        if (power - scale.least) % every == 0:
            # The last label would reach beyond the edge if it stood in the middle.
            anchor = "end" if power == scale.most else "middle"
            right = x + (WIDTH - _RIGHT) - 1 if power == scale.most else x
            label = f'x="{right:.1f}" y="{_BOTTOM + 16}" text-anchor="{anchor}"'
            parts.append(f'<text class="tick" {label}>{time_text(10**power)}</text>')
    shares = range(0, scale.bottom - 1, -1 if scale.bottom >= -7 else -2)
    for power in shares:
        y = scale.y(10.0**power)
        parts.append(f'<path class="grid" d="M{_LEFT} {y:.1f}H{_RIGHT}"/>')
        parts.append(f'<text class="tick" x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{_percent(power)}</text>')
    p99 = scale.y(0.01)
    parts.append(f'<path class="level" d="M{_LEFT} {p99:.1f}H{_RIGHT}"/>')
    parts.append(f'<text class="tick" x="{_LEFT + 4}" y="{p99 - 5:.1f}">p99</text>')
    middle = f'x="{(_LEFT + _RIGHT) / 2:.1f}" y="{HEIGHT - 6}" text-anchor="middle"'
    parts.append(f'<text class="axis" {middle}>t, the length of a stall</text>')
    return "".join(parts)


def _percent(power: int) -> str:
    """100%, 10%, 1%, 0.1%, ... for the powers 0, -1, -2, -3, ..."""
    return f"{10.0 ** (power + 2):.{max(0, -power - 2)}f}%"
