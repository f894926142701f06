"""Tables of figures: what each side came to in each round, and how the sides relate."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

#: The row of what each side took, at most; with the name of another row before it, of what it took for that.
DRAM = "DRAM of the data, at most"


@dataclass(frozen=True)
class Ratio:
    """The median of the ratios of all rounds, the least and the largest of them, and how many there were."""

    median: float
    least: float
    most: float
    rounds: int


@dataclass
class Cell:
    """A workload's figures: by side, one for each round (None: it did not come to one)."""

    unit: str
    samples: dict[str, list[float | None]] = field(default_factory=dict)

    @property
    def rate(self) -> bool:
        """Whether more of it is better."""
        return self.unit == "x" or self.unit.endswith("/s")

    def of(self, side: str) -> list[float]:
        """What there is of a side."""
        return [sample for sample in self.samples.get(side, []) if sample is not None]

    def over(self, side: str, other: str) -> Ratio | None:
        """The figures of one side over those of another in the same round; None if no round has both."""
        pairs = zip(self.samples.get(side, []), self.samples.get(other, []), strict=False)
        ratios = [one / two for one, two in pairs if one is not None and two]
        return Ratio(statistics.median(ratios), min(ratios), max(ratios), len(ratios)) if ratios else None

    def speed(self, side: str, other: str) -> Ratio | None:
        """How many times as fast one side is as another."""
        return self.over(side, other) if self.rate else self.over(other, side)


@dataclass
class Table:
    """A table: its cells by row, rows of text below them by side, and remarks."""

    title: str
    sides: list[str]
    cells: dict[str, Cell] = field(default_factory=dict)
    facts: dict[str, dict[str, str]] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)

    def add(self, row: str, unit: str, side: str, number: int, figure: float) -> None:
        """Enter what a side came to in a round."""
        samples = self.cells.setdefault(row, Cell(unit)).samples.setdefault(side, [])
        samples += [None] * (number + 1 - len(samples))
        samples[number] = figure

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)

    @classmethod
    def of(cls, said: dict[str, Any]) -> Table:
        """Out of JSON."""
        cells = {row: Cell(**cell) for row, cell in said["cells"].items()}
        return cls(said["title"], said["sides"], cells, said["facts"], said["remarks"])

    def remark(self, text: str) -> None:
        """Add a remark, once."""
        if text not in self.remarks:
            self.remarks.append(text)


def in_turn(sides: Iterable[str], rounds: int) -> Iterator[tuple[int, str]]:
    """Every side in every round, every other round backwards, so that a machine that slows down slows all alike."""
    order = list(sides)
    for number in range(rounds):
        for side in order[:: 1 if number % 2 == 0 else -1]:
            yield number, side
