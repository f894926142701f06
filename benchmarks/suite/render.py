"""The results as Markdown, and their place in a page."""

from __future__ import annotations

import statistics
import textwrap
from pathlib import Path
from typing import Any

from goals import goals
from samples import Cell, Ratio, Table

BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"


def filled(text: str) -> str:
    """A paragraph in lines of the width of the house."""
    return textwrap.fill(text, 120, break_long_words=False, break_on_hyphens=False)


def number(figure: float) -> str:
    """Three digits that count, two of small ones."""
    if figure >= 1000:
        return f"{figure:,.0f}"
    if figure >= 100:
        return f"{figure:.0f}"
    return f"{figure:.3g}" if figure >= 0.1 else f"{figure:.1g}" if figure < 0.001 else f"{figure:.2g}"


def spread(figures: list[float]) -> str:
    """Half of what lies between the least and the most, as a share of the median."""
    middle = statistics.median(figures)
    return f"±{50 * (max(figures) - min(figures)) / middle:.0f} %" if middle else ""


def figure(cell: Cell, side: str) -> str:
    """The median of a side and its spread; a dash if there is none."""
    of = cell.of(side)
    if not of:
        return "-"
    unit = "" if cell.unit == "x" else f" {cell.unit}"
    return f"{number(statistics.median(of))}{unit} {spread(of)}"


def ratio(found: Ratio | None) -> str:
    """The median of a ratio, and from where to where it went."""
    return "" if found is None else f"; {number(found.median)} ({number(found.least)} to {number(found.most)})"


def markdown(table: Table) -> str:
    """A table; in the column of a peer, how many times as fast as it the first side is."""
    ours, *others = table.sides
    lines = [["", *table.sides], ["---"] * (1 + len(table.sides))]
    for name, cell in table.cells.items():
        beside = [figure(cell, side) + ratio(cell.speed(ours, side)) for side in others]
        lines.append([name, figure(cell, ours), *beside])
    for name, by_side in table.facts.items():
        lines.append([name, *(by_side.get(side, "") for side in table.sides)])
    rows = [f"| {' | '.join(line)} |" for line in lines]
    return "\n".join([f"**{table.title}**", "", *rows, *(f"\n{filled(remark)}" for remark in table.remarks)])


def page(results: dict[str, Any]) -> str:
    """All results: the goals, then the tables."""
    tables = {name: Table.of(said) for name, said in results["tables"].items()}
    rows = ["| figure | goal | measured | |", "|---|---|---|---|"]
    rows += [f"| {goal.name} | {goal.wanted} | {goal.measured} | {goal.verdict} |" for goal in goals(tables)]
    about = (
        f"`{results['command']}`, {results['rounds']} rounds, {results['seconds'] / 60:.0f} minutes, "
        f"{results['date']}. {results['machine']} {results['versions']}"
    )
    reading = (
        "Figures are medians of all rounds; ± is half of what lies between the least and the largest, as a share of "
        "the median. After the semicolon stands how many times as fast as this peer the first side is (below 1: "
        "slower), or how many times as much DRAM the peer took: the median of the ratios of each round, in brackets "
        "the least and the largest."
    )
    missing = [filled(f"{name}: not measured, {why}.") for name, why in results["left_out"].items()]
    return "\n\n".join(
        [filled(about), filled(reading), "\n".join(rows), *(markdown(table) for table in tables.values()), *missing]
    )


def into(path: Path, text: str) -> None:
    """Put a text between the marks of a page.

    Raises
    ------
    ValueError
        It has no marks.
    """
    before = path.read_text()
    if BEGIN not in before or END not in before:
        raise ValueError(f"{path}: no {BEGIN} and {END}")
    head, rest = before.split(BEGIN, 1)
    path.write_text(f"{head}{BEGIN}\n\n{text}\n\n{END}{rest.split(END, 1)[1]}")
