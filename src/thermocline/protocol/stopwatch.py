"""How long tasks wait for pages and locks: the times by which the migration designs are compared.

The clock is the interpreter's: that of the machine, or a virtual one.
"""

from __future__ import annotations

from collections.abc import Callable

from thermocline.protocol.effects import Event, Trace
from thermocline.protocol.histogram import WORDS, Histogram
from thermocline.protocol.page import Column, array_column

#: What is timed. ``fault``: from when the pager hears of a fault to its answer. ``lock_wait``: a task waits for a page
#: lock that another holds. ``source_lock``: a page that is being migrated is locked. ``allocating``: a task that holds
#: such a lock allocates a target.
TIMED = ("fault", "lock_wait", "source_lock", "allocating")


class Stopwatch:
    """Times of one pager's tasks.

    Parameters
    ----------
    clock : callable
        The time, in nanoseconds.
    column : column of u64
        Where the histograms are kept: ``len(TIMED) * WORDS`` integers.
    """

    def __init__(self, clock: Callable[[], int], column: Column | None = None) -> None:
        self.clock = clock
        kept = array_column("Q", len(TIMED) * WORDS) if column is None else column
        self.fault, self.lock_wait, self.source_lock, self.allocating = (
            Histogram(kept, index * WORDS) for index in range(len(TIMED))
        )
        #: Pages that are being migrated, locked: by which task, and since when.
        self._sources: dict[int, tuple[object, int]] = {}
        self._allocating: dict[object, list[int]] = {}

    def trace(self, effect: Trace, task: object) -> None:
        """Perform a :class:`~thermocline.protocol.effects.Trace`."""
        if effect.event is Event.MIGRATE:
            self._sources[effect.page] = (task, self.clock())
        elif effect.event is Event.ALLOCATE:
            if any(holder is task for holder, _ in self._sources.values()):
                self._allocating.setdefault(task, []).append(self.clock())
        elif task in self._allocating:
            begun = self._allocating[task]
            self.allocating.add(self.clock() - begun.pop())
            if not begun:
                del self._allocating[task]

    def unlocked(self, page: int) -> None:
        """A page lock was given up."""
        if self._sources:
            held = self._sources.pop(page, None)
            if held is not None:
                self.source_lock.add(self.clock() - held[1])
