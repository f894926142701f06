"""The `live` interpreter: what each effect does to the memory of a real process.

One method an effect, named after it. A method returns the effect's result, or ``PARKED`` after it has arranged for
the task to be resumed. What may block on a device runs in a worker thread of that node; what only computes runs here,
one page at a time, so that a fault that arrives meanwhile waits for one page and not for a batch.
"""

from __future__ import annotations

import errno
import re
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from thermocline.errors import StoreError
from thermocline.live import libc
from thermocline.live.arena import Arena
from thermocline.live.buffer import Buffer
from thermocline.live.ring import Bell
from thermocline.live.scheduler import PARKED, Scheduler, Task
from thermocline.live.stores import Store
from thermocline.protocol import effects
from thermocline.protocol.fault import LONGEST_RUN
from thermocline.protocol.mm import DRAM, Mm
from thermocline.protocol.node import Kind
from thermocline.protocol.page import runs
from thermocline.protocol.reclaim import SWAP_CLUSTER_MAX

#: Pages in one scratch buffer: the longest run that is filled, and the largest batch that is copied, at once.
SCRATCH_PAGES = max(LONGEST_RUN, SWAP_CLUSTER_MAX)
#: Threads that read from, and that write to, each slow node. Reads have their own, so that a fault never queues
#: behind the writes of reclaim.
_READERS, _WRITERS = 4, 2
#: Seconds without any room anywhere after which an allocation gives up.
PATIENCE = 60.0
#: Seconds without room after which the user is told, once.
_SAY_AFTER = 2.0


