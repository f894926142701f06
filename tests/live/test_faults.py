"""Faults of a real thread, answered step by step: whatever happens meanwhile, nobody waits for ever."""

from __future__ import annotations

import ctypes
import os
import select
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from conftest import ARENA_PAGES as PAGES
from conftest import PAGE
from thermocline.live import interpreter, pidfd
from thermocline.live.arena import Arena
from thermocline.live.buffer import Buffer
from thermocline.live.copier import Copier
from thermocline.live.copies import Copies
from thermocline.live.interpreter import LiveInterpreter
from thermocline.live.mapping import Mapping
from thermocline.live.placement import Placement
from thermocline.live.ring import Bell
from thermocline.live.sampling import Sampler
from thermocline.live.stores.file import FileStore
from thermocline.live.workers import Workers
from thermocline.protocol.child import Child
from thermocline.protocol.demotion import DemotionPath
from thermocline.protocol.effects import Abandon, Protocol
from thermocline.protocol.fault import fault
from thermocline.protocol.migrate import DESIGNS
from thermocline.protocol.mm import Mm, Policy
from thermocline.protocol.node import Kind, Node
from thermocline.protocol.page import SLOTTED, PageTable, array_column
from thermocline.protocol.region import Advice, Region
from thermocline.protocol.scheduler import Scheduler
from thermocline.protocol.stopwatch import Stopwatch
from thermocline.spec import File

#: Seconds after which a thread that is not woken, or not done, is taken for one that never is.
LIMIT = 30


class Served:
    """An arena of this process with one page below, in a file: the faults of its threads are answered one by one."""

    def __init__(self, arena: Arena, directory: Path) -> None:
        spec = File(directory, PAGES * PAGE)
        self._fds = FileStore.create(spec, PAGE, PAGES)
        self.store = FileStore(self._fds, spec, PAGE, PAGES)
        nodes = [
            Node(0, "dram", Kind.MAPPED, PAGES * PAGE, PAGE),
            Node(1, "file", Kind.UNMAPPED, PAGES * PAGE, self.store.slot_bytes, reads_parts=True),
        ]
        region = Region(1, 0, PAGES, advice=Advice.RANDOM)
        self.arena = arena
        self.mm = Mm(
            PAGE, nodes, DemotionPath(), PageTable(PAGES), Policy(DESIGNS["batch"]), lambda _: region, parts=16
        )
        self._write_slot(0)
        self._threads: list[threading.Thread] = []
        self.scheduler = Scheduler(Stopwatch(time.perf_counter_ns), array_column("B", PAGES))
        self._bell = Bell(Bell.create(blocking=True))
        self._workers = Workers([node.name for node in nodes], self.scheduler, self._bell)
        placement = Placement(arena, PAGE, {})
        copier = Copier(
            self.mm, arena, self.scheduler, {1: self.store}, lambda number: {}[number], self._workers, placement
        )
        LiveInterpreter(
            self.mm,
            arena,
            self.scheduler,
            {1: self.store},
            copier,
            self._workers,
            Sampler(arena, placement, PAGE),
            Copies(-1, arena),
        )

    def _write_slot(self, page: int) -> None:
        buffer, slot = Buffer(PAGE), self.store.reserve()
        buffer.view[:] = b"x" * PAGE
        self.store.write(slot, buffer, 0)
        buffer.close()
        self.mm.charge(self.mm.nodes[1], self.mm.groups[0], self.store.slot_bytes)
        self.mm.table.region[page] = 1
        self.mm.table.commit(page, SLOTTED, 1, slot)

    def answer(self) -> None:
        """Wait for the next fault, and answer it."""
        mapping = self.arena.mappings[0]
        assert select.select([mapping.uffd.fd], [], [], LIMIT)[0], "no thread faults: one waits, and is not woken"
        for message in mapping.uffd.read():
            page, part = mapping.part_at(message.address, self.mm.part_size)
            self.scheduler.spawn(fault(self.mm, page, message.write, part))
        self.scheduler.run_foreground()
        while self.waits:
            self.go_on()

    @property
    def waits(self) -> bool:
        """Whether a task waits for something that takes long."""
        return bool(self._workers.working)

    def go_on(self) -> None:
        """Run what waited for the next thing that is done."""
        os.eventfd_read(self._bell.fd)
        self._workers.resume_finished()
        self.scheduler.run_foreground()

    def touch(self, address: int, *, write: bool) -> threading.Thread:
        """Let a thread touch a byte, without the GIL: who answers the fault needs that."""
        byte = ctypes.create_string_buffer(b"y", 1)
        there, here = ctypes.c_void_p(address), ctypes.byref(byte)
        move = ctypes.CDLL(None).memcpy
        thread = threading.Thread(target=move, args=(there, here, 1) if write else (here, there, 1))
        thread.start()
        self._threads.append(thread)
        return thread

    def close(self) -> None:
        self.arena.install_zeros(0, PAGES * PAGE)  # a thread that still waits, because a test has failed, goes on
        self.arena.unprotect(0, PAGES)
        for thread in self._threads:
            thread.join()
        self._workers.close()
        self.store.close()
        for fd in (*self._fds, self._bell.fd):
            os.close(fd)


