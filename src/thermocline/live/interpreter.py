"""The `live` interpreter: what each effect does to the memory of a real process."""

from __future__ import annotations

import contextlib
import errno
import heapq
import os
import signal
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from typing import Any

from thermocline.live.arena import Arena, check_punched
from thermocline.live.copier import Copier
from thermocline.live.copies import Copies
from thermocline.live.engine import Engine
from thermocline.live.mapping import Mapping
from thermocline.live.messages import say
from thermocline.live.pidfd import has_ended
from thermocline.live.sampling import Sampler
from thermocline.live.stores import Store
from thermocline.live.workers import Workers
from thermocline.protocol import effects
from thermocline.protocol.fault import follow
from thermocline.protocol.interpreter import PUNCHED_APART, Interpreter
from thermocline.protocol.mm import DRAM, Mm
from thermocline.protocol.page import Column, array_column, runs
from thermocline.protocol.scheduler import PARKED, Scheduler, Task

#: How often a process touches a page that cannot be poisoned, and is sent SIGBUS for it, before it is killed. A system
#: call that touches the page is not ended by a signal that could be caught: the kernel tries the fault again for as
#: long as one is pending, and never comes to deliver it. Nor is a program that goes on after it, or ignores it.
_HOPELESS = 16
#: Seconds that a process may take to end that was killed.
_DYING = 10.0


