"""The abstract machine: what each effect does to page numbers, slots and locks.

One effect is one atomic step, but for those that move bytes (:mod:`thermocline.check.transfers`) and those that give
children copies (:mod:`thermocline.check.copies`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Sequence
from typing import Any

from thermocline.check.family import PROGRAM
from thermocline.check.footprint import Footprint
from thermocline.check.layout import Layout
from thermocline.check.task import PARKED, Task
from thermocline.check.transfers import Transfers
from thermocline.check.violation import Violation
from thermocline.check.world import ENTERS
from thermocline.protocol import effects
from thermocline.protocol.mm import DRAM, Policy
from thermocline.protocol.node import Kind
from thermocline.protocol.page import Entry


class Machine(Transfers):
    """Performs effects, one step at a time; the caller chooses which task steps next.

    Attributes
    ----------
    wake_threads : callable
        Called with a page whose waiters are to fault again (see :class:`~thermocline.check.copies.Wake`).
    """

    def __init__(self, layout: Layout, policy: Policy, footprint: Footprint | None = None) -> None:
        super().__init__(layout, policy, footprint)
        #: The result of the effect that was performed last.
        self.answer: Any = None
        #: How often the waiting allocations have looked for room since any allocation found some.
        self.fruitless = 0
        self.wake_threads = lambda page, mapping=None, parts=(): None
        self.abandon_child = lambda number: None
        self._handlers: dict[type[effects.Effect], Callable[[Any, Task], Any]] = {
            effects.Lock: self._lock,
            effects.TryLock: self._try_lock,
            effects.Unlock: self._unlock,
            effects.Reserve: self._reserve,
            effects.Release: self._release,
            effects.Unmap: self._unmap,
            effects.Remap: self._remap,
            effects.Commit: self._commit,
            effects.Punch: self._punch,
            effects.Wake: self._wake,
            effects.Poison: self._poison,
            effects.Hint: self._hint,
            effects.HintFaults: self._hint_faults,
            effects.ScanDelay: self._resched,
            effects.WakeKswapd: self._wake_kswapd,
            effects.SleepKswapd: self._sleep_kswapd,
            effects.Throttle: self._throttle,
            effects.Spawn: self._spawn,
            effects.Resched: self._resched,
        }
        self._handlers |= self.copy_handlers() | self.transfer_handlers()

    # -- tasks --------------------------------------------------------------------------------------------------------

    def spawn(self, name: str, protocol: effects.Protocol[Any], **settings: Any) -> Task:
        """Make a task of a protocol; its own code runs in its first step."""
        free = name
        number = 2
        while free in self.tasks:
            self.footprint.read("task", free)
            free = f"{name} #{number}"
            number += 1
        self.footprint.write("task", free)
        task = self.tasks[free] = Task(free, protocol, **settings)
        return task

    def outcomes(self, task: Task) -> int:
        """In how many ways the next step of a task can end, if things may fail."""
        effect = task.effect
        if task.job is not None or not isinstance(effect, effects.Copy | effects.CopyList | effects.Fill):
            return 1
        if self.mortal and (isinstance(effect, effects.Fill) or effect.node != self.mortal):
            return 1
        return 1 + len(effect.pages) if isinstance(effect, effects.CopyList) else 2

    def step(self, task: Task, outcome: int = 0) -> bool:
        """Take one step of a task that can run -> whether the pager of `live` would turn to another task now."""
        self.outcome = outcome
        if outcome:
            self.footprint.write("outcomes")
        turns = False
        if task.job is None and task.effect is not None:
            effect, task.effect = task.effect, None
            turns = isinstance(effect, effects.Resched | effects.ScanDelay)
            result = self._handlers[type(effect)](effect, task)
            if result is PARKED:
                return True
            if isinstance(result, Generator):
                task.job = result
            else:
                task.value = result
        if task.job is not None:
            try:
                next(task.job)
                return True
            except StopIteration as stop:
                task.job = None
                task.value = stop.value
        self.answer = task.value
        task.advance()
        if task.finished:
            self.footprint.write("task", task.name)
            del self.tasks[task.name]
        return turns or task.finished

    # -- locks --------------------------------------------------------------------------------------------------------

    def _lock(self, effect: effects.Lock, task: Task) -> Any:
        page = effect.page
        self.footprint.write("lock", page)
        if page not in self.owners:
            self.owners[page] = task
            return None
        self.waiters.setdefault(page, deque()).append(task)
        task.waits_for = f"the lock of page {page}"
        return PARKED

    def _try_lock(self, effect: effects.TryLock, task: Task) -> bool:
        if effect.page in self.owners:
            self.footprint.read("lock", effect.page)
            return False
        self.footprint.write("lock", effect.page)
        self.owners[effect.page] = task
        return True

    def _unlock(self, effect: effects.Unlock, task: Task) -> None:
        page = effect.page
        self.footprint.write("lock", page)
        if self.owners.get(page) is not task:
            raise Violation("unlock", f"{task.name} unlocks page {page}, which it has not locked")
        queue = self.waiters.get(page)
        if queue:
            self.owners[page] = queue.popleft()
            if not queue:
                del self.waiters[page]
            self.owners[page].resume(None)
        else:
            del self.owners[page]

    # -- room ---------------------------------------------------------------------------------------------------------

    def _reserve(self, effect: effects.Reserve, _: Task) -> int | None:
        node = self.mm.nodes[effect.node]
        size = effect.size or node.slot_bytes
        if not node.fits(size, urgent=effect.urgent):
            return None
        self.mm.charge(node, self.mm.groups[effect.group], size)
        if node.kind is Kind.MAPPED:
            if effect.node == DRAM:
                self._progress()
            return 0
        slot = self.stores[effect.node].reserve()
        self.footprint.write("slot", effect.node, slot)
        return slot

    def _release(self, effect: effects.Release, task: Task) -> None:
        node = self.mm.nodes[effect.node]
        if node.kind is Kind.SOURCE:
            return
        size = effect.size or node.slot_bytes
        if node.kind is not Kind.MAPPED:
            store = self.stores[effect.node]
            self.footprint.write("slot", effect.node, effect.slot)
            if effect.slot not in store.slots:
                raise Violation("slot", f"{task.name} releases slot {effect.slot} of {node.name}, which is free")
            size = store.size(effect.slot)
            del store.slots[effect.slot]
        self.mm.uncharge(node, self.mm.groups[effect.group], size)
        if effect.node == DRAM:
            self._frame_freed()

    def _throttle(self, effect: effects.Throttle, task: Task) -> Any:
        group = ENTERS if effect.enters else effect.group
        if self.may_allocate(group):
            return True
        self.footprint.write("throttled")
        self.throttled.append((task, group))
        task.waits_for = "room in any node"
        return PARKED

    def _frame_freed(self) -> None:
        self._progress()
        if self.throttled:
            self.resume_throttled(True)

    def _progress(self) -> None:
        """A frame has changed hands. (A slot that was reserved and released unused is no progress.)"""
        self.footprint.read("throttled")
        if self.fruitless:
            self.footprint.write("throttled")
            self.fruitless = 0

    def resume_throttled(self, patient: bool) -> None:
        """Let allocations that wait for room look again, or give up."""
        self.footprint.write("throttled")
        waiting, self.throttled = self.throttled, []
        for task, _ in waiting:
            task.resume(patient)

    def retry_throttled(self) -> None:
        """Nothing else can run: let each allocation that waits look once more, alone, and the next time give up."""
        self.fruitless += 1
        waiting = [task for task, _ in self.throttled]
        self.resume_throttled(self.fruitless <= 1)
        for task in waiting:
            self.settle_task(task)

    def _wake_kswapd(self, effect: effects.WakeKswapd, _: Task) -> None:
        task = self.kswapd_asleep.get(effect.node)
        if task is None and effect.node in self.kswapd_wanted:
            self.footprint.read("kswapd", effect.node)
            return
        self.footprint.write("kswapd", effect.node)
        if task is None:
            self.kswapd_wanted.add(effect.node)
        else:
            del self.kswapd_asleep[effect.node]
            task.resume(None)

    def _sleep_kswapd(self, effect: effects.SleepKswapd, task: Task) -> Any:
        self.footprint.write("kswapd", effect.node)
        if effect.node in self.kswapd_wanted:
            self.kswapd_wanted.discard(effect.node)
            return None
        self.kswapd_asleep[effect.node] = task
        task.waits_for = "work"
        return PARKED

    # -- the program's mapping and the page table ---------------------------------------------------------------------

    def _unmap(self, effect: effects.Unmap, _: Task) -> None:
        for page in effect.pages:
            self.footprint.write("arena", page)
            self.arena.protect(page, True)

    def _remap(self, effect: effects.Remap, _: Task) -> None:
        for page in effect.pages:
            self.footprint.write("arena", page)
            if self.is_owed(page):
                self.wake_threads(page)
            else:
                self.arena.protect(page, False)
                self.wake_threads(page, PROGRAM)

    def _wake(self, effect: effects.Wake, _: Task) -> None:
        self.footprint.write("arena", effect.page)
        self.wake_threads(effect.page)

    def _hint(self, effect: effects.Hint, _: Task) -> list[bool]:
        for page in effect.pages:
            self.footprint.write("arena", page)
            self.arena.hinted[page] = self.arena.present(page)
        return [self.arena.hinted[page] for page in effect.pages]

    def _hint_faults(self, effect: effects.HintFaults, _: Task) -> list[bool]:
        for page in effect.pages:
            self.footprint.read("arena", page)
        return [not self.arena.hinted[page] for page in effect.pages]

    def _poison(self, effect: effects.Poison, _: Task) -> None:
        self.footprint.write("arena", effect.page)
        self.arena.poison(effect.page, keep_protected=self.is_owed(effect.page))
        for child in self.family.values():
            child.poison(self.arena, effect.page)
        self.wake_threads(effect.page)

    def _commit(self, effect: effects.Commit, _: Task) -> None:
        if self.first_touch is not None:
            after = Entry(effect.state, effect.node, effect.slot)
            self.first_touch.changes(self.table.read(effect.page), after)
        self.table.commit(effect.page, effect.state, effect.node, effect.slot)

    def _punch(self, effect: effects.Punch, _: Task) -> None:
        for page in effect.pages:
            self.footprint.write("arena", page)
            self.arena.punch(page)
            self.lose_frame(page)
            self.mm.uncharge_frame(page, effect.node)
        self.mm.vmstat.add("pgfree", len(effect.pages))
        self._frame_freed()

    # -- other tasks --------------------------------------------------------------------------------------------------

    def _spawn(self, effect: effects.Spawn, task: Task) -> None:
        self.spawn(f"{task.name}'s child", effect.protocol)

    def _resched(self, _: effects.Resched | effects.ScanDelay, task: Task) -> None:
        """A step in which anything may happen is every step."""

    # -- for deterministic runs ---------------------------------------------------------------------------------------

    def runnable(self) -> Sequence[Task]:
        """The tasks that can take a step."""
        return [task for task in self.tasks.values() if not task.waits_for]

    def settle(self) -> None:
        """Run all tasks in turn, each until it parks, until none can run."""
        while runnable := self.runnable():
            for task in runnable:
                self.settle_task(task)

    def settle_task(self, task: Task) -> None:
        """Run one task until it parks."""
        while not task.waits_for and not task.finished:
            self.step(task)

    def run(self, protocol: effects.Protocol[Any], name: str = "task") -> Any:
        """Run a protocol, and all that it sets off, until nothing can run -> what it returned.

        Raises
        ------
        Violation
            It waits for something that cannot happen.
        """
        result: list[Any] = []
        task = self.spawn(name, protocol, done=result.append)
        self.settle()
        if not result:
            raise Violation("deadlock", f"{task.name} waits for {task.waits_for}")
        return result[0]
