"""What interpreters have in common that run protocols in time: locks, room, kswapd, throttling, the page table.

One method an effect, named after it. A method returns the effect's result, or ``PARKED`` after it has arranged for
the task to be resumed. What a subclass adds are the effects that touch a mapping or move bytes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Protocol

from thermocline.protocol import effects
from thermocline.protocol.mm import DRAM, Mm
from thermocline.protocol.node import Kind
from thermocline.protocol.page import Entry
from thermocline.protocol.scheduler import PARKED, Scheduler, Task

_SECOND = 1_000_000_000
#: Pages that are punched together in the background, from which on a worker does it: to start one takes as long as two.
PUNCHED_APART = 4
#: Seconds without any room anywhere after which an allocation gives up.
PATIENCE = 60
#: Seconds for which a page that holds nothing yet waits to be let in, where all is in use.
ENTRANCE = 10
#: Seconds without room after which a message says so, once; at once if it is clear by then that no room will appear.
_SAY_AFTER = 2
#: Seconds between two looks for room of an allocation that waits.
THROTTLE_TICK = 0.05
#: Seconds after which an allocation that waits is a new case, and not one that looks again every now and then.
_NEW_STALL = 1


class Slots(Protocol):
    """What is asked of a lower node for its room."""

    def reserve(self) -> int: ...

    def size(self, slot: int, /) -> int: ...

    def release(self, slot: int, /) -> None: ...


class Interpreter:
    """Performs effects for the tasks of one pager.

    Parameters
    ----------
    slots : dict of node index to Slots

    Attributes
    ----------
    patience : float
        Seconds without any room after which an allocation gives up.
    entrance : float
        Seconds for which a page waits to be let in (see :mod:`thermocline.protocol.first_touch`).
    untrimmed : bool
        Whether slots were released since the stores were last trimmed to nothing.
    """

    def __init__(self, mm: Mm, scheduler: Scheduler, slots: Mapping[int, Slots]) -> None:
        self.mm = mm
        self.scheduler = scheduler
        self._slots = slots
        self._clock = scheduler.stopwatch.clock
        self.untrimmed = False
        self._throttled: list[Task] = []
        self._kswapd_asleep: dict[int, Task] = {}
        self._kswapd_wanted: set[int] = set()
        #: Since when allocations wait without a frame having been freed, and when one last began to wait.
        self._stuck_since = self._last_throttled = 0
        #: When those that wait last looked for room, and those of them that are still at it.
        self._looked_at = 0
        self._looking_again: set[Task] = set()
        self._said_no_room = False
        #: Pages that hold nothing yet and wait until less is held (first_touch.py): since when, and the task.
        self._entering: list[tuple[int, Task]] = []
        self._said_full = False
        #: Nodes out of use when the message that the others are full was printed.
        self._said_dead: list[str] = []
        self.patience: float = PATIENCE
        self.entrance: float = ENTRANCE
        for kind in effects.Effect.__subclasses__():
            scheduler.handlers[kind] = getattr(self, _method_name(kind))

    # -- locks --------------------------------------------------------------------------------------------------------

    def lock(self, effect: effects.Lock, task: Task) -> Any:
        return self.scheduler.lock(effect.page, task)

    def try_lock(self, effect: effects.TryLock, _: Task) -> bool:
        return self.scheduler.try_lock(effect.page)

    def unlock(self, effect: effects.Unlock, _: Task) -> None:
        self.scheduler.unlock(effect.page)

    def trace(self, effect: effects.Trace, task: Task) -> None:
        self.scheduler.stopwatch.trace(effect, task)

    # -- room ---------------------------------------------------------------------------------------------------------

    def reserve(self, effect: effects.Reserve, _: Task) -> int | None:
        node = self.mm.nodes[effect.node]
        size = effect.size or node.slot_bytes
        if not node.fits(size, urgent=effect.urgent):
            return None
        self.mm.charge(node, self.mm.groups[effect.group], size)
        return 0 if node.kind is Kind.MAPPED else self._slots[effect.node].reserve()

    def release(self, effect: effects.Release, _: Task) -> None:
        self.give_back(effect.node, effect.slot, effect.group, effect.size)

    def give_back(self, index: int, slot: int, group: int, size: int = 0) -> None:
        """Give back a slot of a node, or ``size`` bytes of a frame (:class:`~thermocline.protocol.effects.Release`)."""
        node = self.mm.nodes[index]
        if node.kind is Kind.SOURCE:
            return
        size = size or node.slot_bytes
        if node.kind is not Kind.MAPPED:
            size = self._slots[index].size(slot)
            self._slots[index].release(slot)
        self.mm.uncharge(node, self.mm.groups[group], size)
        if index == DRAM:
            self._frame_freed()
        elif node.kind is not Kind.MAPPED:
            self.untrimmed = True

    def throttle(self, effect: effects.Throttle, task: Task) -> Any:
        if effect.enters:
            return self._wait_to_enter(task)
        group = self.mm.groups[effect.group]
        if self.mm.nodes[effect.node].has_room and not group.excess(self.mm.page_size):
            return True  # a frame was freed since reclaim gave up
        now = self._clock()
        # An allocation that looks again may take its time over it: a device can be slow to refuse a page.
        looks_again = task in self._looking_again
        if not self._throttled:
            self._looked_at = now
            if not looks_again and now - self._last_throttled > _NEW_STALL * _SECOND:
                self._stuck_since = now
        self._looking_again.discard(task)
        self._last_throttled = now
        self._throttled.append(task)
        return PARKED

    def _wait_to_enter(self, task: Task) -> Any:
        assert self.mm.first_touch is not None
        if not self.mm.first_touch.full:
            return True
        self._entering.append((self._clock(), task))
        return PARKED

    def frames_freed(self, pages: int) -> None:
        """Count frames as given back, and let allocations that wait look again."""
        self.mm.vmstat.add("pgfree", pages)
        self._frame_freed()

    def _frame_freed(self) -> None:
        # Room below does not help an allocation that waits for a frame until reclaim has used it, and a slot that is
        # released because its device refused the page is no room at all.
        self._stuck_since = self._clock()
        self._said_no_room = False
        self._looking_again.clear()
        self._resume_throttled(True)

    def _resume_throttled(self, patient: bool) -> None:
        waiting, self._throttled = self._throttled, []
        for task in waiting:
            self.scheduler.resume(task, patient)

    @property
    def throttled(self) -> bool:
        """Whether an allocation waits for room: :meth:`retry_throttled` is then to be called now and then."""
        return bool(self._throttled or self._entering)

    def retry_throttled(self) -> None:
        """Let allocations that wait look again, if it is time: a device may have room now. Patience ends here, too."""
        now = self._clock()
        self._retry_entering(now)
        if not self._throttled or now - self._looked_at < THROTTLE_TICK * _SECOND:
            return
        stuck = now - self._stuck_since
        self._say_no_room(stuck)
        patient = stuck < self.patience * _SECOND
        if patient:
            self._looking_again.update(self._throttled)
        self._resume_throttled(patient)

    def _retry_entering(self, now: int) -> None:
        """Let pages in for which there is room by now, and turn those away that have waited for too long."""
        if not self._entering:
            return
        assert self.mm.first_touch is not None
        patience = self.entrance
        if not self.mm.first_touch.full:
            self._said_full = False
        elif not self._said_full and now - self._entering[0][0] > min(_SAY_AFTER, patience / 2) * _SECOND:
            self._said_full = True
            self.say(
                "all that the nodes hold is in use, and the program writes to more of what it has allocated; waiting"
                f" until arrays are freed (for up to {patience:g} s, then the access ends in SIGBUS). Give the last"
                ' node more; or write commit="strict" (thermocline run --commit strict), and it is a MemoryError when'
                " arrays are made"
            )
        waiting, self._entering = self._entering, []
        for since, task in waiting:
            if not self.mm.first_touch.full:
                self.scheduler.resume(task, True)
            elif now - since > patience * _SECOND:
                self.scheduler.resume(task, False)
            else:
                self._entering.append((since, task))

    def _say_no_room(self, stuck: int) -> None:
        """Tell the user what allocations wait for: before any of them gives up, and once for each time of want."""
        if self._said_no_room:
            return
        dead = [node.name for node in self.mm.nodes if node.failed]
        full = not any(self.mm.nodes[index].has_room for index in self.mm.path.from_node(DRAM)[1:])
        patience = f"for up to {self.patience:g} s, then the access ends in SIGBUS"
        if dead and full and dead != self._said_dead:
            # Reclaim has just found nothing that could go anywhere, so only the program can make room.
            self._said_dead = dead
            self.say(
                f"{' and '.join(dead)} cannot take the pages it should hold, and there is no room for them in any other"
                f" node; waiting until arrays are freed or unpinned ({patience})"
            )
        elif stuck > min(_SAY_AFTER, self.patience) * _SECOND:
            self.say(f"there is no room for a page in any node; waiting ({patience})")
        else:
            return
        self._said_no_room = True

    def say(self, message: str) -> None:
        """Tell the user, if there is one."""

    def wake_kswapd(self, effect: effects.WakeKswapd, _: Task) -> None:
        self.wake_up_kswapd(effect.node)

    def wake_up_kswapd(self, node: int) -> None:
        """See :class:`~thermocline.protocol.effects.WakeKswapd`."""
        task = self._kswapd_asleep.pop(node, None)
        if task is not None:
            self.scheduler.resume(task, None)
        else:
            self._kswapd_wanted.add(node)

    def sleep_kswapd(self, effect: effects.SleepKswapd, task: Task) -> Any:
        if effect.node in self._kswapd_wanted:
            self._kswapd_wanted.discard(effect.node)
            return None
        self._kswapd_asleep[effect.node] = task
        return PARKED

    def arrive(self, effect: effects.Arrive, _: Task) -> int:
        del effect
        return 0

    def drop_clean(self, effect: effects.DropClean, _: Task) -> Any:
        return 0, effect.pages

    # -- the page table -----------------------------------------------------------------------------------------------

    def commit(self, effect: effects.Commit, _: Task) -> None:
        if self.mm.first_touch is not None:
            before, after = self.mm.table.read(effect.page), Entry(effect.state, effect.node, effect.slot)
            self.mm.first_touch.changes(before, after)
        self.mm.table.commit(effect.page, effect.state, effect.node, effect.slot)

    # -- other tasks --------------------------------------------------------------------------------------------------

    def spawn(self, effect: effects.Spawn, _: Task) -> None:
        self.scheduler.spawn_next(effect.protocol)

    def resched(self, _: effects.Resched, task: Task) -> Any:
        self.scheduler.resume(task, None)
        return PARKED


def _method_name(kind: type[effects.Effect]) -> str:
    """The method that performs an effect: CopyList -> copy_list."""
    return re.sub("(?<!^)(?=[A-Z])", "_", kind.__name__).lower()
