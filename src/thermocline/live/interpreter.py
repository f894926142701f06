"""The `live` interpreter: what each effect does to the memory of a real process.

One method an effect, named after it. A method returns the effect's result, or ``PARKED`` after it has arranged for
the task to be resumed.
"""

from __future__ import annotations

import re
import signal
import sys
import time
from typing import Any

from thermocline.live.arena import Arena
from thermocline.live.copier import Copier
from thermocline.live.scheduler import PARKED, Scheduler, Task
from thermocline.live.stores import Store
from thermocline.protocol import effects
from thermocline.protocol.mm import DRAM, Mm
from thermocline.protocol.node import Kind
from thermocline.protocol.page import runs

#: Seconds without any room anywhere after which an allocation gives up.
PATIENCE = 60.0
#: Seconds without room after which the user is told, once.
_SAY_AFTER = 2.0
#: Seconds after which an allocation that waits is a new case, and not one that looks again every now and then.
_NEW_STALL = 1.0


class Interpreter:
    """Performs effects for the tasks of one pager.

    Parameters
    ----------
    stores : dict of node index to Store
    copier : Copier
        Moves the bytes.
    program : int
        A pidfd of the program, to end it where it cannot be told otherwise that a page is lost.
    """

    def __init__(
        self, mm: Mm, arena: Arena, scheduler: Scheduler, stores: dict[int, Store], copier: Copier, program: int
    ) -> None:
        self.mm = mm
        self.arena = arena
        self.scheduler = scheduler
        self.stores = stores
        self.copier = copier
        self._program = program
        #: Whether slots were released since the stores were last trimmed to nothing.
        self.untrimmed = False
        self._throttled: list[Task] = []
        self._kswapd_asleep: dict[int, Task] = {}
        self._kswapd_wanted: set[int] = set()
        #: Since when allocations wait without a frame having been freed, and when one last began to wait.
        self._stuck_since = self._last_throttled = 0.0
        self._said_no_room = False
        for kind in effects.Effect.__subclasses__():
            scheduler.handlers[kind] = getattr(self, _method_name(kind))

    # -- locks --------------------------------------------------------------------------------------------------------

    def lock(self, effect: effects.Lock, task: Task) -> Any:
        return self.scheduler.lock(effect.page, task)

    def try_lock(self, effect: effects.TryLock, _: Task) -> bool:
        return self.scheduler.try_lock(effect.page)

    def unlock(self, effect: effects.Unlock, _: Task) -> None:
        self.scheduler.unlock(effect.page)

    # -- room ---------------------------------------------------------------------------------------------------------

    def reserve(self, effect: effects.Reserve, _: Task) -> int | None:
        node = self.mm.nodes[effect.node]
        if not node.has_room:
            return None
        self.mm.charge(node, self.mm.groups[effect.group], node.slot_bytes)
        return 0 if effect.node == DRAM else self.stores[effect.node].reserve()

    def release(self, effect: effects.Release, _: Task) -> None:
        node = self.mm.nodes[effect.node]
        if node.kind is Kind.SOURCE:
            return
        size = node.slot_bytes
        if effect.node != DRAM:
            size = self.stores[effect.node].size(effect.slot)
            self.stores[effect.node].release(effect.slot)
        self.mm.uncharge(node, self.mm.groups[effect.group], size)
        if effect.node == DRAM:
            self._frame_freed()
        else:
            self.untrimmed = True

    def throttle(self, effect: effects.Throttle, task: Task) -> Any:
        group = self.mm.groups[effect.group]
        if self.mm.nodes[effect.node].has_room and not group.excess(self.mm.page_size):
            return True  # a frame was freed since reclaim gave up
        now = time.monotonic()
        if now - self._last_throttled > _NEW_STALL:
            self._stuck_since = now
        self._last_throttled = now
        self._throttled.append(task)
        return PARKED

    def _frame_freed(self) -> None:
        # Room below is no news to those who wait for a frame until reclaim has used it, and a slot that is released
        # because its device refused the page is no room at all.
        self._stuck_since = time.monotonic()
        self._said_no_room = False
        self._resume_throttled(True)

    def _resume_throttled(self, patient: bool) -> None:
        waiting, self._throttled = self._throttled, []
        for task in waiting:
            self.scheduler.resume(task, patient)

    @property
    def throttled(self) -> bool:
        """Whether an allocation waits for room: the pager then calls :meth:`retry_throttled` now and then."""
        return bool(self._throttled)

    def retry_throttled(self) -> None:
        """Let allocations that wait look again: a device may have room now. They give up when patience has ended."""
        stuck = time.monotonic() - self._stuck_since
        if stuck > _SAY_AFTER and not self._said_no_room:
            self._said_no_room = True
            print(
                "thermocline: there is no room for a page in any node; waiting "
                f"({PATIENCE:.0f} s, then the access ends in SIGBUS)",
                file=sys.stderr,
                flush=True,
            )
        self._resume_throttled(stuck < PATIENCE)

    def wake_kswapd(self, effect: effects.WakeKswapd, _: Task) -> None:
        task = self._kswapd_asleep.pop(effect.node, None)
        if task is not None:
            self.scheduler.resume(task, None)
        else:
            self._kswapd_wanted.add(effect.node)

    def sleep_kswapd(self, effect: effects.SleepKswapd, task: Task) -> Any:
        if effect.node in self._kswapd_wanted:
            self._kswapd_wanted.discard(effect.node)
            return None
        self._kswapd_asleep[effect.node] = task
        return PARKED

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
        if not self.arena.poison(effect.page):
            print(
                f"thermocline: page {effect.page} cannot be served, and this kernel cannot poison it (Linux 6.6 can); "
                "the program is ended",
                file=sys.stderr,
                flush=True,
            )
            signal.pidfd_send_signal(self._program, signal.SIGBUS)

    def punch(self, effect: effects.Punch, _: Task) -> None:
        dram = self.mm.nodes[DRAM]
        for start, count in runs(sorted(effect.pages)):
            self.arena.punch(start, count)
        for page in effect.pages:
            self.mm.uncharge(dram, self.mm.group_of(page), self.mm.page_size)
        self.mm.vmstat.add("pgfree", len(effect.pages))
        self._frame_freed()

    # -- the page table -----------------------------------------------------------------------------------------------

    def commit(self, effect: effects.Commit, _: Task) -> None:
        self.mm.table.commit(effect.page, effect.state, effect.node, effect.slot)

    # -- bytes --------------------------------------------------------------------------------------------------------

    def fill(self, effect: effects.Fill, task: Task) -> Any:
        return self.copier.fill(effect, task)

    def copy(self, effect: effects.Copy, task: Task) -> Any:
        listed = effects.CopyList([effect.page], effect.node, [effect.slot])
        return self.copier.copy(listed, task, lambda sizes: sizes[0])

    def copy_list(self, effect: effects.CopyList, task: Task) -> Any:
        return self.copier.copy(effect, task, lambda sizes: sizes)

    # -- other tasks --------------------------------------------------------------------------------------------------

    def spawn(self, effect: effects.Spawn, _: Task) -> None:
        self.scheduler.spawn(effect.protocol, background=True)

    def resched(self, _: effects.Resched, task: Task) -> Any:
        self.scheduler.resume(task, None)
        return PARKED


def _method_name(kind: type[effects.Effect]) -> str:
    """The method that performs an effect: CopyList -> copy_list."""
    return re.sub("(?<!^)(?=[A-Z])", "_", kind.__name__).lower()
