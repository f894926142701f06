"""The `virtual` interpreter: what each effect does to the mapping and the clock.

What is charged follows `live`, call for call: one system call for contiguous pages, compression on the pager's own
thread and a page at a time, reads and writes of a slow node in workers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from collections.abc import Mapping as Dictionary
from typing import Any

import numpy as np

from thermocline.protocol import effects
from thermocline.protocol.effects import ZERO, CopyList
from thermocline.protocol.interpreter import PUNCHED_APART, Interpreter
from thermocline.protocol.mm import DRAM, Mm
from thermocline.protocol.node import Kind
from thermocline.protocol.page import EMPTY, runs
from thermocline.protocol.scheduler import PARKED, Handler, Scheduler, Task
from thermocline.virtual.child import PrivateMapping
from thermocline.virtual.clock import NS, Clock
from thermocline.virtual.costs import Cost, Costs
from thermocline.virtual.inbox import Inbox
from thermocline.virtual.mapping import Mapping
from thermocline.virtual.program import Program
from thermocline.virtual.recorder import Recorder
from thermocline.virtual.store import VirtualStore
from thermocline.virtual.workers import Workers


class VirtualInterpreter(Interpreter):
    """Performs effects on a mapping, and charges them to a clock.

    Parameters
    ----------
    stores : dict of node index to VirtualStore
    inbox : Inbox
        Told when workers will have done their jobs.
    """

    def __init__(
        self,
        mm: Mm,
        scheduler: Scheduler,
        stores: Dictionary[int, VirtualStore],
        *,
        costs: Costs,
        clock: Clock,
        mapping: Mapping,
        program: Program,
        inbox: Inbox,
    ) -> None:
        super().__init__(mm, scheduler, stores)
        self.stores = stores
        self.costs = costs
        self.time = clock
        self.mapping = mapping
        self.program = program
        self.inbox = inbox
        self._workers = Workers()
        #: Forked children's mappings, by number; and the pages of which a copy is saved.
        self.private: dict[int, PrivateMapping] = {}
        self._saved: set[int] = set()

    def charge_effects(self, recorder: Recorder) -> None:
        """From now on let each effect take its time, and be recorded."""
        handlers = self.scheduler.handlers
        for kind, handler in handlers.items():
            handlers[kind] = self._charged(handler, recorder)

    def _charged(self, handler: Handler, recorder: Recorder) -> Handler:
        clock, draw = self.time, self.time.drawer(self.costs.effect)

        def charged(effect: Any, task: Task) -> Any:
            time = draw()
            clock.now += time
            clock.busy += time
            return handler(effect, task)

        def recorded(effect: Any, task: Task) -> Any:
            time = draw()
            clock.now += time
            clock.busy += time
            recorder.note_effect(clock.now, task, effect)
            return handler(effect, task)

        return recorded if recorder.on else charged

    # -- the program's mapping ----------------------------------------------------------------------------------------

    def _call(self, cost: Cost, size: int) -> None:
        """A system call on so many bytes: what it changes is changed at its end, and until then the program runs."""
        self.time.take(cost, size)
        self.program.advance(self.time.now)

    def unmap(self, effect: effects.Unmap, _: Task) -> None:
        for start, count in runs(sorted(effect.pages)):
            self._call(self.costs.protect, count * self.mm.page_size)
            self.mapping.protect(start, count)

    def remap(self, effect: effects.Remap, _: Task) -> None:
        free = [page for page in effect.pages if not self.mm.owed(page)]
        for start, count in runs(sorted(free)):
            self._unprotect(start, count)
        if len(free) < len(effect.pages):
            for page in effect.pages:
                self.program.wake(page, 1)

    def _unprotect(self, start: int, count: int) -> None:
        self._call(self.costs.unprotect, count * self.mm.page_size)
        self.mapping.unprotect(start, count)
        self.program.wake(start, count)

    def hint(self, effect: effects.Hint, _: Task) -> list[bool]:
        for start, count in runs(sorted(effect.pages)):
            self._call(self.costs.protect, count)
            for page in range(start, start + count):
                self.mapping.hint(page)
        return [page in self.mapping.hinted for page in effect.pages]

    def hint_faults(self, effect: effects.HintFaults, _: Task) -> list[bool]:
        self.program.advance(self.time.now)
        return [page not in self.mapping.hinted for page in effect.pages]

    def scan_delay(self, effect: effects.ScanDelay, task: Task) -> Any:
        if not self.program.over:  # or nothing would ever come to rest
            due = self.time.now + round(effect.seconds * 1e9) * NS
            self.inbox.put(due, lambda: self.scheduler.resume(task, None))
        return PARKED

    def wake(self, effect: effects.Wake, _: Task) -> None:
        self.program.advance(self.time.now)
        self.program.wake(effect.page, 1)

    def poison(self, effect: effects.Poison, _: Task) -> None:
        if not self.mm.owed(effect.page):
            self._unprotect(effect.page, 1)  # as `live` does, to be rid of a marker that the kernel takes for a page
        self._call(self.costs.poison, self.mm.page_size)
        self.mapping.poisoned.add(effect.page)
        self.program.wake(effect.page, 1)

    def commit(self, effect: effects.Commit, task: Task) -> None:
        super().commit(effect, task)
        if effect.state == EMPTY and not self.mapping.readable[effect.page]:
            self.mapping.written[effect.page] = False

    def punch(self, effect: effects.Punch, task: Task) -> Any:
        found = list(runs(sorted(effect.pages)))

        def settle() -> None:
            self.program.advance(self.time.now)
            for start, count in found:
                self.mapping.punch(start, count)
            for page in effect.pages:
                if self.mm.table.state(page) == EMPTY:
                    self.mapping.written[page] = False
                self.mm.uncharge_frame(page, effect.node)
            self.frames_freed(len(effect.pages))

        if task.background and len(effect.pages) >= PUNCHED_APART:
            time = sum(self.time.draw(self.costs.punch, count * self.mm.page_size) for _, count in found)
            return self._in_worker(DRAM, True, time, settle, task)
        for _, count in found:
            self._call(self.costs.punch, count * self.mm.page_size)
        return settle()

    # -- bytes --------------------------------------------------------------------------------------------------------

    def fill(self, effect: effects.Fill, task: Task) -> Any:
        first, count = effect.pages[0], len(effect.pages)
        size = sum(self.mm.bytes_of(effect.parts or self.mm.missing(page)) for page in effect.pages)
        homes = [self.mm.table.place(page)[0] for page in effect.pages]
        if not any(homes):
            owed = any(self.mm.owed(page) for page in effect.pages)  # UFFDIO_ZEROPAGE cannot write-protect
            self._call(self.costs.install if owed else self.costs.zero, count * self.mm.page_size)
            self._install(first, count, True)
            return True
        slow = [home for home in homes if self._is_slow(home)]
        for home in homes:
            if home and not self._is_slow(home):
                self.time.take(self.stores[home].costs.read, size // count)

        def finish() -> bool:
            self._call(self.costs.install, size)
            self._install(first, count, effect.writable)
            return True

        if not slow:
            return finish()
        self.mm.vmstat.add("pswpin", len(slow))
        time = sum(self._transfer(home, writes=False) for home in slow)
        return self._in_worker(slow[0], False, time, finish, task)

    def _install(self, first: int, count: int, writable: bool) -> None:
        self.mapping.install(first, count, writable=writable)
        if self.mm.children:
            for page in range(first, first + count):
                if self.mm.owed(page):
                    self.mapping.protect(page, 1)
        self.program.wake(first, count)

    # -- forked children ----------------------------------------------------------------------------------------------

    def protect_present(self, _: effects.ProtectPresent, __: Task) -> None:
        present = {int(page) for page in np.flatnonzero(self.mapping.readable)} | self.mapping.hinted
        for start, count in runs(sorted(present)):
            self._call(self.costs.protect, count * self.mm.page_size)
            self.mapping.protect(start, count)

    def copy_to_children(self, effect: effects.CopyToChildren, _: Task) -> list[int]:
        attached = [child.number for child in self.mm.owed(effect.page) if not child.expected]
        return [number for number in attached if not self._give(effect.page, number)]

    def copy_saved(self, effect: effects.CopySaved, _: Task) -> None:
        self._give(effect.page, effect.child)

    def _give(self, page: int, number: int) -> bool:
        self._call(self.costs.install, self.mm.page_size)
        given = self.private[number].give(page)
        if given:
            self.mm.vmstat.add("cow_copies")
            self.program.wake(page, 1)
        return given

    def save_copy(self, effect: effects.SaveCopy, _: Task) -> None:
        self._call(self.costs.read, self.mm.page_size)
        self._saved.add(effect.page)

    def withdraw(self, effect: effects.Withdraw, _: Task) -> None:
        self._call(self.costs.punch, self.mm.page_size)
        self.mapping.punch(effect.page, 1)

    def restore_copy(self, effect: effects.RestoreCopy, _: Task) -> None:
        self._call(self.costs.install, self.mm.page_size)
        self.mapping.install(effect.page, 1, writable=False)

    def drop_copy(self, effect: effects.DropCopy, _: Task) -> None:
        self._call(self.costs.punch, self.mm.page_size)
        self._saved.discard(effect.page)

    def saved_pages(self, _: effects.SavedPages, __: Task) -> list[int]:
        return sorted(self._saved)

    def give(self, effect: effects.Give, _: Task) -> None:
        self.mm.table.given[effect.page] = effect.fork

    def abandon(self, effect: effects.Abandon, _: Task) -> None:
        self.program.kill(effect.child)

    def map_frame(self, effect: effects.MapFrame, _: Task) -> None:
        self._call(self.costs.unprotect, self.mm.page_size)  # as that, it changes page table entries and wakes
        self.private[effect.child].note_touch(effect.page)
        self.program.wake(effect.page, 1)

    def give_zeros(self, effect: effects.GiveZeros, _: Task) -> None:
        self._call(self.costs.zero, self.mm.page_size)
        self.private[effect.child].give(effect.page)
        self.program.wake(effect.page, 1)

    def deny(self, effect: effects.Deny, _: Task) -> None:
        self._call(self.costs.poison, self.mm.page_size)
        private = self.private[effect.child]
        if not private.readable[effect.page]:
            private.poisoned.add(effect.page)
        self.program.wake(effect.page, 1)

    # -- copies to slots ----------------------------------------------------------------------------------------------

    def copy(self, effect: effects.Copy, task: Task) -> Any:
        listed = CopyList([effect.page], effect.node, [effect.slot], effect.group)
        return self._copy(listed, task, lambda sizes: sizes[0])

    def copy_list(self, effect: CopyList, task: Task) -> Any:
        return self._copy(effect, task, lambda sizes: sizes)

    def _copy(self, effect: CopyList, task: Task, result: Callable[[list[int]], Any]) -> Any:
        """Perform a :class:`CopyList`; ``result`` makes its list what the task wants."""
        mm, clock = self.mm, self.time
        pages, slots, node, size = effect.pages, effect.slots, effect.node, mm.page_size
        if mm.nodes[node].kind is Kind.MAPPED:
            return self._in_worker(node, True, self._shift(pages, node), lambda: result([size] * len(pages)), task)
        homes = [DRAM if mm.table.resident(page) else mm.table.place(page)[0] for page in pages]
        sizes: list[int] = []

        def settle() -> Any:
            self.mm.uncharge_rest(effect, sizes)
            return result(sizes)

        if self._is_slow(node):
            mm.vmstat.add("pswpout", len(pages))
            time = 0
            for page, slot, home in zip(pages, slots, homes, strict=True):
                if home == DRAM:
                    time += clock.draw(self.costs.read, size)
                elif self._is_slow(home):
                    time += self._transfer(home, writes=False)
                else:  # such a store belongs to this thread
                    clock.take(self.stores[home].costs.read, size)
                sizes.append(self._write(page, node, slot))
                time += self._transfer(node, writes=True) if sizes[-1] else 0
            return self._in_worker(node, True, time, settle, task)

        def one_page() -> Any:
            index = len(sizes)
            home = homes[index]
            clock.take(self.costs.read if home == DRAM else self.stores[home].costs.read, size)
            sizes.append(self._write(pages[index], node, slots[index]))
            if sizes[-1]:
                clock.take(self.stores[node].costs.write, size)
            return settle() if len(sizes) == len(pages) else PARKED

        # What runs in the background lets others go first before each page: a design that moves pages one by one would
        # otherwise keep a fault waiting for all that reclaim has isolated.
        first = PARKED if task.background else one_page()
        if first is PARKED:
            task.job = one_page
            self.scheduler.requeue(task)
        return first

    def _shift(self, pages: Sequence[int], node: int) -> int:
        """What the kernel takes to move frames to a mapped node: what it costs is known of the slower of the two."""
        if node != DRAM:
            return sum(self.time.draw(self.stores[node].costs.write, self.mm.page_size) for _ in pages)
        sources = [self.mm.table.read(page).node for page in pages]
        return sum(self.time.draw(self.stores[source].costs.read, self.mm.page_size) for source in sources if source)

    def _write(self, page: int, node: int, slot: int) -> int:
        """Bytes that a page is charged in a slot, or ``ZERO``."""
        if not self.mapping.written[page]:
            return ZERO
        return self.stores[node].write(slot, self.mm.table.region[page])

    # -- workers ------------------------------------------------------------------------------------------------------

    def _is_slow(self, node: int) -> bool:
        return node > DRAM and (self.mm.nodes[node].kind is Kind.SOURCE or self.stores[node].slow)

    def _transfer(self, node: int, *, writes: bool) -> int:
        """What a worker takes to read or to write a page."""
        if self.mm.nodes[node].kind is Kind.SOURCE:
            return self.time.draw(self.costs.stores["file"].read, self.mm.page_size)
        store = self.stores[node]
        return self.time.draw(store.costs.write if writes else store.costs.read, self.mm.page_size) + store.latency

    def _in_worker(self, node: int, writes: bool, time: int, then: Callable[[], Any], task: Task) -> Any:
        """Let a worker be busy for so long, and ``then`` resume the task with its result."""
        self.time.take(self.costs.submit)
        done = self._workers.begin(node, writes, self.time.now, self.time.draw(self.costs.worker) + time)
        # A worker rings the bell that requests ring.
        self.inbox.put(done + self.time.draw(self.costs.request), lambda: self.scheduler.resume(task, then()))
        return PARKED
