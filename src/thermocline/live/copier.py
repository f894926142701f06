"""Moving bytes between the arena and the stores, for one pager.

Three rules keep a fault from waiting for what it does not need. What may block on a device runs in a worker thread of
that device's node, and reads have threads of their own, so that a fault never queues behind the writes of reclaim.
What the background packs and unpacks, native threads do (:mod:`thermocline.live.jobs`). What changes a store of
compressed memory runs in the pager's thread, to which it belongs, one page at a time: a fault that arrives meanwhile
waits for a page and not for a batch.

Before each page that is read or written its number is noted (see :mod:`thermocline.live.suspicion`): by the pager's
thread where the supervisor looks, by a worker in a place of its own, because there are many of them. What goes wrong
in a worker ends the pager, if it does, in the pager's thread, which then says what the worker had noted.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from thermocline.errors import StoreError
from thermocline.live import libc
from thermocline.live.arena import Arena
from thermocline.live.buffer import Buffer
from thermocline.live.jobs import ZEROS, FillJob
from thermocline.live.messages import say
from thermocline.live.packing import Packing
from thermocline.live.placement import Placement, reason
from thermocline.live.stores import Store
from thermocline.live.stores.compressed import CompressedStore
from thermocline.live.suspicion import note_of
from thermocline.live.workers import Workers
from thermocline.protocol.effects import FAILED, ZERO, CopyList, Fill
from thermocline.protocol.mm import DRAM, Mm
from thermocline.protocol.node import Kind
from thermocline.protocol.page import Column, array_column, runs
from thermocline.protocol.readahead import LONGEST_RUN
from thermocline.protocol.reclaim import SWAP_CLUSTER_MAX
from thermocline.protocol.scheduler import PARKED, Scheduler, Task

#: Pages in one scratch buffer: the longest run that is filled, and the largest batch that is copied, at once.
SCRATCH_PAGES = max(LONGEST_RUN, SWAP_CLUSTER_MAX)
#: Scratch buffers that are kept while nobody needs them. As many are in use as there are threads that fault at once.
_SPARE_BUFFERS = 8
#: Pages of an array that is a kind of its own, for the stores that pack it.
_OWN_KIND = 16
#: Home of a page that is nowhere: it is zeros.
_NOWHERE = -1
#: Writes in a row that a device may refuse, for another reason than want of room, before its node is out of use.
_REFUSALS = 8


class Copier:
    """Performs the effects that move bytes.

    Parameters
    ----------
    stores : dict of node index to Store
    source : callable
        Source number -> its store.
    workers : Workers
        For what waits for a device, or for the kernel.

    Attributes
    ----------
    peak_resident : column of one integer
        The most bytes of the arena that were resident after any fill, by the kernel's account.
    """

    def __init__(
        self,
        mm: Mm,
        arena: Arena,
        scheduler: Scheduler,
        stores: dict[int, Store],
        source: Callable[[int], Store],
        workers: Workers,
        placement: Placement,
    ) -> None:
        self.mm = mm
        self.arena = arena
        self.scheduler = scheduler
        self.stores = stores
        self.peak_resident: Column = array_column("Q", 1)
        #: Called with the index of a node that has just been taken out of use.
        self.node_failed: Callable[[int], None] = lambda node: None
        self._refusals: dict[int, int] = {}
        #: What nodes have refused pages with. Said once: no page is lost by it, and most are tried again and again.
        self._refusals_said: set[tuple[int, int | None]] = set()
        #: By node, and by ``_NOWHERE``, which is the last: whether what is read or written there may wait for a device.
        self._slow = [
            node.kind is Kind.SOURCE or (node.kind is Kind.UNMAPPED and stores[node.index].slow) for node in mm.nodes
        ] + [False]
        self.source = source
        self._workers = workers
        self._placement = placement
        #: Where pages are that could not be read. Said once: reclaim tries the same page again and again.
        self._unreadable: dict[int, tuple[int, int]] = {}
        self._buffers: list[Buffer] = []

    # -- up -----------------------------------------------------------------------------------------------------------

    def fill(self, effect: Fill, task: Task) -> Any:
        """Perform a :class:`~thermocline.protocol.effects.Fill`."""
        pages = effect.pages
        noted = self.scheduler.noted
        if effect.parts:
            home = self.mm.table.place(pages[0])[0]
            if home and not self._slow[home]:
                filled = self._fill_parts(pages[0], home, effect)
                noted[0] = task.note
                return filled
        homes = [self.mm.table.place(page)[0] or _NOWHERE for page in pages]
        gaps = list(self._gaps(pages, effect.parts))
        begin = pages[0] * self.mm.page_size
        noted[0] = note_of(pages[0])
        if all(home == _NOWHERE for home in homes):
            for at, size in gaps:
                self.arena.install_zeros(at, size)
            self._note_resident()
            noted[0] = task.note
            return True
        buffer = self._take_buffer()
        store = self.stores.get(homes[0])
        is_apart = task.background and len(pages) > 1 and set(homes) == {homes[0]}
        if is_apart and self._workers.native_threads and isinstance(store, CompressedStore):
            noted[0] = task.note
            return self._fill_apart(effect, store, buffer, gaps, task)
        worker, read = self._reading(buffer, pages, homes, task)

        def finish(noted: Column) -> bool:
            try:
                if not read(noted):
                    return False
                noted[0] = note_of(pages[0])
                for at, size in gaps:
                    self.arena.install(at, size, buffer, at - begin, protect=not effect.writable)
            finally:
                self._put_buffer(buffer)
            self._note_resident()
            return True

        if worker is None:
            filled = finish(noted)
            noted[0] = task.note
            return filled
        noted[0] = task.note
        return self._workers.run(worker, False, finish, task)

    def _fill_apart(
        self, effect: Fill, store: CompressedStore, buffer: Buffer, gaps: Sequence[tuple[int, int]], task: Task
    ) -> Any:
        """Bring a run of the background up from compressed memory in a native thread: no fault waits for it."""
        pages, begin, protect = effect.pages, effect.pages[0] * self.mm.page_size, not effect.writable
        reader = store.take_reader()
        job = FillJob.of(reader, [self.mm.table.place(page)[1] for page in pages], buffer)
        installs = self.arena.install_by(job, pages, gaps, protect=protect)

        def then() -> bool:
            store.put_reader(reader)
            try:
                if not job.was_read:
                    return False  # they are read again one by one, which says what is wrong
                if job.error or not installs:
                    for at, size in gaps:
                        self.arena.install(at, size, buffer, at - begin, protect=protect)
            finally:
                self._put_buffer(buffer)
            self._note_resident()
            return True

        return self._workers.run_native([job], task, then)

    def _reading(
        self, buffer: Buffer, pages: Sequence[int], homes: Sequence[int], task: Task
    ) -> tuple[int | None, Callable[[Column], bool]]:
        """How pages that come up are read -> the node whose worker does it, or None; what does it, if all can be read.

        What is in a store that is not slow is read before.
        """
        slow = [index for index, home in enumerate(homes) if self._slow[home]]
        quick = (index for index in range(len(pages)) if index not in slow)
        unread = self._read(buffer, pages, homes, quick, self.scheduler.noted)
        if slow:
            self.mm.vmstat.add("pswpin", len(slow))
        return (
            homes[slow[0]] if slow else None,
            lambda noted: not (unread or self._read(buffer, pages, homes, slow, noted)),
        )

    def _fill_parts(self, page: int, home: int, effect: Fill) -> bool:
        """Bring up some parts of a page from a node that is not slow: what a scattered reader asks for."""
        self.scheduler.noted[0] = note_of(page)
        begin = page * self.mm.page_size
        buffer = self._take_buffer()
        try:
            store, slot = self._store_of(page, home), self.mm.table.place(page)[1]
            for at, size in self._gaps((page,), effect.parts):
                store.read_part(slot, buffer, 0, at - begin, size)
                self.arena.install(at, size, buffer, at - begin, protect=not effect.writable)
        except StoreError as error:
            self._say_unreadable(page, home, error)
            return False
        finally:
            self._put_buffer(buffer)
        if self._unreadable:
            self._unreadable.pop(page, None)
        self._note_resident()
        return True

    def _gaps(self, pages: Sequence[int], parts: int) -> Iterator[tuple[int, int]]:
        """What is to come up of contiguous pages, as stretches of the arena: where, and how many bytes."""
        mm = self.mm
        whole, size = mm.page_size, mm.part_size
        if parts:
            first = parts & -parts
            if parts == first or not (parts + first) & parts:  # one stretch, as a fault asks for it
                yield pages[0] * whole + (first.bit_length() - 1) * size, parts.bit_count() * size
                return
        elif not any(mm.links.present[page] for page in pages):
            yield pages[0] * whole, len(pages) * whole
            return
        wanted = (
            number
            for page in pages
            for number in range(page * mm.parts, (page + 1) * mm.parts)
            if (parts or mm.missing(page)) >> (number - page * mm.parts) & 1
        )
        for start, count in runs(wanted):
            yield start * size, count * size

    def _note_resident(self) -> None:
        # What is resident is charged, so it cannot be a new peak unless what is charged is.
        if self.mm.nodes[DRAM].used > self.peak_resident[0]:
            self.peak_resident[0] = max(self.arena.resident(), self.peak_resident[0])

    # -- down ---------------------------------------------------------------------------------------------------------

    def copy(self, effect: CopyList, task: Task, result: Callable[[list[int]], Any]) -> Any:
        """Perform a :class:`~thermocline.protocol.effects.CopyList`; ``result`` makes its list what the task wants."""
        pages, node = effect.pages, effect.node
        if self.mm.nodes[node].kind is Kind.MAPPED:
            return self._move_frames(effect, task, result)
        homes = [DRAM if self.mm.table.resident(page) else self.mm.table.place(page)[0] for page in pages]
        buffer = self._take_buffer()
        sizes: list[int] = []

        def settle() -> Any:
            self._put_buffer(buffer)
            self.mm.uncharge_rest(effect, sizes)
            self._judge(node)
            return result(sizes)

        if self._slow[node]:
            self.mm.vmstat.add("pswpout", len(pages))
            here, unread = self._read_here(buffer, pages, homes, task)

            def in_worker(noted: Column) -> None:
                others = (index for index in range(len(pages)) if index not in here)
                lost = unread | self._read(buffer, pages, homes, others, noted, down=True)
                for index in range(len(pages)):
                    noted[0] = note_of(pages[index], down=True)
                    sizes.append(self._write(buffer, index, effect, lost))

            return self._workers.run(node, True, in_worker, task, lambda _: settle())

        store = self.stores[node]
        if task.background and isinstance(store, CompressedStore) and self._workers.native_threads:
            return self._pack_apart(effect, store, homes, buffer, task, sizes, settle)

        def one_page() -> Any:
            index = len(sizes)
            unread = self._read(buffer, pages, homes, [index], self.scheduler.noted, down=True)
            sizes.append(self._write(buffer, index, effect, unread))
            self.scheduler.noted[0] = task.note
            return settle() if len(sizes) == len(pages) else PARKED

        # Others go first before each page: a design that moves pages one by one would otherwise keep a fault waiting
        # for all that reclaim has isolated.
        first = PARKED if task.background else one_page()
        if first is PARKED:
            task.job = one_page
            self.scheduler.requeue(task)
        return first

    def _pack_apart(
        self,
        effect: CopyList,
        store: CompressedStore,
        homes: Sequence[int],
        buffer: Buffer,
        task: Task,
        sizes: list[int],
        settle: Callable[[], Any],
    ) -> Any:
        """Pack pages in other threads, and put them into the pool in the pager's: faults go first before each."""
        pages, slots, size = effect.pages, effect.slots, self.mm.page_size
        packed = self._take_buffer()
        places = [page * size if home == DRAM else None for page, home in zip(pages, homes, strict=True)]
        kinds = [self._kind_of(page) for page in pages]
        packing = Packing(store, self.arena, pages, places, kinds, buffer, packed, self._workers.native_threads)
        _, lost = self._read_here(buffer, pages, homes, task)
        slow = [index for index, home in enumerate(homes) if self._slow[home]]

        def read_slow(noted: Column) -> None:
            lost.update(self._read(buffer, pages, homes, slow, noted, down=True))

        def pack() -> Any:
            return self._workers.run_native(packing.jobs, task, packed_once)

        def packed_once() -> Any:
            if packing.learn(lost):
                return self._workers.run(effect.node, True, packing.pack_again, task, lambda _: put())
            return put()

        def put() -> None:
            packing.close()
            task.job = one_page

        def one_page() -> Any:
            index = len(sizes)
            if packing.lengths[index] < 0:
                sizes.append(ZERO if packing.lengths[index] == ZEROS else FAILED)
            else:
                self.scheduler.noted[0] = note_of(pages[index], down=True)
                source, length = packing.found(index)
                sizes.append(
                    self._put(effect, index, lambda: store.write_packed(slots[index], source, index * size, length))
                )
                self.scheduler.noted[0] = task.note
            if len(sizes) < len(pages):
                return PARKED
            self._put_buffer(packed)
            return settle()

        if slow:
            return self._workers.run(effect.node, True, read_slow, task, lambda _: pack())
        return pack()

    def _read_here(
        self, buffer: Buffer, pages: Sequence[int], homes: Sequence[int], task: Task
    ) -> tuple[list[int], set[int]]:
        """Read those pages of a list which only this thread may read -> their indices, and those that are unreadable.

        A store that is not slow belongs to it, so what is in one is read before another thread goes on.
        """
        here = [index for index, home in enumerate(homes) if home != DRAM and not self._slow[home]]
        unread = self._read(buffer, pages, homes, here, self.scheduler.noted, down=True)
        self.scheduler.noted[0] = task.note
        return here, unread

    def _move_frames(self, effect: CopyList, task: Task, result: Callable[[list[int]], Any]) -> Any:
        """Let the kernel move frames to a mapped node, in a worker: it stops the processors for each page it unmaps."""
        pages, node = list(effect.pages), effect.node
        sources = [self.mm.table.read(page).frame or DRAM for page in pages]

        def in_worker(noted: Column) -> list[int]:
            noted[0] = note_of(pages[0], down=True)
            try:
                refusals = self._placement.move(pages, sources, node)
                self._refusals[node] = 0
            except StoreError as error:
                refusals = [-(error.errno or errno.EIO)] * len(pages)
                # A node that is gone does not come back, and what is not allowed will not be.
                self._refusals[node] = _REFUSALS
            for page, refusal in zip(pages, refusals, strict=True):
                if refusal and (node, -refusal) not in self._refusals_said:
                    self._refusals_said.add((node, -refusal))
                    self._say_of(page, f"cannot be moved to {self.mm.nodes[node].name}: {reason(-refusal)}")
            return refusals

        def settle(refusals: list[int]) -> Any:
            self._judge(node)
            return result([FAILED if refusal else self.mm.page_size for refusal in refusals])

        return self._workers.run(node, True, in_worker, task, settle)

    def _write(self, buffer: Buffer, index: int, effect: CopyList, unread: set[int]) -> int:
        """Write one page of a batch to its slot -> bytes charged, ``ZERO`` or ``FAILED``."""
        if index in unread:
            return FAILED
        offset = index * self.mm.page_size
        if libc.is_zero(buffer.address + offset, self.mm.page_size):
            return ZERO
        store, kind = self.stores[effect.node], self._kind_of(effect.pages[index])
        return self._put(effect, index, lambda: store.write(effect.slots[index], buffer, offset, kind))

    def _put(self, effect: CopyList, index: int, write: Callable[[], int]) -> int:
        """Let a page of a batch be written -> bytes charged, or ``FAILED``."""
        node, page = effect.node, effect.pages[index]
        try:
            size = write()
            self._refusals[node] = 0
            return size
        except StoreError as error:
            if error.errno != errno.ENOSPC:
                self._refusals[node] = self._refusals.get(node, 0) + 1
                if (node, error.errno) not in self._refusals_said:
                    self._refusals_said.add((node, error.errno))
                    what = f"cannot be written to {self.mm.nodes[node].name}: {error.strerror}"
                    self._say_of(page, f"{what}; it stays where it is, and so do others that are refused")
            return FAILED

    def _kind_of(self, page: int) -> int:
        """Which pages are likely to pack alike: those of one array, and those of all small ones.

        What packs best is found out on the first pages of a kind, which takes as long as packing ten of them.
        """
        region = self.mm.region_of(page)
        return region.index if region is not None and region.pages >= _OWN_KIND else 0

    def _judge(self, index: int) -> None:
        """Take a node out of use whose device refuses every write. In the pager's thread."""
        node = self.mm.nodes[index]
        if self._refusals.get(index, 0) < _REFUSALS or node.failed:
            return
        self.mm.fail_node(node)
        self.node_failed(index)
        what = "refuses every write and is out of use from now on; what is in it can be read while the device answers"
        if node.kind is Kind.MAPPED:
            what = "takes no more pages and is out of use from now on; those on it stay where the kernel has them"
        say(f"{node.name} {what}, and new arrays get what the other nodes hold")

    # -- both ---------------------------------------------------------------------------------------------------------

    def _read(
        self,
        buffer: Buffer,
        pages: Sequence[int],
        homes: Sequence[int],
        indices: Iterable[int],
        noted: Column,
        *,
        down: bool = False,
    ) -> set[int]:
        """Read some pages of a run from where they are, each to its place in the buffer -> those that cannot be."""
        failed = set()
        for index in indices:
            page, home, offset = pages[index], homes[index], index * self.mm.page_size
            noted[0] = note_of(page, down=down)
            try:
                if home == DRAM:
                    self.arena.read(page * self.mm.page_size, self.mm.page_size, buffer, offset)
                elif home == _NOWHERE:
                    buffer.view[offset : offset + self.mm.page_size] = bytes(self.mm.page_size)
                else:
                    self._store_of(page, home).read(self.mm.table.place(page)[1], buffer, offset)
                    self._unreadable.pop(page, None)
                    if down:
                        self._read_present(buffer, page, offset)
            except StoreError as error:
                failed.add(index)
                self._say_unreadable(page, home, error)
        return failed

    def _read_present(self, buffer: Buffer, page: int, offset: int) -> None:
        """Read what is in the arena of a page that is there in part: it is the newer."""
        first = page * self.mm.parts
        there = self.mm.links.present[page]
        for number, count in runs(first + part for part in range(self.mm.parts) if there >> part & 1):
            size = self.mm.part_size
            self.arena.read(number * size, count * size, buffer, offset + (number - first) * size)

    def _say_unreadable(self, page: int, home: int, error: StoreError) -> None:
        place = self.mm.table.place(page)
        if self._unreadable.get(page) != place:
            self._unreadable[page] = place
            self._say_of(page, f"cannot be read from {self.mm.nodes[home].name}: {error.strerror}")

    def forget(self, pages: range) -> None:
        """Their array is freed: another one that gets them, and cannot read them either, is to be told, too."""
        for page in list(self._unreadable):  # in one go: workers add to it
            if page in pages:
                self._unreadable.pop(page, None)

    def _say_of(self, page: int, what: str) -> None:
        """Tell the user what became of a page: of which array, as the program sees it, and which part of that."""
        region, size = self.mm.region_of(page), self.mm.page_size
        array = "of no array any more"
        if region is not None:
            begins, within = self.arena.address + region.start * size, page - region.start
            array = (
                f"page {within} of {region.pages} of the array at {begins:#x},"
                f" its bytes {within * size} to {(within + 1) * size - 1}"
            )
        say(f"page {page} ({array}) {what}")

    def _store_of(self, page: int, node: int) -> Store:
        if self.mm.nodes[node].kind is not Kind.SOURCE:
            return self.stores[node]
        region = self.mm.region_of(page)
        if region is None:
            raise StoreError(errno.ESTALE, f"page {page} belongs to no array any more")
        return self.source(region.source)

    def _take_buffer(self) -> Buffer:
        try:
            return self._buffers.pop()
        except IndexError:
            return Buffer(SCRATCH_PAGES * self.mm.page_size)

    def _put_buffer(self, buffer: Buffer) -> None:
        """Keep a buffer for the next one who needs it. In any thread."""
        if len(self._buffers) < _SPARE_BUFFERS:
            self._buffers.append(buffer)
        else:
            buffer.close()
