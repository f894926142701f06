"""What the virtual clock predicted, against what was measured on real memory.

Both interpreters run the same protocols, so the virtual one is a prediction of the live one. It is judged in two ways:
by how far its numbers are off, and by whether it puts the designs in the same order, which is what a model of this
kind is for.

An order can only be asked for where there is one. The live p99 of a design differs from repeat to repeat; two designs
whose ranges over the repeats overlap are not told apart by the measurement, and no prediction about them is right or
wrong. They are counted as too close to call.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from math import comb

from thermocline.lab.outcome import Outcome


@dataclass(frozen=True, slots=True)
class Prediction:
    """One cell under both interpreters.

    Attributes
    ----------
    live, virtual : Outcome
        The measurement and the prediction.
    """

    live: Outcome
    virtual: Outcome

    @property
    def migrated(self) -> float | None:
        """Error in pages migrated per repeat: virtual/live - 1; None if nothing was migrated live."""
        live, virtual = self.live, self.virtual
        return _error(_each(live.migrated, live.repeats), _each(virtual.migrated, virtual.repeats))

    @property
    def migrated_per_second(self) -> float | None:
        """Error in pages per second."""
        return _error(self.live.migrated_per_second, self.virtual.migrated_per_second)

    @property
    def stall_p99(self) -> float | None:
        """Error in the p99 of the stalls; None if no thread stalled live."""
        return _error(self.live.stalls.p99, self.virtual.stalls.p99)


@dataclass(frozen=True, slots=True)
class Pair:
    """Two designs in the order of their live p99.

    Attributes
    ----------
    shorter, longer : str
        The designs.
    live, virtual : tuple of (int, int)
        p99 of the stalls of the one and of the other, in nanoseconds.
    """

    shorter: str
    longer: str
    live: tuple[int, int]
    virtual: tuple[int, int]


@dataclass(frozen=True, slots=True)
class Order:
    """Whether the interpreters agree on the order of the designs by p99 of the stalls, in one state and temperature.

    Attributes
    ----------
    state, temperature : str
        Where.
    agreements, disagreements : tuple of Pair
        Designs that the live repeats tell apart, in the same order in virtual or not. Two equal predictions are no
        order, and count as a disagreement.
    too_close : tuple of Pair
        Designs that the live repeats do not tell apart.
    repeats : int
        Live p99s of the design that has fewest of them.
    """

    state: str
    temperature: str
    agreements: tuple[Pair, ...]
    disagreements: tuple[Pair, ...]
    too_close: tuple[Pair, ...]
    repeats: int

    @property
    def decided(self) -> int:
        """Pairs that the live repeats tell apart."""
        return len(self.agreements) + len(self.disagreements)


@dataclass(frozen=True, slots=True)
class Comparison:
    """Live against virtual, for all cells that have both.

    Attributes
    ----------
    predictions : tuple of Prediction
        A cell each, in the order in which the cells were first seen.
    orders : tuple of Order
        A state and temperature each, if at least two designs were run there under both interpreters.
    """

    predictions: tuple[Prediction, ...]
    orders: tuple[Order, ...]

    def prediction(self, cell: tuple[str, str, str]) -> Prediction | None:
        """The prediction of a cell (state, temperature, design); None if it lacks an interpreter."""
        return next((found for found in self.predictions if found.live.cell == cell), None)

    def order(self, state: str, temperature: str) -> Order | None:
        """The verdict on the order in a state and temperature; None if there is none to be had."""
        return next((found for found in self.orders if (found.state, found.temperature) == (state, temperature)), None)


def compare(outcomes: Sequence[Outcome]) -> Comparison:
    """Pair live with virtual outcomes and judge the predictions.

    Parameters
    ----------
    outcomes
        At most one for each cell and interpreter, in any order. Cells that lack an interpreter are left out.

    Raises
    ------
    ValueError
        A cell comes twice under the same interpreter.
    """
    cells: dict[tuple[str, str, str], dict[str, Outcome]] = {}
    for outcome in outcomes:
        found = cells.setdefault(outcome.cell, {})
        if outcome.interpreter in found:
            raise ValueError(f"two {outcome.interpreter} outcomes of {', '.join(outcome.cell)}; pool their repeats")
        found[outcome.interpreter] = outcome
    predictions = tuple(
        Prediction(found["live"], found["virtual"]) for found in cells.values() if {"live", "virtual"} <= found.keys()
    )
    places: dict[tuple[str, str], list[Prediction]] = {}
    for prediction in predictions:
        places.setdefault(prediction.live.cell[:2], []).append(prediction)
    orders = tuple(_order(*place, together) for place, together in places.items() if len(together) > 1)
    return Comparison(predictions, orders)


def p99_range(outcome: Outcome) -> tuple[int, int]:
    """The least and the greatest p99 of the stalls of a repeat; the pooled one twice if repeats were not kept apart."""
    p99s = outcome.stall_p99 or (outcome.stalls.p99,)
    return min(p99s), max(p99s)


def told_apart(one: Outcome, other: Outcome) -> bool:
    """Whether the p99s of two outcomes differ by more than the noise: their ranges over the repeats do not overlap."""
    (low, high), (other_low, other_high) = p99_range(one), p99_range(other)
    return high < other_low or other_high < low


def chance(repeats: int) -> float:
    """How often two designs that do not differ would be told apart by chance.

    All orders of the p99s of two times `repeats` runs are then alike, and in two of the ways to choose whose is which
    the ranges do not overlap.
    """
    return 2 / comb(2 * repeats, repeats)


def _order(state: str, temperature: str, predictions: Sequence[Prediction]) -> Order:
    agreements, disagreements, too_close = [], [], []
    for one, other in combinations(predictions, 2):
        # By where the range ends, not by the pooled p99: where the ranges do not overlap, this is their order, whatever
        # one long repeat does to the pool.
        first, second = sorted((one, other), key=lambda prediction: p99_range(prediction.live)[1])
        pair = Pair(
            first.live.design,
            second.live.design,
            (first.live.stalls.p99, second.live.stalls.p99),
            (first.virtual.stalls.p99, second.virtual.stalls.p99),
        )
        if not told_apart(one.live, other.live):
            too_close.append(pair)
        elif pair.virtual[0] < pair.virtual[1]:
            agreements.append(pair)
        else:
            disagreements.append(pair)
    repeats = min(len(prediction.live.stall_p99) or 1 for prediction in predictions)
    return Order(state, temperature, tuple(agreements), tuple(disagreements), tuple(too_close), repeats)


def _each(count: int, repeats: int) -> float:
    return count / repeats if repeats else 0.0


def _error(live: float, virtual: float) -> float | None:
    return virtual / live - 1 if live else None
