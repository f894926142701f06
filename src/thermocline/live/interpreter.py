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
from thermocline.protocol.interpreter import PUNCHED_APART, Interpreter
from thermocline.protocol.mm import DRAM, Mm
from thermocline.protocol.page import runs
from thermocline.protocol.scheduler import Scheduler, Task


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
        for mapping in self.arena.poison(effect.page):
            self.say(
                f"page {effect.page} cannot be served, and this kernel cannot poison it (Linux 6.6 can); "
                "the program is ended"
            )
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(mapping.process, signal.SIGBUS)

    def punch(self, effect: effects.Punch, task: Task) -> Any:
        def punch() -> None:
            for start, count in runs(sorted(effect.pages)):
                self.arena.punch(start, count)

        def settle(_: object = None) -> None:
            for page in effect.pages:
                self.mm.uncharge_frame(page)
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