class LiveInterpreter(Interpreter):
    """Performs effects on an arena and its stores.

    Parameters
    ----------
    stores : dict of node index to Store
    copier : Copier
        Moves the bytes.
    workers : Workers
        For what the kernel may take its time over.
    sampler : Sampler
        Tells which pages of slow memory are used.
    copies : Copies
        What forked children are given.

    Attributes
    ----------
    poisons : column of one integer
        How often a page was poisoned, in memory that outlives the pager.
    condemned : column of one integer
        The child that ends when it is attached, by its number, in memory that outlives the pager. One is expected at a
        time.
    """

    def __init__(
        self,
        mm: Mm,
        arena: Arena,
        scheduler: Scheduler,
        stores: dict[int, Store],
        copier: Copier,
        workers: Workers,
        sampler: Sampler,
        copies: Copies,
    ) -> None:
        super().__init__(mm, scheduler, stores)
        self.copies = copies
        self.arena = arena
        self.copier = copier
        self._workers = workers
        self.sampler = sampler
        self.condemned: Column = array_column("Q", 1)
        #: What drops clean pages; None: the protocol does.
        self.engine: Engine | None = None
        self.poisons: Column = array_column("Q", 1)
        #: Tasks that wait for a time, and the number of the one that began to wait last.
        self._asleep: list[tuple[int, int, Task]] = []
        self._naps = 0
        #: Pages that this kernel could not poison, and whose touches of them are to be answered.
        self.unpoisoned: dict[int, list[Mapping]] = {}
        #: By such a page and the number of a mapping: how many of its touches were answered.
        self._touches: Counter[tuple[int, int]] = Counter()

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
        owed = [page for page in effect.pages if self.mm.owed(page)] if self.mm.children else []
        for start, count in runs(sorted(page for page in effect.pages if page not in owed)):
            self.arena.unprotect(start, count)
        for page in owed:
            self.arena.wake(page)

    def wake(self, effect: effects.Wake, _: Task) -> None:
        self.arena.wake(effect.page)

    def poison(self, effect: effects.Poison, _: Task) -> None:
        page = effect.page
        self.poisons[0] += 1
        unable = self.arena.poison(page, owed=bool(self.mm.owed(page)))
        if not unable:
            return
        touched = self.unpoisoned.get(page)
        if touched is None:
            # Nobody may be touching it: it was to be pinned, or a successor has found it lost. Who waits faults again,
            # and that fault comes back to here, because the page's entry says by now that it is lost.
            self.unpoisoned[page] = []
            self.arena.wake(page)
            return
        for mapping in touched:
            if mapping not in unable:
                continue  # its process has gone since, and its descriptors are closed
            self._touches[page, mapping.number] += 1
            tries = self._touches[page, mapping.number]
            if tries == 1:
                self.say(
                    f"page {page} cannot be served, and this kernel cannot poison it (Linux 6.6 can); the process that"
                    " touches it is ended"
                )
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(mapping.process, signal.SIGBUS if tries < _HOPELESS else signal.SIGKILL)
        if touched:
            self.arena.wake(page)
            touched.clear()

    # -- forked children ----------------------------------------------------------------------------------------------

    def protect_present(self, _: effects.ProtectPresent, __: Task) -> None:
        self.arena.protect_present()

    def copy_to_children(self, effect: effects.CopyToChildren, task: Task) -> Any:
        children = [child.number for child in self.mm.owed(effect.page) if not child.expected]
        return self._give(effect.page, children, task) if children else []

    def save_copy(self, effect: effects.SaveCopy, _: Task) -> None:
        self.copies.save(effect.page)

    def withdraw(self, effect: effects.Withdraw, _: Task) -> None:
        self.arena.punch(effect.page, 1)

    def restore_copy(self, effect: effects.RestoreCopy, _: Task) -> None:
        self.copies.restore(effect.page)

    def copy_saved(self, effect: effects.CopySaved, task: Task) -> Any:
        return self._give(effect.page, [effect.child], task)

    def _give(self, page: int, children: list[int], task: Task) -> Any:
        """Give children a copy, and end those for which there is no memory -> those that had something there."""
        failed: list[int] = []
        had, given = self.copies.give(page, self._region(page), children, failed.append)
        self.mm.vmstat.add("cow_copies", given)
        return self._give_up(failed, task, had) if failed else had

    def _region(self, page: int) -> range:
        """The pages of the region that a page is in."""
        region = self.mm.region_of(page)
        return range(page, page + 1) if region is None else range(region.start, region.end)

    def map_frame(self, effect: effects.MapFrame, _: Task) -> None:
        size = self.mm.part_size if effect.part is not None else self.mm.page_size
        at = effect.page * self.mm.page_size + (effect.part or 0) * size
        for mapping in self.arena.private((effect.child,)):
            with contextlib.suppress(ProcessLookupError):
                mapping.map_present(at, size)

    def drop_copy(self, effect: effects.DropCopy, _: Task) -> None:
        self.copies.drop(effect.page)

    def saved_pages(self, _: effects.SavedPages, __: Task) -> list[int]:
        return self.copies.pages()

    def give(self, effect: effects.Give, _: Task) -> None:
        self.mm.table.given[effect.page] = effect.fork

    def give_zeros(self, effect: effects.GiveZeros, _: Task) -> None:
        for mapping in self.arena.private((effect.child,)):
            with contextlib.suppress(ProcessLookupError):
                mapping.give_zeros(effect.page * self.mm.page_size, self.mm.page_size)

    def deny(self, effect: effects.Deny, _: Task) -> None:
        for mapping in self.arena.private((effect.child,)):
            with contextlib.suppress(ProcessLookupError):
                try:
                    mapping.poison(effect.page)
                except OSError as error:
                    if error.errno not in (errno.EINVAL, errno.ENOTTY):
                        raise
                    self._deny_by_signal(mapping, effect.page)
                mapping.wake(effect.page, 1)

    def _deny_by_signal(self, mapping: Mapping, page: int) -> None:
        """Where this kernel cannot poison: the first touches may be messages that came late."""
        self._touches[page, mapping.number] += 1
        if self._touches[page, mapping.number] == _HOPELESS:
            self.say(f"a forked child has touched page {page}, which is no array of its; it is ended")
            signal.pidfd_send_signal(mapping.process, signal.SIGKILL)

    def abandon(self, effect: effects.Abandon, task: Task) -> Any:
        child = self.mm.children.get(effect.child)
        if child is not None and child.expected:
            self.condemned[0] = effect.child
            return None
        return self._give_up([effect.child], task, None)

    def kill(self, mapping: Mapping) -> None:
        """Kill a child that cannot be given what it is owed, and say why."""
        self.say("no memory is left to copy a page for a forked child, which its parent writes; it is ended")
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(mapping.process, signal.SIGKILL)

    def _give_up(self, children: Collection[int], task: Task, result: object) -> Any:
        """End children -> ``result``, when they have ended: what they run until then must not see newer bytes.

        A process that has much to give back takes its time to end, and the faults of others do not wait for that.
        """
        processes = []
        for mapping in self.arena.private(children):
            self.kill(mapping)
            processes.append(os.dup(mapping.process))  # the child may be detached meanwhile, and its own be closed

        def ended() -> object:
            for process in processes:
                has_ended(process, _DYING)
                os.close(process)
            return result

        return self._workers.ask_kernel(DRAM, ended, task) if processes else result

    def forget(self, pages: range) -> None:
        """Their array is freed: what was wrong with them is nothing to another one that gets them."""
        self.copier.forget(pages)
        for page in [page for page in self.unpoisoned if page in pages]:
            del self.unpoisoned[page]
        for touched in [touched for touched in self._touches if touched[0] in pages]:
            del self._touches[touched]

    def hint(self, effect: effects.Hint, task: Task) -> Any:
        return self._workers.ask_kernel(effect.node, lambda: self.sampler.hint(effect.pages), task)

    def hint_faults(self, effect: effects.HintFaults, task: Task) -> Any:
        return self._workers.ask_kernel(effect.node, lambda: self.sampler.used(effect.pages), task)

    def punch(self, effect: effects.Punch, task: Task) -> Any:
        def settle() -> None:
            for page in effect.pages:
                self.mm.uncharge_frame(page, effect.node)
            self.frames_freed(len(effect.pages))

        return self._punch(sorted(effect.pages), task, settle)

    def _punch(self, pages: Sequence[int], task: Task, settle: Callable[[], Any]) -> Any:
        """Punch pages, ascending -> what ``settle`` says when that is done."""
        if task.background and len(pages) >= PUNCHED_APART:
            # The kernel takes its time over it, and another processor may be idle: faults need not wait for that.
            return self._punch_apart(pages, task, settle)
        self.arena.punch_all(pages)
        return settle()

    def _punch_apart(self, pages: Sequence[int], task: Task, settle: Callable[[], Any]) -> Any:
        if not self._workers.native_threads:
            return self._workers.run(DRAM, True, lambda _: self.arena.punch_all(pages), task, lambda _: settle())
        job = self.arena.punch_job(pages)

        def then() -> Any:
            check_punched(job.error)
            return settle()

        return self._workers.run_native([job], task, then)

    def settle(self) -> None:
        """Do what the native half has left to do, before a protocol goes on."""
        if self.engine is None:
            return
        for node, slot, group in self.engine.take_released():
            self.give_back(node, slot, group)
        if self.engine.row.dram_is_low:
            self.engine.row.dram_is_low = 0
            self.wake_up_kswapd(DRAM)
        if self.engine.row.follows:
            self.engine.row.follows = 0
            self.scheduler.spawn(follow(self.mm, self.engine.row.followed, bool(self.engine.row.followed_write)))

    def arrive(self, effect: effects.Arrive, _: Task) -> int:
        if self.engine is None:
            return 0
        done, waited_for = self.engine.arrive(effect.pages, effect.before)
        self.settle()
        for page in waited_for:
            self.scheduler.unlock(page)
        return done

    def drop_clean(self, effect: effects.DropClean, task: Task) -> Any:
        engine = self.engine
        if engine is None or self.mm.held or not effect.pages:
            return 0, effect.pages
        dropped, left = engine.begin_drop(effect.pages, effect.cause)
        if not dropped:
            return 0, left

        def settle() -> tuple[int, list[int]]:
            for page in engine.end_drop(dropped):
                self.scheduler.unlock(page)
            self.frames_freed(len(dropped))
            return len(dropped), left

        return self._punch(sorted(dropped), task, settle)

    # -- bytes --------------------------------------------------------------------------------------------------------

    def fill(self, effect: effects.Fill, task: Task) -> Any:
        return self.copier.fill(effect, task)

    def copy(self, effect: effects.Copy, task: Task) -> Any:
        listed = effects.CopyList([effect.page], effect.node, [effect.slot], effect.group)
        return self.copier.copy(listed, task, lambda sizes: sizes[0])

    def copy_list(self, effect: effects.CopyList, task: Task) -> Any:
        return self.copier.copy(effect, task, lambda sizes: sizes)
