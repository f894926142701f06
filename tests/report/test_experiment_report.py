import doctest
import json
import re
from dataclasses import replace

import pytest
from outcomes import NOTHING, everything, outcome, ranked, times

from thermocline.lab.outcome import Times
from thermocline.protocol import migrate
from thermocline.report import figures, glossary
from thermocline.report.experiment import WIDTH, experiment_json, experiment_tables


def row(text: str, design: str, interpreter: str = "live") -> list[str]:
    """The figures of a row; a virtual one does not repeat its design."""
    lines = text.splitlines()
    start = next(n for n, line in enumerate(lines) if line.split()[:1] == [design])
    found = next(line for line in lines[start:] if interpreter in line.split()[:2])
    return found.split(interpreter, 1)[1].split()


def test_no_line_is_wider_than_the_terminal_however_large_the_figures() -> None:
    times_ = Times(9_999_999_999, 10**18, 12_345, 12_345_678, 123_456_789_000, 999_400_000)
    large = [
        replace(
            found,
            migrated=123_456_789,
            seconds=0.37,
            stalls=times_,
            source_lock=times_,
            allocating=replace(times_, total=9 * 10**17),
            cpu_ns=123_456 * 123_456_789,
            aborts=10**9,
            failures=123_456,
            refaults=99_999,
            repeats=1,
        )
        for found in everything()
    ]
    for outcomes in (large, everything()):
        assert max(map(len, experiment_tables(outcomes).splitlines())) <= WIDTH


def test_columns_end_below_their_headings() -> None:
    lines = experiment_tables([outcome("transactional"), outcome("batch", "virtual", stalls=NOTHING)]).splitlines()
    names, *rows = (line for line in lines if re.match("design|transactional|batch|  +virtual", line))
    assert len(rows) == 2
    ends = [match.end() for match in re.finditer(r"\S+", names.replace("per s", "per-s"))][1:]
    for line in rows:
        assert [match.end() for match in re.finditer(r"\S+", line)][2:] == ends


def test_every_design_has_a_row_for_each_interpreter_in_each_cell() -> None:
    text = experiment_tables(everything())
    for state in glossary.STATES:
        for temperature in glossary.TEMPERATURES:
            table = text.split(f"target {state}, pages {temperature}  ")[1].split("\n\n")[0]
            for design in glossary.DESIGNS:
                for interpreter in glossary.INTERPRETERS:
                    assert len(row(table, design, interpreter)) == len(figures.FIGURES)


def test_figures_are_of_a_repeat_and_in_units_that_people_read() -> None:
    found = outcome(
        repeats=4,
        migrated=40_000,
        seconds=8.0,
        stalls=Times(1_000_000, 1, 12_300, 1_250_000, 35_000_000, 2_000_000_000),
        source_lock=Times(10, 1000, 900, 45_600, 0, 0),
        allocating=Times(1, 250, 0, 0, 0, 0),
        cpu_ns=40_000 * 38_000,
        aborts=2,
        failures=48,
        refaults=600_000,
    )
    assert row(experiment_tables([found]), "batch") == [
        *("10000", "5000"),
        *("12.3us", "1.25ms", "35ms", "2s", "250k"),
        *("900ns", "45.6us", "25%"),
        "38us",
        *("0.5", "12", "150k"),
    ]


def test_what_is_not_there_is_a_hyphen() -> None:
    found = outcome(migrated=0, stalls=NOTHING, source_lock=NOTHING, allocating=NOTHING)
    shown = row(experiment_tables([found]), "batch")
    assert shown == ["0", "0", "-", "-", "-", "-", "0", "-", "-", "-", "-", "0", "6", "500"]


@pytest.mark.parametrize("interpreter", ["live", "virtual"])
def test_one_interpreter_alone_is_shown_without_a_prediction(interpreter: str) -> None:
    text = experiment_tables([found for found in everything() if found.interpreter == interpreter])
    assert row(text, "relock", interpreter)
    assert not re.search("error|order|too close", text)
    assert ({"live": "virtual", "virtual": "live"}[interpreter]) not in text


def test_errors_and_orders_are_below_the_figures() -> None:
    live = ranked({"batch": (100, 110), "deferred": (400, 500), "relock": (90, 120)})
    virtual = ranked({"batch": (99,), "deferred": (50,), "relock": (70,)}, "virtual")
    text = experiment_tables(live + virtual)
    assert row(text.split("prediction error")[1], "deferred", "deferred") == ["+100%", "+0.0%", "-90%"]
    assert "order of the designs by p99 stall: 0 of 2 pairs as live, 1 too close to call" in text
    assert "  batch before deferred: live 110 ns, 500 ns, virtual 99 ns, 50 ns\n" in text
    assert text.endswith("over all: 0 of 2 pairs in the same order, 1 too close to call")


