"""What a pager does to a program's pages, and the way of a fault to it and back."""

from __future__ import annotations

import errno
import mmap
import random
import select
import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import nullcontext
from statistics import median
from typing import TypeVar

from thermocline.errors import ThermoclineError
from thermocline.lab.calibration.contents import buffer_of
from thermocline.lab.calibration.program import Program
from thermocline.lab.calibration.samples import Samples
from thermocline.live.arena import Arena
from thermocline.live.buffer import Buffer
from thermocline.live.userfaultfd import PageFault
from thermocline.protocol.effects import Protocol
from thermocline.protocol.page import array_column
from thermocline.protocol.scheduler import Scheduler
from thermocline.protocol.stopwatch import Stopwatch
from thermocline.virtual.costs import Cost

_KIB, _MIB = 1 << 10, 1 << 20
#: Bytes of the arena that the program must have.
ARENA_BYTES = 512 * _MIB
#: Extents of each size. Together they are larger than a second-level cache: pages that go down are cold.
_EXTENTS = {
    size: count
    for size, count in {4 * _KIB: 24, 16 * _KIB: 16, 64 * _KIB: 24, 256 * _KIB: 8, _MIB: 3, 2 * _MIB: 3}.items()
    if size >= mmap.PAGESIZE
}
_LARGEST = max(_EXTENTS)
#: Seconds that the program sleeps before each touch: the pager is asleep by then.
_PAUSE = 100e-6
#: Pages that are poisoned are of these sizes. Each is another one, in the second half of the arena.
_POISONED, _POISONINGS = (min(_EXTENTS), 64 * _KIB), 4

_clock = time.perf_counter_ns
T = TypeVar("T")


def _bytes_of(page: int, count: int) -> tuple[int, int]:
    """Where pages begin in the arena, and what they take."""
    return page * mmap.PAGESIZE, count * mmap.PAGESIZE


class Mapping:
    """Serves the faults of a program, takes its pages away again, and notes how long everything takes.

    What the pager does in answer to a fault is measured with a thread that waits for it: waking it is part of the
    system call. What reclaim does is measured while the program runs: what its processor has in the TLB has to be
    thrown out then, which an idle processor is not asked to do.
    """

    def __init__(self, program: Program, cores: int) -> None:
        self._program = program
        self._cores = cores
        self._arena = Arena(program.arena, mmap.PAGESIZE, [program.mapping])
        self._source = buffer_of(_LARGEST // mmap.PAGESIZE, mmap.PAGESIZE)
        self._target = Buffer(_LARGEST)
        self._random = random.Random(0)
        self._extents: list[tuple[int, int]] = []
        at = 0
        for size in self._shuffled([size for size, count in _EXTENTS.items() for _ in range(count)]):
            self._extents.append((at // mmap.PAGESIZE, size // mmap.PAGESIZE))
            at += size
        # For the program to touch while it runs.
        self._resident = ARENA_BYTES - mmap.PAGESIZE
        self._unpoisoned = ARENA_BYTES // 2
        self._samples: dict[str, Samples] = defaultdict(Samples)
        self._scheduler = Scheduler(Stopwatch(_clock), array_column("B", 1))
        self._news = select.epoll()
        self._news.register(program.uffd.fd, select.EPOLLIN)
        self._news.register(program.control, select.EPOLLIN)

    def measure(self, rounds: int) -> dict[str, Cost]:
        """Costs by name: fault, wake, message; install, zero, protect, unprotect, punch, read, poison."""
        arena = self._arena
        arena.install_zeros(self._resident, mmap.PAGESIZE)

        def install(page: int, count: int) -> None:
            arena.install(*_bytes_of(page, count), self._source, 0, protect=False)

        def zero(page: int, count: int) -> None:
            arena.install_zeros(*_bytes_of(page, count))

        def read(page: int, count: int) -> None:
            arena.read(*_bytes_of(page, count), self._target, 0)

        with self._program.apart():
            for _ in range(rounds):
                for name, fill in (("zero", zero), ("install", install)):
                    self._serve(name, fill)
                    self._each("protect", arena.protect)
                    self._serve("unprotect", arena.unprotect)
                    self._each("protect", arena.protect)
                    self._each("read", read)
                    self._each("punch", arena.punch)
                self._poison()
        return {name: samples.cost() for name, samples in self._samples.items()}

    def close(self) -> None:
        """Free what was needed for it."""
        self._news.close()
        self._source.close()
        self._target.close()

    def _serve(self, name: str, answer: Callable[[int, int], None]) -> None:
        """Let the program touch every extent, and answer each fault by doing something to the whole extent."""
        extents = self._shuffled(self._extents)
        counts = dict(extents)
        program, samples = self._program, self._samples
        heard: dict[int, int] = {}
        answered: dict[int, tuple[int, int]] = {}

        def answers(fault: PageFault) -> Protocol[None]:
            page, _ = self._program.mapping.part_at(fault.address, mmap.PAGESIZE)
            if page in answered:  # a signal has made the thread fault again
                self._arena.wake(page)
                return
            begun = _clock()
            answer(page, counts[page])
            answered[page] = begun, _clock()
            yield from ()

        program.touch([page * mmap.PAGESIZE for page, _ in extents], pause=_PAUSE)
        while len(answered) < len(extents):
            news = self._news.poll()
            now = _clock()
            if any(fd == program.control for fd, _ in news):
                raise ThermoclineError("the program to measure with has ended; calibrate again")
            faults = program.uffd.read()
            for fault in faults:
                self._scheduler.spawn(answers(fault))
            samples["message"].add(_clock() - now)
            for fault in faults:
                heard.setdefault(self._program.mapping.part_at(fault.address, mmap.PAGESIZE)[0], now)
            self._scheduler.run_foreground()
        touches = program.touched(len(extents))
        # Touched again, all are there: what a touch takes by itself.
        program.touch([page * mmap.PAGESIZE for page, _ in extents])
        by_itself = median(ended - begun for begun, ended in program.touched(len(extents)))
        for (page, count), (touched, went_on) in zip(extents, touches, strict=True):
            begun, ended = answered[page]
            samples["fault"].add(max(heard[page] - touched - by_itself, 0))
            samples[name].add(ended - begun, count * mmap.PAGESIZE)
            # Where they share a processor, the thread goes on in the middle of the system call.
            samples["wake"].add(max(went_on - ended, 0))

    def _each(self, name: str, do: Callable[[int, int], None]) -> None:
        """Do something to every extent while the program runs."""
        samples = self._samples[name]
        extents = self._shuffled(self._extents)
        # On the only processor there is, the program does not run while the pager does.
        with self._program.running(self._resident) if self._cores > 1 else nullcontext():
            for page, count in extents:
                begun = _clock()
                do(page, count)
                samples.add(_clock() - begun, count * mmap.PAGESIZE)

    def _poison(self) -> None:
        """Poison pages that were never touched."""
        uffd, samples = self._program.uffd, self._samples["poison"]
        for size in _POISONED * _POISONINGS:
            address = self._program.address + self._unpoisoned
            self._unpoisoned += size
            begun = _clock()
            try:
                uffd.poison(address, size)
            except OSError as error:
                if error.errno not in (errno.EINVAL, errno.ENOTTY):
                    raise  # those say that this kernel cannot (before Linux 6.6), which takes its time as well
            samples.add(_clock() - begun, size)

    def _shuffled(self, what: list[T]) -> list[T]:
        return self._random.sample(what, len(what))
