"""The search: all schedules, without running all of them.

A breadth-first search over states, so that what is found is found by a short schedule. What keeps it small:

- A state that was seen before is not searched again (:mod:`thermocline.check.digest`).
- Sleep sets (Godefroid 1996): after the step of one task was tried in a state, and then that of another, which does
  not conflict with it (:mod:`thermocline.check.footprint`), the first is not tried again behind the second: both orders
  lead to the same state. No state is missed by that, only ways to get there.
- A kill is tried once for each set of things that a pager leaves behind: where two states differ only in what dies
  with it, so do not their futures.

Generators cannot be copied, so going back means running a schedule again from the start.
"""

from __future__ import annotations

import contextlib
import gc
import resource
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from thermocline.check.configuration import Configuration
from thermocline.check.footprint import Footprint, conflict
from thermocline.check.system import CRASH, Step, System
from thermocline.check.violation import Violation
from thermocline.protocol.migrate import Design

Touched = tuple[int, int]
#: States between two looks at the memory that the search takes, and two reports of progress.
_LOOK_EVERY = 1000
#: Machines that are kept in the state that is to be searched next; the others are run there again.
_MOST_KEPT = 4000


@dataclass
class Found:
    """A schedule that leads to a violation."""

    schedule: list[Step]
    violation: Violation


@dataclass
class Result:
    """What a search has covered.

    Attributes
    ----------
    states, steps, schedules : int
        Distinct states; steps that led to them or to states seen before; schedules that were followed to an end or
        to a state seen before.
    exhaustive : bool
        Whether every schedule was covered.
    stopped : str
        Why not.
    """

    configuration: Configuration
    design: str
    states: int = 0
    steps: int = 0
    schedules: int = 0
    longest: int = 0
    seconds: float = 0.0
    exhaustive: bool = False
    stopped: str = ""
    found: Found | None = None


class _Visit:
    """A state that is to be searched, and how to get there.

    Attributes
    ----------
    asleep : dict of Step to Touched
        Steps that need not be tried here, and what they touch.
    only : set of Step or None
        If the state was searched before: the steps that were not tried then.
    system : System or None
        A machine in this state, if one was kept.
    """

    __slots__ = ("asleep", "crashes", "depth", "only", "parent", "state", "step", "system")

    def __init__(self, parent: _Visit | None, step: Step | None, asleep: dict[Step, Touched], state: bytes) -> None:
        self.state = state
        self.parent = parent
        self.step = step
        self.asleep = asleep
        self.system: System | None = None
        self.only: frozenset[Step] | None = None
        self.crashes = False
        self.depth: int = 0 if parent is None else parent.depth + 1

    @property
    def schedule(self) -> list[Step]:
        """The steps from the start."""
        steps: list[Step] = []
        visit: _Visit | None = self
        while visit is not None:
            if visit.step is not None:
                steps.append(visit.step)
            visit = visit.parent
        return steps[::-1]


