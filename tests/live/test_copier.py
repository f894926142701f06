"""A slow device delays the tasks that need its pages, and no others."""

import ctypes
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from conftest import ARENA_PAGES as PAGES
from conftest import PAGE
from thermocline.live.arena import Arena
from thermocline.live.buffer import Buffer
from thermocline.live.copier import Copier
from thermocline.live.jobs import Jobs
from thermocline.live.placement import Placement
from thermocline.live.ring import Bell
from thermocline.live.stores import Store
from thermocline.live.stores.compressed import CompressedStore
from thermocline.live.stores.file import FileStore
from thermocline.live.workers import Workers
from thermocline.protocol.demotion import DemotionPath
from thermocline.protocol.effects import CopyList, Fill
from thermocline.protocol.migrate import DESIGNS
from thermocline.protocol.mm import Mm, Policy
from thermocline.protocol.node import Kind, Node
from thermocline.protocol.page import PARTIAL, RESIDENT, PageTable, array_column
from thermocline.protocol.region import Region
from thermocline.protocol.scheduler import PARKED, Scheduler, Task
from thermocline.protocol.stopwatch import Stopwatch
from thermocline.spec import Compressed, File

QUICK, SLOW = 1, 2


class HangingFile(FileStore):
    """A file on a device that answers when it is told to."""

    answers = threading.Event()

    def read(self, slot: int, buffer: Buffer, offset: int) -> None:
        self.answers.wait()
        super().read(slot, buffer, offset)


@pytest.fixture
def stores(tmp_path: Path) -> Iterator[dict[int, Store]]:
    """A store that is quick and one that hangs, each with one page of its number in slot 1."""
    quick, slow = Compressed("1MiB", "lz4"), File(tmp_path, "1MiB")
    descriptors = {QUICK: CompressedStore.create(quick, PAGE, PAGES), SLOW: FileStore.create(slow, PAGE, PAGES)}
    made: dict[int, Store] = {
        QUICK: CompressedStore(descriptors[QUICK], quick, PAGE, PAGES),
        SLOW: HangingFile(descriptors[SLOW], slow, PAGE, PAGES),
    }
    page = Buffer(PAGE)
    for node, store in made.items():
        page.view[:] = bytes([node]) * PAGE
        store.write(store.reserve(), page, 0)
    page.close()
    yield made
    for store in made.values():
        store.close()
    for fds in descriptors.values():
        for fd in fds:
            os.close(fd)


def test_a_page_of_a_quick_store_does_not_wait_for_a_device_that_hangs(arena: Arena, stores: dict[int, Store]) -> None:
    nodes = [Node(0, "dram", Kind.MAPPED, PAGES * PAGE, PAGE)]
    nodes += [Node(index, str(index), Kind.UNMAPPED, 1 << 20, stores[index].slot_bytes) for index in (QUICK, SLOW)]
    mm = Mm(PAGE, nodes, DemotionPath(), PageTable(PAGES), Policy(DESIGNS["batch"]), lambda _: None)
    mm.table.commit(0, PARTIAL, SLOW, 1)
    mm.table.commit(1, PARTIAL, QUICK, 1)
    bell = Bell(Bell.create(blocking=True))
    scheduler = Scheduler(Stopwatch(time.perf_counter_ns), array_column("B", PAGES))
    workers = Workers([node.name for node in nodes], scheduler, bell)
    copier = Copier(mm, arena, scheduler, stores, lambda number: stores[number], workers, Placement(arena, PAGE, {}))
    answers: list[bool] = []

    def fill(page: int) -> Iterator[Fill]:
        answers.append((yield Fill([page], False)))

    task = Task(fill(0), background=False)
    HangingFile.answers.clear()
    assert copier.fill(task.send(None), task) is PARKED
    # The device hangs, and the pager has gone on: the other page comes at once, in this very call.
    assert copier.fill(Fill([1], False), task) is True
    assert ctypes.string_at(arena.address + PAGE, PAGE) == bytes([QUICK]) * PAGE
    assert arena.resident() == PAGE
    HangingFile.answers.set()
    os.eventfd_read(bell.fd)
    workers.resume_finished()
    scheduler.run_foreground()
    assert answers == [True]
    assert ctypes.string_at(arena.address, PAGE) == bytes([SLOW]) * PAGE
    workers.close()
    os.close(bell.fd)


