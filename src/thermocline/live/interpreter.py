"""The `live` interpreter: what each effect does to the memory of a real process."""

from __future__ import annotations

import contextlib
import heapq
import signal
from typing import Any

from thermocline.live.arena import Arena
from thermocline.live.copier import Copier
from thermocline.live.messages import say
from thermocline.live.sampling import Sampler
from thermocline.live.stores import Store
from thermocline.protocol import effects
from thermocline.protocol.interpreter import PUNCHED_APART, Interpreter
from thermocline.protocol.mm import DRAM, Mm
from thermocline.protocol.page import runs
from thermocline.protocol.scheduler import PARKED, Scheduler, Task

#: How often a page has to be touched that cannot be poisoned until it is a system call that does it.
_HOPELESS = 16


class LiveInterpreter(Interpreter):
    """Performs effects on an arena and its stores.

    Parameters
    ----------
    stores : dict of node index to Store
    copier : Copier
        Moves the bytes.
    sampler : Sampler
        Tells which pages of slow memory are used.
    """

    def __init__(
        self, mm: Mm, arena: Arena, scheduler: Scheduler, stores: dict[int, Store], copier: Copier, sampler: Sampler
    ) -> None:
        super().__init__(mm, scheduler, stores)
        self.arena = arena
        self.copier = copier
        self.sampler = sampler
        #: Tasks that wait for a time, and the number of the one that began to wait last.
        self._asleep: list[tuple[int, int, Task]] = []
        self._naps = 0
        #: Pages that this kernel could not poison, and how often.
        self._unpoisoned: dict[int, int] = {}

    def say(self, message: str) -> None:
        """Tell the user on stderr."""
        say(message)

    # -- time ---------------------------------------------------------------------------------------------------------

    def scan_delay(self, effect: effects.ScanDelay, task: Task) -> Any:
        self._naps += 1
        heapq.heappush(self._asleep, (self._clock() + int(effect.seconds * 1e9), self._naps, task))
        return PARKED

    def until_alarm(self, timeout: float | None) -> float | None:
        """Seconds until a task is to be woken, if that is before the timeout."""
        if not self._asleep:
            return timeout
        left = max(self._asleep[0][0] - self._clock(), 0) / 1e9
        return left if timeout is None else min(left, timeout)

    def ring_alarms(self) -> None:
        """Wake the tasks whose time has come."""
        while self._asleep and self._asleep[0][0] <= self._clock():
            self.scheduler.resume(heapq.heappop(self._asleep)[2], None)

    # -- the program's mapping ----------------------------------------------------------------------------------------

    def unmap(self, effect: effects.Unmap, _: Task) -> None:
        for start, count in runs(sorted(effect.pages)):
            self.arena.protect(start, count)

    def remap(self, effect: effects.Remap, _: Task) -> None:
        for start, count in runs(sorted(effect.pages)):
            self.arena.unprotect(start, count)

    def wake(self, effect: effects.Wake, _: Task) -> None:
        self.arena.wake(effect.page)

    def poison(self, effect: effects.Poison, _: Task) -> None:
        page = effect.page
        unable = self.arena.poison(page)
        if not unable:
            return
        # Nobody may be touching it: it was to be pinned, or a successor has found it lost. Who waits faults again, and
        # that fault comes back to here, because the page's entry says by now that it is lost.
        tries = self._unpoisoned[page] = self._unpoisoned.get(page, 0) + 1
        if tries == 1:
            self.arena.wake(page)
            return
        if tries == 2:
            self.say(
                f"page {page} cannot be served, and this kernel cannot poison it (Linux 6.6 can); the program is ended"
            )
        # A system call that touches the page is not ended by a signal that could be caught: the kernel tries the fault
        # again for as long as one is pending, and never comes to deliver it. A thread outside of system calls dies of
        # the first one, but may have faulted again before.
        if tries not in (2, _HOPELESS):
            return
        number = signal.SIGBUS if tries == 2 else signal.SIGKILL
        for mapping in unable:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(mapping.process, number)

    def hint(self, effect: effects.Hint, task: Task) -> Any:
        return self.copier.ask_kernel(effect.node, lambda: self.sampler.hint(effect.pages), task)

    def hint_faults(self, effect: effects.HintFaults, task: Task) -> Any:
        return self.copier.ask_kernel(effect.node, lambda: self.sampler.used(effect.pages), task)

    def punch(self, effect: effects.Punch, task: Task) -> Any:
        def punch() -> None:
            for start, count in runs(sorted(effect.pages)):
                self.arena.punch(start, count)

        def settle(_: object = None) -> None:
            for page in effect.pages:
                self.mm.uncharge_frame(page, effect.node)
            self.frames_freed(len(effect.pages))

        if task.background and len(effect.pages) >= PUNCHED_APART:
            # The kernel takes its time over it, and another processor may be idle: faults need not wait for that.
            return self.copier.in_worker(DRAM, True, lambda _: punch(), task, settle)
        punch()
        return settle()

    # -- bytes --------------------------------------------------------------------------------------------------------

    def fill(self, effect: effects.Fill, task: Task) -> Any:
        return self.copier.fill(effect, task)

    def copy(self, effect: effects.Copy, task: Task) -> Any:
        listed = effects.CopyList([effect.page], effect.node, [effect.slot], effect.group)
        return self.copier.copy(listed, task, lambda sizes: sizes[0])

    def copy_list(self, effect: effects.CopyList, task: Task) -> Any:
        return self.copier.copy(effect, task, lambda sizes: sizes)