class Search:
    """A search of one configuration under one design.

    Parameters
    ----------
    max_states : int
        Stop there.
    max_memory : int
        Stop when this process has taken so many bytes.
    livelocks : bool
        Whether to find out, too, if all can come to an end from every state. This takes all steps of every state,
        and so forgoes sleep sets.
    progress : callable
        Called with the result so far, now and then.
    """

    def __init__(
        self,
        configuration: Configuration,
        design: Design,
        *,
        max_states: int = 10_000_000,
        max_memory: int = 1 << 62,
        livelocks: bool = False,
        progress: Callable[[Result], None] = lambda result: None,
    ) -> None:
        self._configuration = configuration
        self._design = design
        self._max_states = max_states
        self._max_memory = max_memory
        self._reduce = not livelocks
        #: State -> where its steps lead, if livelocks are looked for; and the states in which all is done.
        self._following: dict[bytes, list[bytes]] | None = {} if livelocks else None
        self._visits: dict[bytes, _Visit] = {}
        self._finished: list[bytes] = []
        self._progress = progress
        self._footprint = Footprint()
        self._queue: deque[_Visit] = deque()
        #: States that wait to be searched.
        self._waiting: dict[bytes, _Visit] = {}
        #: States that were searched, and the steps that were not tried there.
        self._seen: dict[bytes, frozenset[Step]] = {}
        self._crashed: set[bytes] = set()
        self._kept = 0
        self.result = Result(configuration, design.name)

    @property
    def seen(self) -> frozenset[bytes]:
        """Every state that was searched, as its digest."""
        return frozenset(self._seen)

    def run(self) -> Result:
        """Search until everything is covered, something is found, or a bound is met."""
        began = time.perf_counter()
        try:
            with _seldom_collecting():
                self._search()
        except _Bound as bound:
            self.result.stopped = str(bound)
        self.result.states = len(self._seen)
        self.result.seconds = time.perf_counter() - began
        return self.result

    def _search(self) -> None:
        self._enter(self._fresh(), None, None, {})
        while self._queue:
            visit = self._queue.popleft()
            if not self._expand(visit):
                return
        self.result.exhaustive = True
        if self._following is not None:
            self._find_livelock()

    def _expand(self, visit: _Visit) -> bool:
        """Try all steps of a state -> False when one of them is wrong."""
        system = visit.system
        if system is None:
            system = self._replay(visit)
        else:
            visit.system = None
            self._kept -= 1
        todo = [step for step in system.steps() if step not in visit.asleep]
        if visit.only is None:
            del self._waiting[visit.state]
            self._seen[visit.state] = frozenset(visit.asleep)
            if visit.crashes:
                todo.append(Step(CRASH))
            if len(self._seen) >= self._max_states:
                raise _Bound(f"stopped at {self._max_states:,} states")
            if len(self._seen) % _LOOK_EVERY == 0:
                self._look()
        else:
            todo = [step for step in todo if step in visit.only]
        done: dict[Step, Touched] = {}
        following: System | None = system
        for step in todo:
            if following is None:
                following = self._replay(visit)
            try:
                following.take(step)
                self.result.steps += 1
                touched = (self._footprint.reads, self._footprint.writes)
                following.check()
            except Violation as violation:
                self.result.found = Found([*visit.schedule, step], violation)
                return False
            asleep = {
                other: theirs
                for known in (visit.asleep, done)
                for other, theirs in known.items()
                if self._reduce and other.actor != step.actor and not conflict(theirs, touched)
            }
            done[step] = touched
            self._enter(following, visit, step, asleep)
            following = None
        return True

    def _enter(self, system: System, parent: _Visit | None, step: Step | None, asleep: dict[Step, Touched]) -> None:
        """Note that a state can be reached."""
        state = system.digest()
        if self._following is not None and parent is not None:
            self._following.setdefault(parent.state, []).append(state)
        waiting = self._waiting.get(state)
        if waiting is not None:
            self.result.schedules += 1
            waiting.asleep = {step: touched for step, touched in waiting.asleep.items() if step in asleep}
            return
        visit = _Visit(parent, step, asleep, state)
        self.result.longest = max(self.result.longest, visit.depth)
        before = self._seen.get(state)
        if before is None:
            self._waiting[state] = visit
            if self._following is not None:
                self._visits[state] = visit
                if system.finished:
                    self._finished.append(state)
            if system.can_crash:
                left = system.surviving_digest()
                visit.crashes = left not in self._crashed
                self._crashed.add(left)
            self.result.schedules += not system.steps()
        else:
            self.result.schedules += 1
            visit.only = before - asleep.keys()
            if not visit.only:
                return
            self._seen[state] = before & asleep.keys()
        if self._kept < _MOST_KEPT:
            visit.system = system
            self._kept += 1
        self._queue.append(visit)

    def _find_livelock(self) -> None:
        """Find a state from which no step leads on to an end."""
        assert self._following is not None
        before: dict[bytes, list[bytes]] = {}
        for state, following in self._following.items():
            for successor in following:
                before.setdefault(successor, []).append(state)
        good = set(self._finished)
        queue = list(good)
        while queue:
            for state in before.get(queue.pop(), ()):
                if state not in good:
                    good.add(state)
                    queue.append(state)
        stuck = next((visit for state, visit in self._visits.items() if state not in good), None)
        if stuck is not None:
            self.result.exhaustive = False
            self.result.found = Found(
                stuck.schedule, Violation("livelock", "from here on steps are taken for ever, and nothing gets done")
            )

    def _look(self) -> None:
        self.result.states = len(self._seen)
        self._progress(self.result)
        if resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 > self._max_memory:
            raise _Bound(f"stopped at {self._max_memory >> 20} MiB of memory")

    def _fresh(self) -> System:
        return System(self._configuration, self._design, self._footprint)

    def _replay(self, visit: _Visit) -> System:
        system = self._fresh()
        for step in visit.schedule:
            system.take(step)
        return system


@contextlib.contextmanager
def _seldom_collecting() -> Iterator[None]:
    """Machines that wait are thousands of objects; collections look at them all, and would take a third of a search.

    Those that are done with hold cycles, so it cannot be left out.
    """
    before = gc.get_threshold()
    gc.set_threshold(50_000, 20, 50)
    try:
        yield
    finally:
        gc.set_threshold(*before)


class _Bound(Exception):
    """The search is larger than it may be."""


def violation_of(configuration: Configuration, design: Design, schedule: Sequence[Step]) -> Found | None:
    """Follow a schedule as far as its steps are possible, and then run on to a rest -> what is found.

    Steps that cannot be taken are left out, so any part of a schedule is one.
    """
    system = System(configuration, design, Footprint())
    taken: list[Step] = []
    ahead = list(schedule)
    try:
        system.check()
        while True:
            possible = system.steps()
            if system.can_crash:
                possible.append(Step(CRASH))
            while ahead and ahead[0] not in possible:
                ahead.pop(0)
            if ahead:
                step = ahead.pop(0)
            else:
                rest = [step for step in possible if step.actor != CRASH]
                if not rest:
                    return None
                last = taken[-1].actor if taken else ""
                step = next((step for step in rest if step.actor == last), rest[0])
            taken.append(step)
            system.take(step)
            system.check()
    except Violation as violation:
        return Found(taken, violation)


def shorten(found: Found, configuration: Configuration, design: Design) -> Found:
    """Leave out of a schedule what its violation does not need."""
    best = found
    size = max(len(best.schedule) // 2, 1)
    while True:
        start = 0
        while start < len(best.schedule):
            attempt = best.schedule[:start] + best.schedule[start + size :]
            shorter = violation_of(configuration, design, attempt)
            if (
                shorter is not None
                and shorter.violation.kind == best.violation.kind
                and _weight(shorter.schedule) < _weight(best.schedule)
            ):
                best = shorter
            else:
                start += size
        if size == 1:
            return best
        size //= 2


def _weight(schedule: Sequence[Step]) -> tuple[int, int]:
    """Changes of the actor, then steps: what makes a schedule hard to read."""
    changes = sum(one.actor != other.actor for one, other in pairwise(schedule))
    return changes, len(schedule)
