import re
from collections.abc import Sequence
from html.parser import HTMLParser
from itertools import product

import pytest
from outcomes import NOTHING, everything, outcome, ranked, times

from thermocline.lab.outcome import Outcome
from thermocline.report.glossary import DESIGNS, INTERPRETERS, STATES, TEMPERATURES
from thermocline.report.page import experiment_page

MACHINE = {"CPU": "two of them", "kernel": "Linux 6.1"}
COMMAND = "thermocline lab --html page.html"
_VOID = {"meta", "br", "input"}


class Page(HTMLParser):
    """A page as a browser's parser sees it; raises as soon as an end tag is not that of the innermost element."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[tuple[tuple[str, ...], str]] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len(dict(attrs)) == len(attrs), f"an attribute twice: {tag} {attrs}"
        self.elements.append((tag, dict(attrs)))
        if tag not in _VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open[-1] == tag, f"</{tag}> in {self.open}"
        self.open.pop()

    def handle_data(self, data: str) -> None:
        if data.strip():
            self.texts.append((tuple(self.open), data.strip()))

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]

    def text(self, *within: str) -> str:
        """All text inside elements of these names."""
        return " ".join(text for path, text in self.texts if set(within) <= set(path)).replace("\xa0", " ")


def page(outcomes: Sequence[Outcome], machine: dict[str, str] = MACHINE, command: str = COMMAND) -> Page:
    return Page(experiment_page(outcomes, machine, command))


@pytest.fixture(scope="module")
def whole() -> Page:
    return page(everything())


def odd_experiments() -> dict[str, Sequence[Outcome]]:
    live = [found for found in everything() if found.interpreter == "live"]
    return {
        "nothing": [],
        "one outcome": [outcome()],
        "only live": live,
        "only virtual": [found for found in everything() if found.interpreter == "virtual"],
        "no stalls": [outcome(stalls=NOTHING, stall_p99=(0, 0)), outcome(interpreter="virtual", stalls=NOTHING)],
        "one class": [outcome(stalls=times([5000] * 7)), outcome(interpreter="virtual", stalls=times([5000]))],
        "nothing moved": [outcome(migrated=0, source_lock=NOTHING, allocating=NOTHING, cpu_ns=0, seconds=0.0)],
        "strangers": [outcome(f"design {n}", state="odd", temperature="tepid") for n in range(9)],
        "no repeats kept apart": [outcome(stall_p99=())],
    }


@pytest.mark.parametrize("outcomes", odd_experiments().values(), ids=odd_experiments().keys())
def test_any_experiment_makes_a_page_that_is_well_formed(outcomes: Sequence[Outcome]) -> None:
    found = page(outcomes)
    assert "Linux 6.1" in found.text("dl")
    assert COMMAND in found.text("pre")
    for design in {found.design for found in outcomes}:
        assert design in found.text("table")


def test_it_needs_nothing_but_itself() -> None:
    text = experiment_page(everything(), MACHINE, COMMAND)
    assert not re.search(r"https?:|//|\bsrc=|url\(|@import|<link|<script|<img|<iframe", text)
    assert all((link["href"] or "").startswith("#") for link in Page(text).of("a"))


def test_every_cell_has_a_row_in_the_figures(whole: Page) -> None:
    # Of each state: a table; of each temperature in it: a body; of each design: a heading; of each interpreter: a row.
    figures = re.findall(r'<table class="figures">.*?</table>', experiment_page(everything(), MACHINE, COMMAND), re.S)
    assert [re.search(r"Target (\w+)", table)[1] for table in figures] == list(STATES)  # type: ignore[index]
    for table in figures:
        bodies = re.findall(r"<tbody>.*?</tbody>", table, re.S)
        assert [re.search(r"<span>(\w+) pages", body)[1] for body in bodies] == list(TEMPERATURES)  # type: ignore[index]
        for body in bodies:
            assert re.findall(r"</svg>(\w+)</th>", body) == list(DESIGNS)
            assert re.findall(r'"interpreter">(\w+)<', body) == list(INTERPRETERS) * len(DESIGNS)


def test_every_cell_is_a_curve_in_the_panel_of_its_state_and_temperature(whole: Page) -> None:
    panels = dict.fromkeys(
        f"Stalls, target {state}, {temperature} pages" for state, temperature in product(STATES, TEMPERATURES)
    )
    titles = [text for path, text in whole.texts if path[-2:] == ("svg", "title")]
    assert titles == list(panels)
    series = [text for path, text in whole.texts if path[-2:] == ("g", "title")]
    for design, interpreter in product(DESIGNS, INTERPRETERS):
        assert sum(text.startswith(f"{design}, {interpreter}:") for text in series) == len(panels)


def test_every_design_is_told_with_its_steps_and_where_the_source_is_locked(whole: Page) -> None:
    for name, design in DESIGNS.items():
        assert design.text in whole.text("article")
        for step in design.steps:
            assert step.does in whole.text("article", "ol")
        assert f"Steps of {name}" in [steps["aria-label"] for steps in whole.of("ol")]


def test_the_line_below_a_bar_is_as_long_as_the_lock_is_held() -> None:
    text = experiment_page(everything(), MACHINE, COMMAND)
    bars = re.findall(r'<div class="locks"[^>]*>(.*?)</div>', text)
    for design, bar in zip(DESIGNS.values(), bars, strict=True):
        covered = set()
        for start, count in re.findall(r"grid-column:(\d+)/span (\d+)", bar):
            covered |= set(range(int(start) - 1, int(start) - 1 + int(count)))
        assert covered == {index for index, step in enumerate(design.steps) if step.locked}


def test_those_who_hear_the_page_are_served(whole: Page) -> None:
    ids = [attributes["id"] for _, attributes in whole.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    for name, attributes in whole.elements:
        for reference in (attributes.get("aria-labelledby") or "").split():
            assert reference in ids
        if (attributes.get("href") or "").startswith("#"):
            assert (attributes["href"] or "")[1:] in ids
        if name == "th":
            assert attributes["scope"] in {"col", "row", "colgroup", "rowgroup"}
        if name == "svg":
            assert attributes.get("role") == "img" or attributes.get("aria-hidden") == "true"
    assert whole.of("html") == [{"lang": "en"}]
    assert len(whole.of("caption")) == len(whole.of("table"))


def test_all_rows_of_a_table_are_as_wide_as_its_head() -> None:
    for table in re.findall(r"<table.*?</table>", experiment_page(everything(), MACHINE, COMMAND), re.S):
        widths, hanging = [], 0
        for cells in re.findall(r"<tr.*?</tr>", table, re.S):
            spans = [int(span) for span in re.findall(r'colspan="(\d+)"', cells)]
            width = len(re.findall("<t[hd]", cells)) - len(spans) + sum(spans) + hanging
            widths.append(width)
            hanging = len(re.findall('rowspan="2"', cells))
        assert len(set(widths)) == 1


def test_names_and_values_are_escaped() -> None:
    evil = "<blink>\"&'"
    outcomes = [outcome(evil, interpreter, state=evil, temperature=evil) for interpreter in INTERPRETERS]
    outcomes += [outcome("batch", interpreter, state=evil, temperature=evil) for interpreter in INTERPRETERS]
    found = page(outcomes, {evil: evil}, evil)
    assert found.of("blink") == []
    assert f"Figures, target {evil}" in [region.get("aria-label") for region in found.of("div")]
    for within in ("h3", "dt", "dd", "pre", "th", "figcaption", "title", "desc", "caption", "nav"):
        assert evil in found.text(within)


def test_the_summary_is_computed_from_the_outcomes() -> None:
    ms = 1_000_000
    found = page(ranked({"deferred": (42 * ms, 42 * ms), "batch": (3 * ms, 3 * ms)}))
    assert "Under a full target, deferred's p99 stall was 14 times batch's" in found.text("aside")


def test_the_verdict_names_the_pairs_in_the_wrong_order() -> None:
    live = ranked({"batch": (1000, 1000), "relock": (2000, 2000), "deferred": (900, 1500), "prealloc": (800, 1600)})
    virtual = {"batch": (7000,), "relock": (5000,), "deferred": (1,), "prealloc": (2,)}
    found = page(live + ranked(virtual, "virtual"))
    text = found.text("section")
    assert "2 of 3 pairs in the order measured, 3 too close to call" in text
    assert "batch's p99 is below relock's live (1 us and 2 us)".replace("us", "µs") in text
    boxes = [box["class"] for box in found.of("i")]
    assert boxes == ["same", "same", "other", "close", "close", "close"]


def test_without_a_second_interpreter_there_is_no_verdict() -> None:
    found = page([outcome("batch"), outcome("relock")])
    assert "nothing to compare" in found.text("section")
    assert found.of("i") == []
    assert "errors" not in [table["class"] for table in found.of("table")]


def test_a_light_and_a_dark_look_name_the_same_colours() -> None:
    sheet = page([]).text("style")
    light, dark = re.findall(r":root \{(.*?)\}", sheet, re.S)
    names = [set(re.findall(r"--\w+(?=:)", look)) for look in (light, dark)]
    assert names[0] == names[1]
    used = set(re.findall(r"var\((--\w+)", sheet))
    assert used - names[0] == {"--c", "--amount"}


def test_every_design_can_be_looked_at_by_itself(whole: Page) -> None:
    sheet = whole.text("style")
    choices = [choice["class"] or "" for choice in whole.of("input")]
    assert choices[0] == "look-all"
    for choice in choices[1:]:
        assert f".{choice}:checked) .series:not(.d{choice[-1]})" in sheet


def test_those_without_stalls_are_named_below_the_panel() -> None:
    found = page([outcome("batch", stalls=NOTHING), outcome("relock")])
    assert "No stalls: batch (live)" in found.text("figcaption")
