"""The figures that are shown of an outcome, and how each is written.

The terminal and the page show the same figures; they differ in how much room they have. Counts are of one repeat, on
average: the two interpreters may have been run a different number of times.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from thermocline.lab.outcome import Outcome, Times
from thermocline.sizes import format_seconds


class Kind(Enum):
    """What a figure is a number of."""

    COUNT = "count"
    TIME = "time"
    SHARE = "share"


@dataclass(frozen=True, slots=True)
class Figure:
    """A column.

    Attributes
    ----------
    group, name : str
        Its heading, in two parts.
    short : str
        The second part where there is little room.
    kind : Kind
        Times are in nanoseconds, shares are fractions of one.
    of : callable
        The figure of an outcome; None if it has none.
    """

    group: str
    name: str
    short: str
    kind: Kind
    of: Callable[[Outcome], float | None]


def _percentile(times: Times, name: str) -> float | None:
    return float(getattr(times, name)) if times.count else None


def _each(outcome: Outcome, count: int) -> float:
    return count / outcome.repeats if outcome.repeats else float(count)


def _allocating(outcome: Outcome) -> float | None:
    held = outcome.source_lock.total
    return outcome.allocating.total / held if held else None


FIGURES = (
    Figure("migrated", "pages", "pages", Kind.COUNT, lambda o: _each(o, o.migrated)),
    Figure("migrated", "per second", "per s", Kind.COUNT, lambda o: o.migrated_per_second),
    Figure("stalls", "p50", "p50", Kind.TIME, lambda o: _percentile(o.stalls, "p50")),
    Figure("stalls", "p99", "p99", Kind.TIME, lambda o: _percentile(o.stalls, "p99")),
    Figure("stalls", "p99.9", "p99.9", Kind.TIME, lambda o: _percentile(o.stalls, "p999")),
    Figure("stalls", "longest", "max", Kind.TIME, lambda o: _percentile(o.stalls, "max")),
    Figure("stalls", "how many", "count", Kind.COUNT, lambda o: _each(o, o.stalls.count)),
    Figure("source lock held", "p50", "p50", Kind.TIME, lambda o: _percentile(o.source_lock, "p50")),
    Figure("source lock held", "p99", "p99", Kind.TIME, lambda o: _percentile(o.source_lock, "p99")),
    Figure("source lock held", "allocating", "alloc", Kind.SHARE, _allocating),
    Figure("pager", "CPU per page", "CPU/pg", Kind.TIME, lambda o: o.cpu_per_page or None),
    Figure("pages that", "aborted", "abort", Kind.COUNT, lambda o: _each(o, o.aborts)),
    Figure("pages that", "failed", "fail", Kind.COUNT, lambda o: _each(o, o.failures)),
    Figure("pages that", "came back", "back", Kind.COUNT, lambda o: _each(o, o.refaults)),
)


def number_and_unit(nanoseconds: float) -> tuple[str, str]:
    """A time with three significant digits, and its unit."""
    number, unit = format_seconds(nanoseconds / 1e9).split()
    return number, unit


def share(fraction: float) -> str:
    """A fraction as a whole percentage; what is neither nothing nor all does not look as if it were."""
    if 0 < fraction < 0.005:
        return "<1%"
    if 0.995 <= fraction < 1:
        return ">99%"
    return f"{fraction * 100:.0f}%"


def short_count(count: float) -> str:
    """A count in five characters at most.

    Examples
    --------
    >>> short_count(0.4), short_count(99_999), short_count(123_456), short_count(1_234_567)
    ('0.4', '99999', '123k', '1.23M')
    """
    if count < 10 and round(count, 1) != int(count):
        return f"{count:.1f}"
    if round(count) < 100_000:
        return f"{count:.0f}"
    value, unit = count, ""
    for larger in "kMGT":
        value, unit = value / 1000, larger
        if float(f"{value:.3g}") < 1000:
            break
    return f"{float(f'{value:.3g}'):g}{unit}"


def full_count(count: float) -> str:
    """A count with all its digits, in groups of three; one decimal if it is small and not whole."""
    if count < 10 and round(count, 1) != int(count):
        return f"{count:.1f}"
    return f"{count:,.0f}"


def short(figure: Figure, outcome: Outcome) -> str:
    """A figure as the terminal shows it: six characters at most, a hyphen if there is none."""
    value = figure.of(outcome)
    if value is None:
        return "-"
    if figure.kind is Kind.TIME:
        return "".join(number_and_unit(value))
    return share(value) if figure.kind is Kind.SHARE else short_count(value)


def error(fraction: float | None) -> str:
    """A relative error as a percentage with its sign.

    Examples
    --------
    >>> error(0.0314), error(-0.5), error(13.2), error(None)
    ('+3.1%', '-50%', '+1,320%', '-')
    """
    if fraction is None:
        return "-"
    percent = round(fraction * 100, 1) + 0.0  # which makes nothing of minus nothing
    return f"{percent:+.1f}%" if abs(percent) < 9.95 else f"{percent:+,.0f}%"


def times_as_long(ratio: float) -> str:
    """How many times, with two significant digits.

    Examples
    --------
    >>> times_as_long(14.2), times_as_long(1.26), times_as_long(1234), times_as_long(0.316)
    ('14', '1.3', '1,234', '0.32')
    """
    if ratio < 0.995:
        return f"{ratio:.2g}"
    return f"{ratio:.1f}" if ratio < 9.95 else f"{ratio:,.0f}"


def time_text(nanoseconds: float) -> str:
    """A time for the page: with the letter that micro is, and a space at which no line ends."""
    number, unit = number_and_unit(nanoseconds)
    return f"{number}\N{NO-BREAK SPACE}{unit.replace('u', 'µ')}"


def range_text(low: float, high: float) -> str:
    """Two times for the page; the unit is said once if it is that of both, and one is enough if they are alike.

    A repeat without stalls has a p99 of nothing.
    """
    if not low and high:
        return f"none to {time_text(high)}"
    least, unit = number_and_unit(low)
    most, other = number_and_unit(high)
    if (least, unit) == (most, other):
        return time_text(high)
    return f"{least if unit == other else time_text(low)} to {time_text(high)}"
