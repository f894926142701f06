"""The experiment on real memory."""

from __future__ import annotations

import contextlib
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import TYPE_CHECKING

import numpy as np

from thermocline.lab.experiment import PAUSE, STATES, Cell, Experiment, WrongByte
from thermocline.lab.outcome import Segment
from thermocline.lab.prober import WORD, Prober
from thermocline.memory import Memory
from thermocline.spec import MINIMUM_PAGES

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: A touch that took longer has waited for a page: one of a page that is there takes tens of nanoseconds, and a fault
#: tens of microseconds.
STALL_NS = 5_000


class LiveCell:
    """One cell on real memory; each repeat goes on where the last one ended. A context manager."""

    def __init__(self, experiment: Experiment, cell: Cell) -> None:
        self.cell = cell
        self._experiment = experiment
        with contextlib.ExitStack() as undo:
            nodes = experiment.nodes(cell.state)
            memory = undo.enter_context(
                Memory(nodes, page_size=experiment.page_size, design=cell.design, readahead=0, parts=False)
            )
            self._memory = memory
            full = STATES[cell.state].full
            self._ballast = memory.array(_noise(MINIMUM_PAGES * experiment.page_size if full else 0, experiment.seed))
            self._pages = memory.array(_numbers(2 * experiment.pages, experiment))
            self._undo = undo.pop_all()

    def run(self, repeat: int) -> Segment:
        """Run a repeat.

        Raises
        ------
        WrongByte
            A thread read something else than it wrote last.
        """
        experiment, memory = self._experiment, self._memory
        address = self._pages.ctypes.data
        probers = [
            Prober(
                address,
                experiment.page_size,
                2 * experiment.pages,
                experiment.accesses(self.cell.temperature, thread, repeat),
                repeat * experiment.threads + thread,
                experiment.think,
            )
            for thread in range(experiment.threads)
        ]
        over = threading.Event()
        sent_away = self._pages[: experiment.pages]

        def reclaim() -> None:
            while not over.is_set():
                memory.advise(sent_away, "cold")
                over.wait(PAUSE)

        self._begin(repeat)
        before, times_before = memory.stat(), memory.times()
        with ThreadPoolExecutor(experiment.threads + 1) as pool:
            began = time.perf_counter()
            driver = pool.submit(reclaim)
            try:
                touched = [future.result() for future in [pool.submit(prober.run) for prober in probers]]
                seconds = time.perf_counter() - began
                after, times = memory.stat(), memory.times()
            finally:
                for prober in probers:
                    prober.stop()
                over.set()
            driver.result()
        if any(found.mismatches for found in touched):
            raise WrongByte(f"{self.cell.design}: a page did not hold what was written to it")
        nanoseconds = np.concatenate([found.nanoseconds for found in touched])
        return Segment(
            seconds=seconds,
            touches=len(nanoseconds),
            stalls=nanoseconds[nanoseconds >= STALL_NS].tolist(),
            timed={name: times[name].since(times_before[name]) for name in times},
            vmstat={name: after["vmstat"][name] - before["vmstat"][name] for name in after["vmstat"]},
            cpu_ns=round((after["pager"]["cpu_seconds"] - before["pager"]["cpu_seconds"]) * 1e9),
        )

    def _begin(self, repeat: int) -> None:
        """Every repeat begins alike: the pages are in DRAM, and the ballast is where it is in the way."""
        for thread in range(self._experiment.threads):
            self._pages[:, repeat * self._experiment.threads + thread] = 0  # a word of the prober's own
        if len(self._ballast):
            self._ballast[:: self._experiment.page_size] += 1
            self._memory.advise(self._ballast, "cold")

    def close(self) -> None:
        """Give everything back."""
        del self._pages, self._ballast
        self._undo.close()

    def __enter__(self) -> LiveCell:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def _numbers(pages: int, experiment: Experiment) -> NDArray[np.int64]:
    """Pages of whole numbers of six random bytes in eight: they become as much smaller as ``RATIO`` says."""
    random = np.random.default_rng(experiment.seed)
    return random.integers(0, 1 << 48, (pages, experiment.page_size // WORD))


def _noise(size: int, seed: int) -> NDArray[np.uint8]:
    """Bytes that nothing makes smaller."""
    return np.random.default_rng(seed).integers(0, 256, size, np.uint8)