@pytest.mark.parametrize("pages", [1, 3])
@pytest.mark.parametrize("background", [True, False])
def test_a_fault_goes_before_each_page_that_is_compressed_in_the_background(
    pages: int, background: bool, arena: Arena, stores: dict[int, Store]
) -> None:
    """However many pages a design moves at once: one page at a time is no excuse for taking them all."""
    nodes = [Node(0, "dram", Kind.MAPPED, PAGES * PAGE, PAGE)]
    nodes.append(Node(QUICK, "quick", Kind.UNMAPPED, 1 << 20, stores[QUICK].slot_bytes))
    mm = Mm(PAGE, nodes, DemotionPath(), PageTable(PAGES), Policy(DESIGNS["batch"]), lambda _: None)
    bell = Bell(Bell.create(blocking=True))
    scheduler = Scheduler(Stopwatch(time.perf_counter_ns), array_column("B", PAGES))
    workers = Workers([node.name for node in nodes], scheduler, bell, Jobs(bell))
    copier = Copier(mm, arena, scheduler, stores, lambda number: stores[number], workers, Placement(arena, PAGE, {}))
    scheduler.handlers[CopyList] = lambda effect, task: copier.copy(effect, task, list)
    for page in range(pages):
        arena.install_zeros(page * PAGE, PAGE)
        mm.table.commit(page, RESIDENT)
    happened: list[str] = []

    def move() -> Iterator[CopyList]:
        for _ in range(2):
            yield CopyList(range(pages), QUICK, [stores[QUICK].reserve() for _ in range(pages)], 0)
            happened.append("moved")

    def fault() -> Iterator[CopyList]:
        happened.append("answered")
        yield from ()

    scheduler.spawn(move(), background=background)
    if background:
        scheduler.run_background()
        for _ in range(2):
            assert scheduler.idle, "a worker packs, and the pager has nothing else to do"
            os.eventfd_read(bell.fd)
            workers.resume_finished()
            for expected in range(pages):
                before = happened.count("answered")
                scheduler.spawn(fault())
                scheduler.run_foreground()
                assert happened.count("answered") == before + 1, f"behind page {expected}"
                scheduler.run_background()
    else:
        scheduler.run_foreground()
    assert happened.count("moved") == 2
    workers.close()
    os.close(bell.fd)


def test_a_page_that_cannot_be_read_is_named_once_however_often_it_is_tried(
    arena: Arena, stores: dict[int, Store], capsys: pytest.CaptureFixture[str]
) -> None:
    """With its array, as the program sees it. Another page, and the same page from another slot, are news."""
    store, again = stores[QUICK], stores[QUICK].reserve()
    nodes = [Node(0, "dram", Kind.MAPPED, PAGES * PAGE, PAGE)]
    nodes.append(Node(QUICK, "quick", Kind.UNMAPPED, 1 << 20, store.slot_bytes))
    region = Region(3, 2, 6)
    mm = Mm(PAGE, nodes, DemotionPath(), PageTable(PAGES), Policy(DESIGNS["batch"]), lambda _: region)
    mm.table.region[4] = 3
    bell = Bell(Bell.create(blocking=True))
    scheduler = Scheduler(Stopwatch(time.perf_counter_ns), array_column("B", PAGES))
    workers = Workers([node.name for node in nodes], scheduler, bell)
    copier = Copier(mm, arena, scheduler, stores, lambda number: stores[number], workers, Placement(arena, PAGE, {}))
    task = Task((_ for _ in ()), background=False)

    def read(page: int, slot: int) -> bool:
        mm.table.commit(page, PARTIAL, QUICK, slot)
        return bool(copier.fill(Fill([page], False), task))

    store.release(1)  # it holds nothing any more
    assert not any(read(4, 1) for _ in range(3))
    said = capsys.readouterr().err
    where = f"page 2 of 6 of the array at {arena.address + 2 * PAGE:#x}, its bytes {2 * PAGE} to {3 * PAGE - 1}"
    assert said == f"thermocline: page 4 ({where}) cannot be read from quick: slot 1 of the pool holds no page\n"
    assert not read(4, again)
    assert not read(5, again)
    assert [line.partition(" (")[0] for line in capsys.readouterr().err.splitlines()] == [
        "thermocline: page 4",
        "thermocline: page 5",
    ]
    workers.close()
    os.close(bell.fd)
