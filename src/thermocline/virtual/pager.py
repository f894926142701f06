"""The pager's loop on a virtual clock: one server, that takes what has come and runs protocols for it.

A turn is that of `live`: look for news, take the faults, then finished jobs and requests, run what is in the
foreground until none of it can run, and one slice of the background. Between turns with nothing to run, the pager
sleeps until something reaches it.
"""

from __future__ import annotations

from collections.abc import Callable

from thermocline.errors import ThermoclineError
from thermocline.protocol.fault import fault
from thermocline.protocol.interpreter import THROTTLE_TICK, Interpreter
from thermocline.protocol.mm import Mm
from thermocline.protocol.page import State
from thermocline.protocol.scheduler import Scheduler
from thermocline.virtual.clock import NS, Clock
from thermocline.virtual.costs import Costs
from thermocline.virtual.inbox import Inbox
from thermocline.virtual.program import Program
from thermocline.virtual.thread import ProgramThread

#: Between two looks for room while an allocation waits for some: what `live` waits, in picoseconds.
_THROTTLE_TICK = round(THROTTLE_TICK * 1e9) * NS
#: Turns without any touch, no thread asleep, after which the run is taken to be stuck. (A list of so many cold pages is
#: nothing unusual, and on one core the program stands while the pager runs.)
_LOST_TURNS = 1_000_000


class Stalled(ThermoclineError, RuntimeError):
    """A thread waits for a page, and nothing is under way that could end it."""


class Pager:
    """One tiered memory's pager.

    Attributes
    ----------
    requests : int
        Requests that have no answer yet.
    """

    def __init__(
        self,
        mm: Mm,
        scheduler: Scheduler,
        interpreter: Interpreter,
        *,
        costs: Costs,
        clock: Clock,
        program: Program,
        inbox: Inbox,
    ) -> None:
        self.mm = mm
        self.scheduler = scheduler
        self.interpreter = interpreter
        self.costs = costs
        self.clock = clock
        self.program = program
        self.inbox = inbox
        self.requests = 0
        self._turns = self._touches = 0

    def run(self, until: Callable[[], bool]) -> None:
        """Serve until something is so, or there is nothing left that could happen.

        Raises
        ------
        Stalled
            Nothing can happen, and a thread or request waits.
        """
        while not until():
            if not self._wait():
                self._check_nobody_waits()
                return
            self._turn()

    def _wait(self) -> bool:
        """Sleep until there is news, unless there is something to do -> False if there never will be any."""
        clock, program = self.clock, self.program
        program.advance(clock.now)
        if not self.scheduler.idle or program.messages:
            return True
        limit = self.inbox.next
        if self.interpreter.throttled:
            tick = clock.now + _THROTTLE_TICK
            limit = tick if limit is None else min(limit, tick)
        if limit is not None and limit <= clock.now:
            return True
        woken = program.sleep(limit)
        if woken is None:
            return False
        clock.now = woken
        return True

    def _turn(self) -> None:
        clock, scheduler, interpreter = self.clock, self.scheduler, self.interpreter
        clock.take(self.costs.turn)
        self.program.advance(clock.now)
        self._take_faults()
        self.inbox.take(clock.now)
        if interpreter.throttled:
            interpreter.retry_throttled()
        scheduler.run_foreground()
        scheduler.run_background()
        self._check_progress()

    def _take_faults(self) -> None:
        stopwatch = self.scheduler.stopwatch
        now = stopwatch.clock()

        def answered(_: None) -> None:
            stopwatch.fault.add(stopwatch.clock() - now)

        for page, write, child in self.program.take_messages():
            self.clock.take(self.costs.message)
            self.scheduler.spawn(fault(self.mm, page, write, child=child), done=answered)

    # -- requests -----------------------------------------------------------------------------------------------------

    def request(self, time: int, begin: Callable[[], object]) -> None:
        """Let the program ask for something at that time, in picoseconds: the pager begins it when it hears of it."""
        self.requests += 1
        self.inbox.put(time + self.clock.draw(self.costs.request), begin)

    def answer(self) -> int:
        """Answer a request -> when its client goes on."""
        self.requests -= 1
        return self.clock.now + self.clock.draw(self.costs.request)

    # -- whether it will ever end -------------------------------------------------------------------------------------

    def _check_progress(self) -> None:
        self._turns += 1
        if self._turns % _LOST_TURNS:
            return
        program, before = self.program, self._touches
        self._touches = sum(thread.touches for thread in program.threads)
        asleep = any(thread.at > self.clock.now and thread.since < 0 for thread in program.running)
        if self._touches == before and not asleep and not program.over:
            raise Stalled(f"{self._waiters()}; the pager has turned {_LOST_TURNS} times, and no thread got any further")

    def _check_nobody_waits(self) -> None:
        if self.program.waiting:
            raise Stalled(f"{self._waiters()}, and nothing is under way that could end it")
        if self.requests:
            raise Stalled(f"{self.requests} requests have no answer, and nothing is under way that could end it")

    def _waiters(self) -> str:
        """Which thread waits for what."""
        return "; ".join(
            f"{thread.name} waits for {self._wanted(thread)}" for thread in self.program.threads if thread.ended is None
        )

    def _wanted(self, thread: ProgramThread) -> str:
        if thread.since < 0:
            return "a processor"
        page = thread.access >> 1
        entry = self.mm.table.read(page)
        state = State(entry.state).name + (f" in {self.mm.nodes[entry.node].name}" if entry.node else "")
        locked = not self.scheduler.try_lock(page)
        if not locked:
            self.scheduler.unlock(page)
        return f"page {page} ({state}, {'locked' if locked else 'not locked'}) since {thread.since // NS} ns"
