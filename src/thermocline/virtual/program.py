"""The program: its threads, the processors they share with the pager, and the faults that the pager has not taken yet.

The pager's clock leads. Whenever it is about to change the mapping, or looks for faults, the threads are brought up to
its time first (:meth:`Program.advance`), with the mapping as it was until then. Only while the pager sleeps do the
threads lead, up to the fault that wakes it (:meth:`Program.sleep`).

Processors are shared in the simplest way: the pager has one to itself while it runs, the threads have the others in
equal parts, and a thread that wants one for a part of its time only (it sleeps before each touch) counts for that
part. So with one core the program stands while the pager runs.
"""

from __future__ import annotations

from collections.abc import Sequence

from thermocline.virtual.clock import Clock, mean
from thermocline.virtual.costs import Costs
from thermocline.virtual.mapping import Mapping
from thermocline.virtual.recorder import Recorder
from thermocline.virtual.thread import ProgramThread

#: Touches of a thread that are looked up ahead while the pager sleeps: at first, at most, and by how much more.
_LEAST, _MOST, _MORE = 64, 1 << 18, 4


class Program:
    """All threads.

    Attributes
    ----------
    threads, running : list of ProgramThread
        All; and those that neither wait for a page nor have ended.
    messages : list of ProgramThread
        Those whose faults the pager has not taken yet.
    unborn : list of ProgramThread
        Those of children that are not forked yet.
    waiting : dict of int to list of ProgramThread
        Those that wait, by page.
    """

    def __init__(self, mapping: Mapping, clock: Clock, costs: Costs, recorder: Recorder) -> None:
        self.threads: list[ProgramThread] = []
        self.running: list[ProgramThread] = []
        self.messages: list[ProgramThread] = []
        self.unborn: list[ProgramThread] = []
        self.waiting: dict[int, list[ProgramThread]] = {}
        self._mapping = mapping
        self._clock = clock
        self._costs = costs
        self._recorder = recorder
        self._hit = max(mean(costs.hit), 1)
        #: What a hit takes while the pager runs and while it sleeps; None: no thread has a processor, or it is unknown.
        self._hits: dict[bool, int | None] = {}

    def begin(self) -> None:
        """Let the clock start."""
        for thread in self.threads:
            if thread.child:
                self.unborn.append(thread)
            else:
                thread.begin()
        self._set_running([thread for thread in self.threads if thread.ended is None and not thread.child])

    def bear(self, child: int, time: int) -> None:
        """Let the threads of a forked child begin at that time."""
        born = [thread for thread in self.unborn if thread.child == child]
        self.unborn = [thread for thread in self.unborn if thread.child != child]
        for thread in born:
            thread.begin(time)
        self._set_running([*self.running, *(thread for thread in born if thread.ended is None)])

    def kill(self, child: int) -> None:
        """End the threads of a forked child."""
        ended = [thread for thread in self.threads if thread.child == child and thread.ended is None]
        for thread in ended:
            thread.killed = True
            thread.waits = False
            thread.ended = self._clock.now
        self.unborn = [thread for thread in self.unborn if thread.child != child]
        self.messages = [thread for thread in self.messages if thread.child != child]
        for page, waiting in list(self.waiting.items()):
            self.waiting[page] = [thread for thread in waiting if thread.child != child]
            if not self.waiting[page]:
                del self.waiting[page]
        self._set_running([thread for thread in self.running if thread.child != child])

    @property
    def over(self) -> bool:
        """Whether every thread has ended."""
        return not self.running and not self.waiting and not self.unborn

    @property
    def ended(self) -> int:
        """When the last thread ended, in picoseconds."""
        return max((thread.ended or 0 for thread in self.threads), default=0)

    # -- running ------------------------------------------------------------------------------------------------------

    def advance(self, limit: int, *, beside_pager: bool = True) -> None:
        """Let the threads make all touches that begin before ``limit``."""
        running = self.running
        stopped = False
        for thread in running:
            if thread.at < limit:
                hit = self._hits[beside_pager]
                if hit is None:
                    thread.at = limit
                elif not thread.advance(limit, hit):
                    self._stop(thread)
                    stopped = True
        if stopped:
            self._set_running([thread for thread in running if thread.ended is None and not thread.waits])

    def sleep(self, limit: int | None) -> int | None:
        """Let the threads run while the pager sleeps, until ``limit`` at most -> when it wakes; None: it never will."""
        ahead = _LEAST
        while self.running:
            hit = self._hits[False]
            assert hit is not None
            horizon = min(thread.at for thread in self.running)
            horizon += ahead * min(thread.step(hit) for thread in self.running)
            if limit is not None:
                horizon = min(horizon, limit)
            for thread in self.running:
                stop = thread.look(horizon, hit)
                if stop is not None:
                    horizon = stop + 1
            self.advance(horizon, beside_pager=False)
            if self.messages:
                heard = min(thread.at for thread in self.messages) + self._clock.draw(self._costs.fault)
                if limit is not None:
                    heard = min(heard, limit)
                self.advance(heard, beside_pager=False)
                return heard
            if horizon == limit:
                break
            ahead = min(ahead * _MORE, _MOST)
        return limit

    def _set_running(self, threads: list[ProgramThread]) -> None:
        self.running = threads
        wanted = sum(self._hit / thread.step(self._hit) for thread in threads)
        for beside_pager in (False, True):
            cores = self._costs.cores - beside_pager
            self._hits[beside_pager] = round(self._hit * max(wanted / cores, 1)) if cores else None

    def _stop(self, thread: ProgramThread) -> None:
        """A thread has come to a touch that cannot be done, or to its end."""
        if thread.ended is None:
            page = thread.access >> 1
            self.messages.append(thread)
            self.waiting.setdefault(page, []).append(thread)
            if self._recorder.on:
                how = "write" if thread.access & 1 else "read"
                self._recorder.note(thread.at, thread.name, f"fault, {how} of page {page}")
        elif self._recorder.on:
            self._recorder.note(thread.ended, thread.name, "killed" if thread.killed else "ended")

    # -- faults -------------------------------------------------------------------------------------------------------

    def take_messages(self) -> Sequence[tuple[int, bool, int]]:
        """Take the queued faults, in the order of the touches -> page, whether it is a write, number of the child."""
        taken, self.messages = self.messages, []
        taken.sort(key=lambda thread: (thread.at, thread.number))
        return [(thread.access >> 1, bool(thread.access & 1), thread.child) for thread in taken]

    def wake(self, start: int, count: int) -> None:
        """Let all that wait for these pages make their touch again."""
        if not self.waiting:
            return
        woken: list[ProgramThread] = []
        for page in range(start, start + count):
            woken += self.waiting.pop(page, ())
        for thread in woken:
            thread.at = self._clock.now + self._clock.draw(self._costs.wake)
            thread.waits = False
            if thread in self.messages:  # as in the kernel: the fault of a woken thread is dropped
                self.messages.remove(thread)
            if self._recorder.on:
                self._recorder.note(thread.at, thread.name, "goes on")
        if woken:
            self._set_running([*self.running, *woken])
