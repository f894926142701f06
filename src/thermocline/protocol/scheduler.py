"""The run queue of a pager: protocols as tasks, page locks as wait queues.

One thread. A task runs until it yields an effect that cannot be completed at once: a page lock that another task holds,
a read that a worker does, room that does not exist. Foreground tasks (faults) run before background tasks (kswapd,
readahead), and between two steps of a background task the pager looks for new faults.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, Final

from thermocline.protocol.effects import Effect, Protocol
from thermocline.protocol.page import Column, array_column
from thermocline.protocol.stopwatch import Stopwatch


class _Parked:
    """The result of an effect that is not done yet: its task is resumed later with the real result."""


PARKED: Final = _Parked()


class Task:
    """A running protocol.

    Attributes
    ----------
    job : callable or None
        A long step that is done in slices: called until it returns something else than ``PARKED``.
    done : callable or None
        Called with the protocol's return value.
    since : int
        When it began to wait for a page lock, on the stopwatch's clock.
    note : int
        What :attr:`Scheduler.noted` says while it runs.
    """

    __slots__ = ("background", "done", "job", "note", "send", "since", "value")

    def __init__(self, protocol: Protocol[Any], *, background: bool, done: Callable[[Any], None] | None = None) -> None:
        self.send = protocol.send
        self.background = background
        self.done = done
        self.job: Callable[[], Any] | None = None
        self.value: Any = None
        self.since = 0
        self.note = 0


Handler = Callable[[Any, Task], Any]


class Scheduler:
    """Runs tasks. ``handlers`` performs each kind of effect, or returns ``PARKED``.

    Parameters
    ----------
    locked : column
        The lock of each page: 1 while a task holds it (``PG_locked``), 2 while others wait for it (``PG_waiters``).

    Attributes
    ----------
    locked : column
        See above.
    noted : column of one integer
        What is being worked on: the note of the task that runs, 0 between tasks. An exception leaves it as it is, so
        that in memory which outlives the process it says what the process died at.
    """

    def __init__(self, stopwatch: Stopwatch, locked: Column) -> None:
        self.stopwatch = stopwatch
        self.handlers: dict[type[Effect], Handler] = {}
        self.noted: Column = array_column("Q", 1)
        self._foreground: deque[Task] = deque()
        self._background: deque[Task] = deque()
        self.locked = locked
        #: By page: the tasks that wait for its lock.
        self._queues: dict[int, deque[Task]] = {}

    # -- tasks --------------------------------------------------------------------------------------------------------

    def spawn(
        self,
        protocol: Protocol[Any],
        *,
        background: bool = False,
        done: Callable[[Any], None] | None = None,
        note: int = 0,
    ) -> None:
        """Make a task of a protocol, ready to run."""
        task = Task(protocol, background=background, done=done)
        task.note = note
        self.resume(task, None)

    def spawn_next(self, protocol: Protocol[Any]) -> None:
        """Make a task of the background that goes before all others of it."""
        self._background.appendleft(Task(protocol, background=True))

    def resume(self, task: Task, value: Any) -> None:
        """Make a parked task ready, with the result that it waits for."""
        task.value = value
        (self._background if task.background else self._foreground).append(task)

    def requeue(self, task: Task) -> None:
        """Put a task that is in the middle of a job behind the others of its kind."""
        (self._background if task.background else self._foreground).append(task)

    @property
    def idle(self) -> bool:
        """Whether no task can run."""
        return not self._foreground and not self._background

    def run_foreground(self) -> None:
        """Run foreground tasks until none is ready."""
        ready = self._foreground
        while ready:
            self._run(ready.popleft())

    def run_background(self) -> None:
        """Run one background task until it parks or has done one slice of a long step."""
        if self._background:
            self._run(self._background.popleft())

    def _run(self, task: Task) -> None:
        self.noted[0] = task.note
        if task.job is not None:
            value = task.job()
            if value is PARKED:
                self.noted[0] = 0
                self.requeue(task)
                return
            task.job = None
        else:
            value = task.value
        handlers = self.handlers
        send = task.send
        try:
            while value is not PARKED:
                effect = send(value)
                value = handlers[type(effect)](effect, task)
        except StopIteration as stop:
            if task.done is not None:
                task.done(stop.value)
        self.noted[0] = 0

    # -- page locks ---------------------------------------------------------------------------------------------------

    def lock(self, page: int, task: Task) -> Any:
        """Take a page's lock, or queue for it."""
        if self.try_lock(page):
            return None
        task.since = self.stopwatch.clock()
        self.locked[page] = 2
        self._queues.setdefault(page, deque()).append(task)
        return PARKED

    def try_lock(self, page: int) -> bool:
        """Take a page's lock if no task holds it."""
        if self.locked[page]:
            return False
        self.locked[page] = 1
        return True

    def unlock(self, page: int) -> None:
        """Hand a page's lock to the first in its queue."""
        self.stopwatch.unlocked(page)
        if self.locked[page] == 1:
            self.locked[page] = 0
            return
        queue = self._queues[page]
        task = queue.popleft()
        if not queue:
            self.locked[page] = 1
            del self._queues[page]
        self.stopwatch.lock_wait.add(self.stopwatch.clock() - task.since)
        self.resume(task, None)
