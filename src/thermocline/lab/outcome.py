"""What came of one cell of the experiment."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from thermocline.protocol.histogram import Distribution, class_of, upper_bound

if TYPE_CHECKING:
    from thermocline.lab.experiment import Cell


_SHARES = (0.5, 0.99, 0.999)


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

    @classmethod
    def of(cls, nanoseconds: Sequence[int]) -> Times:
        """Times that are known one by one."""
        ordered = sorted(nanoseconds)
        if not ordered:
            return cls(0, 0, 0, 0, 0, 0)
        counts: dict[int, int] = {}
        for time in ordered:
            bound = upper_bound(class_of(time))
            counts[bound] = counts.get(bound, 0) + 1
        p50, p99, p999 = (ordered[min(int(len(ordered) * share), len(ordered) - 1)] for share in _SHARES)
        return cls(len(ordered), sum(ordered), p50, p99, p999, ordered[-1], tuple(counts.items()))

    @classmethod
    def pooled(cls, parts: Sequence[Distribution]) -> Times:
        """Times that were counted by class, in several runs."""
        counts = tuple(sum(column) for column in zip(*(part.counts for part in parts), strict=True))
        whole = Distribution(counts, sum(part.total for part in parts), max(part.max for part in parts))
        p50, p99, p999 = (whole.percentile(share) for share in _SHARES)
        return cls(whole.count, whole.total, p50, p99, p999, whole.max, whole.classes())

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


@dataclass(frozen=True, slots=True)
class Segment:
    """What came of one repeat of a cell. See :class:`Outcome` for the fields.

    Attributes
    ----------
    stalls : sequence of int
        Nanoseconds of every touch that waited.
    timed : dict of str to Distribution
        By the names of :data:`thermocline.protocol.stopwatch.TIMED`.
    vmstat : dict of str to int
        What was counted.
    """

    seconds: float
    touches: int
    stalls: Sequence[int]
    timed: dict[str, Distribution]
    vmstat: dict[str, int]
    cpu_ns: int


def pool(interpreter: str, cell: Cell, segments: Sequence[Segment]) -> Outcome:
    """The outcome of a cell's repeats."""

    def counted(*names: str) -> int:
        return sum(segment.vmstat[name] for segment in segments for name in names)

    def timed(name: str) -> Times:
        return Times.pooled([segment.timed[name] for segment in segments])

    return Outcome(
        interpreter=interpreter,
        design=cell.design,
        state=cell.state,
        temperature=cell.temperature,
        repeats=len(segments),
        seconds=sum(segment.seconds for segment in segments),
        touches=sum(segment.touches for segment in segments),
        stalls=Times.of([time for segment in segments for time in segment.stalls]),
        stall_p99=tuple(Times.of(segment.stalls).p99 for segment in segments),
        migrated=counted("pgdemote_kswapd", "pgdemote_direct", "pgdemote_proactive"),
        source_lock=timed("source_lock"),
        allocating=timed("allocating"),
        lock_wait=timed("lock_wait"),
        cpu_ns=sum(segment.cpu_ns for segment in segments),
        aborts=counted("pgmigrate_abort"),
        failures=counted("pgmigrate_fail"),
        refaults=counted("workingset_refault"),
    )
