"""What came of one cell of the experiment."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Times:
    """A distribution of times.

    Attributes
    ----------
    count : int
        How many.
    total, p50, p99, p999, max : int
        Nanoseconds; 0 when there are none.
    classes : tuple of (int, int)
        Upper bound of a class in nanoseconds, and how many times fell into it; ascending, empty classes left out.
        A class is an eighth of an octave wide.
    """

    count: int
    total: int
    p50: int
    p99: int
    p999: int
    max: int
    classes: tuple[tuple[int, int], ...] = ()

    @property
    def mean(self) -> float:
        """Nanoseconds."""
        return self.total / self.count if self.count else 0.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """One cell under one interpreter.

    Attributes
    ----------
    interpreter : str
        ``"live"`` or ``"virtual"``.
    design, state, temperature : str
        The cell.
    repeats : int
        Runs that were pooled: counts are of all of them together, and so are ``seconds``.
    seconds : float
        From the first touch to the last, of a clock on the wall or a virtual one.
    touches : int
        Touches of the unrelated threads.
    stalls : Times
        Of those that waited for a page.
    stall_p99 : tuple of int
        p99 of the stalls of each repeat by itself, in nanoseconds: how far it can be trusted.
    migrated : int
        Pages that went to a lower node.
    source_lock : Times
        How long the lock of a page that was being migrated was held.
    allocating : Times
        The part of it that was spent allocating the target.
    lock_wait : Times
        How long tasks of the pager waited for a page lock: a fault behind a migration, most of all.
    cpu_ns : int
        Processor time of the pager.
    aborts, failures, refaults : int
        Transactions that were given up because the page was written; pages that could not be moved; pages that came
        back to DRAM.
    """

    interpreter: str
    design: str
    state: str
    temperature: str
    repeats: int
    seconds: float
    touches: int
    stalls: Times
    stall_p99: tuple[int, ...]
    migrated: int
    source_lock: Times
    allocating: Times
    lock_wait: Times
    cpu_ns: int
    aborts: int
    failures: int
    refaults: int

    @property
    def cell(self) -> tuple[str, str, str]:
        """State, temperature, design."""
        return self.state, self.temperature, self.design

    @property
    def migrated_per_second(self) -> float:
        """Pages."""
        return self.migrated / self.seconds if self.seconds else 0.0

    @property
    def cpu_per_page(self) -> float:
        """Nanoseconds of the pager's processor time for each page that moved."""
        return self.cpu_ns / self.migrated if self.migrated else 0.0

    def as_dict(self) -> dict[str, Any]:
        """As plain data, for JSON."""
        return asdict(self)