def test_a_single_repeat_is_warned_of() -> None:
    virtual = ranked({"batch": (1,), "deferred": (2,)}, "virtual")
    assert "noise is not known" in experiment_tables(ranked({"batch": (1,), "deferred": (2,)}) + virtual)
    assert "noise is not known" not in experiment_tables(ranked({"batch": (1, 1), "deferred": (2, 2)}) + virtual)


def test_cells_come_in_the_order_of_the_glossary_and_strangers_last() -> None:
    outcomes = [
        outcome(design, state=state) for state in ("odd", "full", "roomy") for design in ("new", "relock", "batch")
    ]
    text = experiment_tables(outcomes)
    assert re.findall(r"target (\w+),", text) == ["roomy", "full", "odd"]
    assert re.findall(r"^(new|relock|batch) ", text, re.MULTILINE) == ["batch", "relock", "new"] * 3


def test_without_outcomes_it_says_so() -> None:
    assert experiment_tables([]) == "no outcomes"


def test_the_json_holds_everything_and_a_line_for_each_outcome() -> None:
    outcomes = everything()
    text = experiment_json(outcomes, {"kernel": "6.1"}, "thermocline lab")
    held = json.loads(text)
    assert (held["machine"], held["command"]) == ({"kernel": "6.1"}, "thermocline lab")
    assert held["outcomes"] == json.loads(json.dumps([found.as_dict() for found in outcomes]))
    assert len(held["prediction_errors"]) == len(outcomes) / 2
    assert sum(len(order["agreements"]) for order in held["orders"]) > 0
    for found in outcomes:
        assert re.search(f"^{re.escape(json.dumps(found.as_dict()))},?$", text, re.MULTILINE)


def test_the_json_of_nothing_is_json() -> None:
    assert json.loads(experiment_json([], {}, ""))["outcomes"] == []


def test_what_is_no_json_is_refused() -> None:
    with pytest.raises(ValueError, match="JSON"):
        experiment_json([outcome(seconds=float("nan"))], {}, "")


@pytest.mark.parametrize("count", [0, 0.04, 9.95, 99_999, 99_999.6, 999_499, 999_500, 999_999, 12_345_678, 9.99e14])
def test_a_short_count_has_five_characters_at_most(count: float) -> None:
    text = figures.short_count(count)
    assert len(text) <= 5
    value = float(text.rstrip("kMGT")) * 1000 ** " kMGT".index(text[-1] if text[-1] in "kMGT" else " ")
    assert value == pytest.approx(count, rel=0.006, abs=0.05)


def test_a_share_that_is_not_nothing_or_all_does_not_look_so() -> None:
    shares = [figures.share(value) for value in (0, 0.001, 0.5, 0.999, 1)]
    assert shares == ["0%", "<1%", "50%", ">99%", "100%"]


def test_an_error_of_nothing_has_no_minus() -> None:
    assert [figures.error(value) for value in (-0.0, -1e-9, 0.0, -0.01)] == ["+0.0%", "+0.0%", "+0.0%", "-1.0%"]


def test_a_range_says_its_unit_once_and_knows_repeats_without_stalls() -> None:
    ranges = [(2000, 3000), (900_000, 1_500_000), (7000, 7001), (0, 5000)]
    texts = [figures.range_text(low, high).replace("\xa0", " ") for low, high in ranges]
    assert texts == ["2 to 3 µs", "900 µs to 1.5 ms", "7 µs", "none to 5 µs"]


def test_the_examples_of_the_figures_are_true() -> None:
    tested = doctest.testmod(figures)
    assert tested.attempted >= 3
    assert tested.failed == 0


def test_the_glossary_has_the_designs_that_there_are() -> None:
    assert list(glossary.DESIGNS) == list(migrate.DESIGNS)


def test_only_deferred_allocates_with_the_source_locked() -> None:
    under = {
        name: {step.locked for step in design.steps if step.kind == "allocate"}
        for name, design in glossary.DESIGNS.items()
    }
    assert under.pop("deferred") == {True}
    assert under.pop("discard") == set()
    assert set(map(frozenset, under.values())) == {frozenset({False})}


def test_one_time_in_one_class_is_shown_at_every_percentile() -> None:
    assert row(experiment_tables([outcome(stalls=times([70_000]))]), "batch")[2:6] == ["70us"] * 4
