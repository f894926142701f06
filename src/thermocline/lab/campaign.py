"""All cells of an experiment, one after the other."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence

from thermocline.lab.experiment import Cell, Experiment
from thermocline.lab.live import LiveCell
from thermocline.lab.outcome import Outcome, Segment, pool
from thermocline.lab.virtual import run_virtual
from thermocline.virtual.costs import Costs

#: Called with a cell before each of its repeats.
Progress = Callable[[str, Cell], None]


def run_live_cells(experiment: Experiment, groups: Sequence[Sequence[Cell]], progress: Progress) -> list[Outcome]:
    """Run cells on real memory. Those of a group take turns, so that what befalls the machine befalls them all."""
    outcomes = []
    for group in groups:
        with contextlib.ExitStack() as stack:
            made = [stack.enter_context(LiveCell(experiment, cell)) for cell in group]
            segments: dict[Cell, list[Segment]] = {cell: [] for cell in group}
            for repeat in range(experiment.repeats):
                # Each design is the first in its turn: the first one finds a machine that has just been idle.
                for offset in range(len(made)):
                    live = made[(repeat + offset) % len(made)]
                    progress("live", live.cell)
                    segments[live.cell].append(live.run(repeat))
        outcomes += [pool("live", cell, segments[cell]) for cell in group]
    return outcomes


def run_virtual_cells(
    experiment: Experiment, groups: Sequence[Sequence[Cell]], costs: Costs, progress: Progress
) -> list[Outcome]:
    """Run the same cells on a virtual clock."""
    outcomes = []
    for group in groups:
        for cell in group:
            segments = []
            for repeat in range(experiment.repeats):
                progress("virtual", cell)
                segments.append(run_virtual(experiment, cell, repeat, costs))
            outcomes.append(pool("virtual", cell, segments))
    return outcomes