@pytest.fixture
def served(arena: Arena, tmp_path: Path) -> Iterator[Served]:
    made = Served(arena, tmp_path)
    yield made
    made.close()


def a_process() -> tuple[int, int]:
    """A process that does nothing, and a pidfd of it."""
    pid = os.posix_spawnp("sleep", ["sleep", "infinity"], os.environ)
    return pid, os.pidfd_open(pid)


def ends(thread: threading.Thread) -> bool:
    thread.join(LIMIT)
    return not thread.is_alive()


def test_a_writer_goes_on_though_the_child_that_it_waited_for_ends_while_the_page_comes_up(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rest of its page is brought up for the child's sake, and that alone does not wake the writer."""
    mm, arena = served.mm, served.arena
    reader = served.touch(arena.address, write=False)
    served.answer()
    assert ends(reader)
    assert mm.links.present[0] == 1, "not only the part that was touched came up"
    mm.children[1], arena.newest_fork = Child(1, 1, expected=False), 1
    arena.protect_present()

    def read(slot: int, buffer: Buffer, offset: int) -> None:
        mm.children.clear()
        arena.newest_fork = 0
        FileStore.read(served.store, slot, buffer, offset)

    monkeypatch.setattr(served.store, "read", read)
    writer = served.touch(arena.address, write=True)
    served.answer()
    assert mm.links.present[0] == mm.all_parts, "the rest of the page did not come up"
    served.answer()
    assert ends(writer)
    assert ctypes.string_at(arena.address, 2) == b"yx"


def test_a_fault_does_not_wait_for_a_child_to_end_that_cannot_be_given_a_copy(
    served: Served, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """What it runs until it has ended must not see newer bytes: so the writer waits, and the writer alone."""
    pid, process = a_process()
    arena = served.arena
    child = Mapping(1, arena.mappings[0].uffd, arena.mappings[0].address, PAGE, process, fork=1)
    arena.attach(child)
    ending = threading.Event()

    def has_ended(process: int, seconds: float) -> bool:
        ending.wait(LIMIT)
        return pidfd.has_ended(process, seconds)

    monkeypatch.setattr(interpreter, "has_ended", has_ended)
    happened: list[str] = []

    def abandon() -> Protocol[None]:
        yield Abandon(1)
        assert os.waitid(os.P_PIDFD, process, os.WEXITED | os.WNOHANG) is not None
        happened.append("ended")

    served.scheduler.spawn(abandon())
    served.scheduler.run_foreground()
    assert served.waits, "the pager has waited for the child"
    arena.detach(child)
    os.close(process)
    process = os.pidfd_open(pid)  # with the number that was the other's
    ending.set()
    served.go_on()
    assert happened == ["ended"]
    assert "no memory is left" in capfd.readouterr().err
    os.close(process)
