"""The experiment: what a cell of it is, and what happens there.

Threads that have nothing to do with reclaim touch pages, some of which reclaim sends away as fast as it can, again and
again. What a touch takes is measured. Cells differ in the design, in the state of the target that pages are sent to,
and in how warm the pages are. Live and virtual runs do the same touches in the same order.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from thermocline.errors import SpecError, ThermoclineError
from thermocline.protocol.migrate import DESIGNS
from thermocline.spec import MINIMUM_PAGES, Compressed, Dram, File, NodeSpec, check_page_size

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

#: Bytes of a page for each byte that it takes in compressed memory. Little: a target that is full has to stay full.
RATIO = 4 / 3

#: Seconds between two rounds of sending pages away: a page that has just come back is not gone before its thread wakes.
PAUSE = 1e-3

_LARGEST_PAGES = 4096
_MOST_THREADS = 64
_LARGEST_TOUCHES = 10_000_000
_MOST_REPEATS = 100


class WrongByte(ThermoclineError):
    """A page did not hold what was written to it."""


@dataclass(frozen=True, slots=True)
class Experiment:
    """What all cells have in common.

    Parameters
    ----------
    directory : str
        Where the slow node's file is made.
    pages : int
        Pages that reclaim sends away, and as many again that it leaves alone.
    page_size : int
        Bytes.
    threads : int
        Threads that touch them.
    touches : int
        Touches of each thread in each repeat.
    think : float
        Seconds that a thread sleeps before each.
    writes : float
        The share of touches that write.
    latency : float
        Seconds by which the slow node is slow.
    repeats : int
        How often each cell is run. The designs take turns.
    seed : int
        Of which pages are touched, and of the virtual costs.

    Raises
    ------
    SpecError
        It cannot be run.
    """

    directory: str
    pages: int = 48
    page_size: int = 64 << 10
    threads: int = 2
    touches: int = 600
    think: float = 100e-6
    writes: float = 0.5
    latency: float = 2e-3
    repeats: int = 5
    seed: int = 0

    def __post_init__(self) -> None:
        check_page_size(self.page_size)
        for name, value, least, most in (
            ("pages", self.pages, MINIMUM_PAGES, _LARGEST_PAGES),
            ("threads", self.threads, 1, _MOST_THREADS),
            ("touches", self.touches, 1, _LARGEST_TOUCHES),
            ("repeats", self.repeats, 1, _MOST_REPEATS),
        ):
            if not least <= value <= most:
                raise SpecError(f"{name} is {value}; write {least} to {most}")
        if not 0 <= self.writes <= 1:
            raise SpecError(f"writes is {self.writes:g}; it is a share, write 0 to 1")
        if not 0 <= self.think <= 1 or not 0 <= self.latency <= 1:
            raise SpecError("think and latency are seconds; write 0 to 1")
        if self.threads * self.repeats * 8 > self.page_size:
            raise SpecError(f"{self.threads} threads in {self.repeats} repeats have no word each; write fewer")

    def nodes(self, state: str) -> tuple[NodeSpec, ...]:
        """The nodes of a state of the target."""
        return STATES[state].nodes(self)

    def accesses(self, temperature: str, thread: int, repeat: int) -> NDArray[np.uint32]:
        """What a thread touches in a repeat: twice the page, and 1 more for a write.

        Pages below ``pages`` are those that reclaim sends away; the others it leaves alone.
        """
        import numpy as np

        warmth = TEMPERATURES[temperature]
        random = np.random.default_rng((self.seed, thread, repeat))
        sent_away = random.integers(0, max(int(self.pages * warmth.pages), 1), self.touches)
        left_alone = random.integers(self.pages, 2 * self.pages, self.touches)
        page = np.where(random.random(self.touches) < warmth.touches, sent_away, left_alone)
        return (page * 2 + (random.random(self.touches) < self.writes)).astype(np.uint32)


class State(NamedTuple):
    """A state of the target.

    Attributes
    ----------
    nodes : callable
        Experiment -> its nodes.
    full : bool
        Whether the target is full of other pages to begin with.
    """

    nodes: Callable[[Experiment], tuple[NodeSpec, ...]]
    full: bool


def _dram(experiment: Experiment) -> Dram:
    """Room for everything: no page leaves DRAM but when it is sent away, and no fault has to make room first."""
    return Dram(8 * experiment.pages * experiment.page_size)


def _zstd(experiment: Experiment, pages: int) -> Compressed:
    return Compressed(max(pages, MINIMUM_PAGES) * experiment.page_size, "zstd", "store")


def _file(experiment: Experiment, latency: float) -> File:
    return File(experiment.directory, 8 * experiment.pages * experiment.page_size, latency)


#: By name: in which state the node is that pages are sent to.
STATES = {
    "roomy": State(lambda made: (_dram(made), _zstd(made, 4 * made.pages), _file(made, 0.0)), full=False),
    "tight": State(lambda made: (_dram(made), _zstd(made, made.pages // 4), _file(made, 0.0)), full=False),
    "full": State(lambda made: (_dram(made), _zstd(made, MINIMUM_PAGES), _file(made, made.latency)), full=True),
    "failing": State(lambda made: (_dram(made), _zstd(made, MINIMUM_PAGES)), full=True),
}


class Temperature(NamedTuple):
    """How warm the pages are that reclaim sends away.

    Attributes
    ----------
    pages : float
        The share of them that is touched at all.
    touches : float
        The share of touches that go there; the others go to pages that reclaim leaves alone.
    """

    pages: float
    touches: float


TEMPERATURES = {
    "hot": Temperature(1 / 2, 1.0),
    "warm": Temperature(1.0, 1.0),
    "cold": Temperature(1.0, 1 / 8),
}


class Cell(NamedTuple):
    """One design in one state of the target, at one temperature."""

    design: str
    state: str
    temperature: str


def cells(designs: list[str], states: list[str], temperatures: list[str]) -> list[list[Cell]]:
    """All cells of these, grouped by what is to be compared: in each group only the design differs.

    Raises
    ------
    SpecError
        One of the names is unknown.
    """
    for what, names, known in (
        ("design", designs, DESIGNS),
        ("state", states, STATES),
        ("temperature", temperatures, TEMPERATURES),
    ):
        for name in names:
            if name not in known:
                raise SpecError(f'the {what} "{name}" is unknown; write one of: {", ".join(known)}')
    return [[Cell(design, state, warmth) for design in designs] for state in states for warmth in temperatures]
