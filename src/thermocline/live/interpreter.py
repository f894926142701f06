"""The `live` interpreter: what each effect does to the memory of a real process."""

from __future__ import annotations

import contextlib
import signal
from typing import Any

from thermocline.live.arena import Arena
from thermocline.live.copier import Copier
from thermocline.live.messages import say
from thermocline.live.stores import Store
from thermocline.protocol import effects
from thermocline.protocol.interpreter import Interpreter
from thermocline.protocol.mm import Mm
from thermocline.protocol.page import runs
from thermocline.protocol.scheduler import Scheduler, Task

#: How often a page has to be touched that cannot be poisoned until it is a system call that does it.
_HOPELESS = 16


class LiveInterpreter(Interpreter):
    """Performs effects on an arena and its stores.

    Parameters
    ----------
    stores : dict of node index to Store
    copier : Copier
        Moves the bytes.
    """

    def __init__(self, mm: Mm, arena: Arena, scheduler: Scheduler, stores: dict[int, Store], copier: Copier) -> None:
        super().__init__(mm, scheduler, stores)
        self.arena = arena
        self.copier = copier
        #: Pages that this kernel could not poison, and how often.
        self._unpoisoned: dict[int, int] = {}

    def say(self, message: str) -> None:
        """Tell the user on stderr."""
        say(message)

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

    def punch(self, effect: effects.Punch, _: Task) -> None:
        node = self.mm.nodes[effect.node]
        for start, count in runs(sorted(effect.pages)):
            self.arena.punch(start, count)
        for page in effect.pages:
            self.mm.uncharge(node, self.mm.group_of(page), self.mm.page_size)
        self.frames_freed(len(effect.pages))

    # -- bytes --------------------------------------------------------------------------------------------------------

    def fill(self, effect: effects.Fill, task: Task) -> Any:
        return self.copier.fill(effect, task)

    def copy(self, effect: effects.Copy, task: Task) -> Any:
        listed = effects.CopyList([effect.page], effect.node, [effect.slot], effect.group)
        return self.copier.copy(listed, task, lambda sizes: sizes[0])

    def copy_list(self, effect: effects.CopyList, task: Task) -> Any:
        return self.copier.copy(effect, task, lambda sizes: sizes)