class Interpreter:
    """Performs effects for the tasks of one pager.

    Parameters
    ----------
    stores : dict of node index to Store
    source : callable
        Source number -> its store.
    bell : Bell
        Rung by workers, to wake the pager.
    """

    def __init__(
        self,
        mm: Mm,
        arena: Arena,
        scheduler: Scheduler,
        stores: dict[int, Store],
        source: Callable[[int], Store],
        bell: Bell,
    ) -> None:
        self.mm = mm
        self.arena = arena
        self.scheduler = scheduler
        self.stores = stores
        self._source = source
        self._bell = bell
        self.peak_resident = 0
        self._buffers: list[Buffer] = []
        self._workers: dict[tuple[int, bool], ThreadPoolExecutor] = {}
        self._finished: deque[tuple[Task, Callable[[], Any]]] = deque()
        self._throttled: list[Task] = []
        self._kswapd_asleep: dict[int, Task] = {}
        self._kswapd_wanted: set[int] = set()
        self._last_progress = time.monotonic()
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
        self._room_made()

    def throttle(self, _: effects.Throttle, task: Task) -> Any:
        self._throttled.append(task)
        return PARKED

    def _room_made(self) -> None:
        self._last_progress = time.monotonic()
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
        stuck = time.monotonic() - self._last_progress
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
        self.arena.poison(effect.page)

    def punch(self, effect: effects.Punch, _: Task) -> None:
        dram = self.mm.nodes[DRAM]
        for start, count in runs(sorted(effect.pages)):
            self.arena.punch(start, count)
        for page in effect.pages:
            self.mm.uncharge(dram, self.mm.group_of(page), self.mm.page_size)
        self.mm.vmstat.add("pgfree", len(effect.pages))
        self._room_made()

    # -- the page table -----------------------------------------------------------------------------------------------

    def commit(self, effect: effects.Commit, _: Task) -> None:
        self.mm.table.commit(effect.page, effect.state, effect.node, effect.slot)

    # -- bytes --------------------------------------------------------------------------------------------------------

    def fill(self, effect: effects.Fill, task: Task) -> Any:
        places = [self.mm.table.place(page) for page in effect.pages]
        first, count = effect.pages[0], len(effect.pages)
        if not any(node for node, _ in places):
            self.arena.install_zeros(first, count)
            self._note_resident()
            return True
        slow = {node for node, _ in places if node and self._is_slow(node)}

        def run() -> bool:
            buffer = self._take_buffer()
            try:
                for index, (page, (node, slot)) in enumerate(zip(effect.pages, places, strict=True)):
                    offset = index * self.mm.page_size
                    if node:
                        self._store_of(page, node).read(slot, buffer, offset)
                    else:
                        buffer.view[offset : offset + self.mm.page_size] = bytes(self.mm.page_size)
                self.arena.install(first, count, buffer, 0, protect=not effect.writable)
            except StoreError as error:
                _say(f"pages {first} to {first + count - 1} cannot be read: {error}")
                return False
            finally:
                self._buffers.append(buffer)
            self._note_resident()
            return True

        if not slow:
            return run()
        self.mm.vmstat.add("pswpin", sum(1 for node, _ in places if node in slow))
        return self._in_worker(slow.pop(), False, run, task)

    def copy(self, effect: effects.Copy, task: Task) -> Any:
        listed = effects.CopyList([effect.page], effect.node, [effect.slot])
        return self._copy(listed, task, lambda sizes: sizes[0])

    def copy_list(self, effect: effects.CopyList, task: Task) -> Any:
        return self._copy(effect, task, lambda sizes: sizes)

    def _copy(self, effect: effects.CopyList, task: Task, result: Callable[[list[int]], Any]) -> Any:
        """Copy page by page, in slices, or in a worker if the target or a source is slow."""
        pages = list(effect.pages)
        if not self._is_slow(effect.node) and not any(self._is_slow(self._home(page)) for page in pages):
            sizes: list[int] = []

            def one_page() -> Any:
                index = len(sizes)
                sizes.append(
                    self._copy_pages(pages[index : index + 1], effect.node, effect.slots[index : index + 1])[0]
                )
                return result(self._settle(pages, effect.node, sizes)) if len(sizes) == len(pages) else PARKED

            first = one_page()
            if first is PARKED:
                task.job = one_page
                self.scheduler.requeue(task)
            return first
        # A store that is not slow belongs to this thread: what comes from it is read before the worker starts.
        self.mm.vmstat.add("pswpout", len(pages))
        buffer = self._take_buffer()
        read = {}
        for index, page in enumerate(pages):
            home = self._home(page)
            if home != DRAM and not self._is_slow(home):
                try:
                    self._store_of(page, home).read(self.mm.table.place(page)[1], buffer, index * self.mm.page_size)
                    read[page] = True
                except StoreError as error:
                    _say(f"page {page} cannot be read: {error}")
                    read[page] = False

        def run() -> list[int]:
            try:
                return self._copy_pages(pages, effect.node, effect.slots, buffer, read)
            finally:
                self._buffers.append(buffer)

        return self._in_worker(
            effect.node, True, run, task, then=lambda sizes: result(self._settle(pages, effect.node, sizes))
        )

    def _copy_pages(
        self,
        pages: Sequence[int],
        node: int,
        slots: Sequence[int],
        buffer: Buffer | None = None,
        read: dict[int, bool] | None = None,
    ) -> list[int]:
        """Read pages from where they are and write them to slots -> sizes. Touches no books: it may run in a worker."""
        own = buffer is None
        buffer = self._take_buffer() if buffer is None else buffer
        store = self.stores[node]
        sizes = []
        try:
            for index, (page, slot) in enumerate(zip(pages, slots, strict=True)):
                offset = index * self.mm.page_size
                try:
                    if read is None or page not in read:
                        home = self._home(page)
                        if home == DRAM:
                            self.arena.read(page, 1, buffer, offset)
                        else:
                            self._store_of(page, home).read(self.mm.table.place(page)[1], buffer, offset)
                    elif not read[page]:
                        sizes.append(effects.FAILED)
                        continue
                    if libc.is_zero(buffer.address + offset, self.mm.page_size):
                        sizes.append(effects.ZERO)
                        continue
                    sizes.append(store.write(slot, buffer, offset, self.mm.table.region[page]))
                except StoreError as error:
                    if error.errno != errno.ENOSPC:
                        _say(f"page {page} stays in {self.mm.nodes[self._home(page)].name}: {error}")
                    sizes.append(effects.FAILED)
        finally:
            if own:
                self._buffers.append(buffer)
        return sizes

    def _settle(self, pages: Sequence[int], node_index: int, sizes: list[int]) -> list[int]:
        """Give back what a written page takes less than the worst case that was reserved for it."""
        node = self.mm.nodes[node_index]
        for page, size in zip(pages, sizes, strict=True):
            if size > 0 and size < node.slot_bytes:
                self.mm.uncharge(node, self.mm.group_of(page), node.slot_bytes - size)
        return sizes

    def _home(self, page: int) -> int:
        """The node that has the bytes of a page: the arena, unless the entry says that only its slot has them."""
        return DRAM if self.mm.table.resident(page) else self.mm.table.place(page)[0]

    def _is_slow(self, node: int) -> bool:
        return node != DRAM and (self.mm.nodes[node].kind is Kind.SOURCE or self.stores[node].slow)

    def _store_of(self, page: int, node: int) -> Store:
        if self.mm.nodes[node].kind is not Kind.SOURCE:
            return self.stores[node]
        region = self.mm.region_of(page)
        if region is None:
            raise StoreError(errno.ESTALE, f"page {page} belongs to no array any more")
        return self._source(region.source)

    def _take_buffer(self) -> Buffer:
        try:
            return self._buffers.pop()
        except IndexError:
            return Buffer(SCRATCH_PAGES * self.mm.page_size)

    def _note_resident(self) -> None:
        self.peak_resident = max(self.peak_resident, self.arena.resident())

    # -- other tasks --------------------------------------------------------------------------------------------------

    def spawn(self, effect: effects.Spawn, _: Task) -> None:
        self.scheduler.spawn(effect.protocol, background=True)

    def resched(self, _: effects.Resched, task: Task) -> Any:
        self.scheduler.resume(task, None)
        return PARKED

    def _in_worker(
        self,
        node: int,
        writes: bool,
        run: Callable[[], Any],
        task: Task,
        then: Callable[[Any], Any] = lambda value: value,
    ) -> Any:
        """Run something in a thread of a node, and ``then`` resume the task with its result, in the pager's thread."""
        workers = self._workers.get((node, writes))
        if workers is None:
            name = f"{self.mm.nodes[node].name} {'write' if writes else 'read'}"
            workers = ThreadPoolExecutor(_WRITERS if writes else _READERS, thread_name_prefix=name)
            self._workers[node, writes] = workers

        def finished(future: Future[Any]) -> None:
            self._finished.append((task, lambda: then(future.result())))
            self._bell.ring()

        workers.submit(run).add_done_callback(finished)
        return PARKED

    def resume_finished(self) -> None:
        """Resume the tasks whose workers are done."""
        while self._finished:
            task, result = self._finished.popleft()
            self.scheduler.resume(task, result())

    def close(self) -> None:
        """Stop the workers, without waiting for a device that hangs."""
        for workers in self._workers.values():
            workers.shutdown(wait=False, cancel_futures=True)


def _method_name(kind: type[effects.Effect]) -> str:
    """The method that performs an effect: CopyList -> copy_list."""
    return re.sub("(?<!^)(?=[A-Z])", "_", kind.__name__).lower()


def _say(message: str) -> None:
    print(f"thermocline: {message}", file=sys.stderr, flush=True)
