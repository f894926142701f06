"""The experiment on a virtual clock."""

from __future__ import annotations

from thermocline.lab.experiment import PAUSE, RATIO, STATES, Cell, Experiment
from thermocline.lab.outcome import Segment
from thermocline.protocol.mm import DRAM
from thermocline.spec import MINIMUM_PAGES
from thermocline.virtual.costs import Costs
from thermocline.virtual.machine import VirtualMemory


def run_virtual(experiment: Experiment, cell: Cell, repeat: int, costs: Costs) -> Segment:
    """Run a repeat of a cell: the same pages, touches and requests as on real memory.

    Raises
    ------
    SpecError
        The costs of one of the nodes have not been measured.
    """
    memory = VirtualMemory(
        experiment.nodes(cell.state),
        costs,
        page_size=experiment.page_size,
        pages=2 * experiment.pages + MINIMUM_PAGES,
        design=cell.design,
        seed=experiment.seed * 1000 + repeat,
        readahead=0,
    )
    pages = memory.region(2 * experiment.pages, ratio=RATIO)
    memory.place(range(pages.start, pages.end), DRAM)
    if STATES[cell.state].full:
        ballast = memory.region(MINIMUM_PAGES, ratio=1.0)
        target = memory.mm.nodes[1]
        for page in range(ballast.start, ballast.end):
            memory.place([page], target.index if target.has_room else DRAM)
    for thread in range(experiment.threads):
        memory.thread(
            [experiment.accesses(cell.temperature, thread, repeat)],
            think_ns=round(experiment.think * 1e9),
            keep_stalls=True,
        )
    memory.drive_cold(range(pages.start, pages.start + experiment.pages), pause_ns=round(PAUSE * 1e9))
    result = memory.run()
    return Segment(
        seconds=result.ns / 1e9,
        touches=sum(thread.touches for thread in result.threads),
        stalls=[time for thread in result.threads for time in thread.stall_ns or ()],
        timed={
            "fault": result.fault,
            "lock_wait": result.lock_wait,
            "source_lock": result.source_lock,
            "allocating": result.allocating,
        },
        vmstat=dict(result.vmstat),
        cpu_ns=result.cpu_ns,
    )
