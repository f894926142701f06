import re
from dataclasses import replace
from itertools import pairwise

import pytest
from outcomes import NOTHING, everything, outcome, times

from thermocline.lab.outcome import Outcome, Times
from thermocline.report.curves import HEIGHT, STYLES, WIDTH, axes, panel, style, tail
from thermocline.report.glossary import DESIGNS


def coordinates(svg: str) -> list[tuple[float, float]]:
    """Every point of every path, and where every text begins."""
    points = [(float(x), float(y)) for x, y in re.findall(r'<text[^>]* x="([-\d.]+)" y="([-\d.]+)"', svg)]
    for data, shift in re.findall(r'<path(?: class="(?:curve|hit)")? d="([^"]*)"()', svg):
        assert not shift
        points += [(float(x), float(y)) for x, y in re.findall(r"[ML]([-\d.]+) ([-\d.]+)", data)]
    points += [(float(x), float(y)) for x, y in re.findall(r"translate\(([-\d.]+),([-\d.]+)\)", svg)]
    return points


def drawn(*outcomes: Outcome) -> str:
    return panel(outcomes, axes(outcomes), "stalls", "plot")


def test_a_curve_says_what_share_is_longer() -> None:
    values = [1000] * 50 + [5000] * 40 + [90_000] * 9 + [700_000]
    points = dict(tail(times(values)))
    for upper, _ in times(values).classes[:-1]:
        assert points[upper] == pytest.approx(sum(value > upper for value in values) / len(values))


def test_a_curve_starts_at_all_and_ends_at_the_longest_and_never_rises() -> None:
    for found in everything():
        points = tail(found.stalls)
        assert points[0][1] == 1
        assert points[0][0] <= found.stalls.p50
        assert points[-1] == (found.stalls.max, 1 / found.stalls.count)
        assert points == sorted(points, key=lambda point: (point[0], -point[1]))
        assert all(one[1] >= other[1] for one, other in pairwise(points))


def test_between_distant_classes_a_curve_is_flat() -> None:
    _, left, right, end = tail(times([1000, 1000, 1_000_000, 1_000_000]))
    assert (left[1], right[1]) == (0.5, 0.5)
    assert (left[0] < 1100, right[0] > 900_000, end) == (True, True, (1_000_000, 0.25))


def test_a_curve_of_one_class_or_one_stall_has_two_points() -> None:
    assert tail(times([64_000] * 10)) == [(pytest.approx(64_000, rel=0.07), 1.0), (64_000, 0.1)]
    [start, end] = tail(times([64_000]))
    assert (start[1], end) == (1.0, (64_000, 1.0))


@pytest.mark.parametrize("nothing", [NOTHING, Times(3, 30, 10, 10, 10, 10)])
def test_without_stalls_or_classes_the_panel_says_so(nothing: Times) -> None:
    assert tail(nothing) == []
    svg = drawn(outcome(stalls=nothing))
    assert ">no stalls</text>" in svg
    assert "series" not in svg


def test_everything_is_drawn_within_the_view_box() -> None:
    outcomes = everything()
    odd = [
        outcome("relock", stalls=times([1])),
        outcome("batch", stalls=times([2**40, 3])),
        outcome("discard", stalls=replace(times([10, 10**9]), p99=10**15)),
    ]
    for shown in (outcomes[:12], outcomes, odd):
        svg = drawn(*shown)
        assert f'viewBox="0 0 {WIDTH} {HEIGHT}"' in svg
        points = coordinates(svg)
        assert len(points) > 20
        assert all(0 <= x <= WIDTH and 0 <= y <= HEIGHT for x, y in points)


def test_the_axes_hold_every_curve_of_the_page() -> None:
    outcomes = everything()
    scale = axes(outcomes)
    for found in outcomes:
        for nanoseconds, share in tail(found.stalls):
            assert 10**scale.least <= nanoseconds <= 10**scale.most
            assert 10**scale.bottom <= share <= 1


def test_axes_are_logarithmic_and_go_right_and_down() -> None:
    scale = axes([outcome(stalls=times([1000, *[10_000] * 998, 1_000_000]))])
    first, second, third = (scale.x(10**power) for power in (3, 4, 5))
    assert second - first == pytest.approx(third - second)
    assert second > first
    assert scale.y(0.01) - scale.y(0.1) == pytest.approx(scale.y(0.1) - scale.y(1))
    assert scale.y(0.1) > scale.y(1)


def test_the_mark_lies_at_the_p99() -> None:
    found = outcome(stalls=times(range(1000, 900_000, 100)))
    scale = axes([found])
    x, y = scale.x(found.stalls.p99), scale.y(0.01)
    assert f"translate({x:.1f},{y:.1f})" in drawn(found)


def test_the_mark_of_few_stalls_lies_at_the_end_of_their_curve() -> None:
    found = outcome(stalls=times(range(1000, 11_000, 1000)))
    scale = axes([found])
    assert f"translate({scale.x(10_000):.1f},{scale.y(0.1):.1f})" in drawn(found)


def test_live_lies_over_virtual_and_both_have_the_style_of_their_design() -> None:
    svg = drawn(outcome("relock"), outcome("relock", "virtual"), outcome("batch", "virtual"))
    assert re.findall(r'"series (d\d) (\w+)"', svg) == [("d4", "virtual"), ("d0", "virtual"), ("d4", "live")]


def test_every_design_has_a_style_of_its_own_and_strangers_take_turns() -> None:
    assert sorted(style(design) for design in DESIGNS) == list(range(STYLES))
    assert [style(design, ("x", "y")) for design in ("x", "y")] == [0, 1]


def test_those_who_cannot_see_it_are_told_the_p99s() -> None:
    svg = drawn(outcome("relock", stalls=times([1_500_000])))
    assert re.search(r"<desc id=\"plot-desc\">[^<]*relock live 1.5\xa0ms", svg)
    assert 'aria-labelledby="plot-title plot-desc"' in svg
