"""All measurements of a machine, one after the other."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager

from thermocline.lab.calibration import shelves, threads
from thermocline.lab.calibration.loop import PAGE, Loop
from thermocline.lab.calibration.mapping import ARENA_BYTES, Mapping
from thermocline.lab.calibration.program import Program
from thermocline.virtual.costs import Cost, Costs, StoreCosts

#: How often everything is measured, more or less: each measurement knows how much a round of its own is.
_ROUNDS, _QUICK_ROUNDS = 30, 2


def calibrate(directory: str, *, quick: bool = False, progress: Callable[[str], None] = lambda _: None) -> Costs:
    """Measure what each step takes on this machine, in some ten seconds.

    Parameters
    ----------
    directory : str
        Whose disk to measure. Nothing is left in it.
    quick : bool
        In a tenth of the time, and as much rougher.
    progress : callable
        Told what is measured next.

    Raises
    ------
    UnsupportedError
        There is no userfaultfd to be had, or something else that tiering needs.
    StoreError
        The directory takes no file.
    """
    rounds = _QUICK_ROUNDS if quick else _ROUNDS
    cores = len(os.sched_getaffinity(0))
    with Program(ARENA_BYTES) as program, _as_in_a_pager():
        progress("the disk")
        stores = {"file": shelves.file(directory, rounds)}
        progress("compressed memory")
        stores |= {"zstd": shelves.compressed("zstd", rounds), "lz4": shelves.compressed("lz4", rounds)}
        progress("faults and pages")
        with closing(Mapping(program, cores)) as mapping:
            measured = mapping.measure(rounds)
        progress("the pager")
        with closing(Loop(program, directory)) as loop:
            reading, writing, workers = loop.crowded(rounds)
            measured |= workers | loop.measure(rounds)
    alone = stores["file"]
    stores["file"] = StoreCosts(
        _times(alone.read, reading / alone.read.of(PAGE)),
        _times(alone.write, writing / (alone.write.of(PAGE) + measured["read"].of(PAGE))),
    )
    progress("threads")
    measured |= {"hit": threads.hit(rounds), "think": threads.think(rounds), "request": threads.request(rounds)}
    return Costs(cores=cores, stores=dict(sorted(stores.items())), **measured)


def _times(cost: Cost, factor: float) -> Cost:
    """A cost at which a page takes so many times as long."""
    return Cost(round(cost.call * factor, 1), round(cost.byte * factor, 5), cost.spread)


@contextmanager
def _as_in_a_pager() -> Iterator[None]:
    """This process's interpreter as a pager sets it (see :func:`thermocline.live.pager.main`)."""
    interval, collects = sys.getswitchinterval(), gc.isenabled()
    gc.disable()
    sys.setswitchinterval(0.0005)
    try:
        yield
    finally:
        sys.setswitchinterval(interval)
        if collects:
            gc.enable()
