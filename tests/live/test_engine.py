"""The native miss path leaves the columns, the counters and the memory as the protocol does that it stands for."""

from __future__ import annotations

import ctypes
import os
import random
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st

from structures import in_c, in_python
from thermocline.live import libc
from thermocline.live.arena import Arena
from thermocline.live.books import Books, GroupRow, NodeRow
from thermocline.live.buffer import Buffer, sparse_column
from thermocline.live.copier import Copier
from thermocline.live.copies import Copies
from thermocline.live.engine import Engine, LoopRow, MmRow
from thermocline.live.interpreter import LiveInterpreter
from thermocline.live.known_regions import KnownRegions
from thermocline.live.mapping import Mapping
from thermocline.live.placement import Placement
from thermocline.live.ring import Bell
from thermocline.live.sampling import Sampler
from thermocline.live.stores.compressed import CompressedStore
from thermocline.live.stores.pool import PoolRow
from thermocline.live.tables import Tables
from thermocline.live.userfaultfd import UserFaultFd, open_userfaultfd
from thermocline.live.workers import Workers
from thermocline.native import library
from thermocline.protocol.demotion import DemotionPath
from thermocline.protocol.fault import fault
from thermocline.protocol.fill import go_on
from thermocline.protocol.migrate import DESIGNS
from thermocline.protocol.mm import Mm, Policy
from thermocline.protocol.node import nodes_of
from thermocline.protocol.page import EMPTY, PageTable
from thermocline.protocol.reclaim import reclaim_pages
from thermocline.protocol.region import Advice, Region
from thermocline.protocol.scheduler import Scheduler
from thermocline.protocol.stopwatch import Stopwatch
from thermocline.protocol.vmstat import VmStat
from thermocline.spec import Compressed, Dram

BASE = 4096
PAGES = 24
#: First page and number of pages of each region.
REGIONS = ((0, 10), (12, 8), (20, 4))
DECLINED, SERVED, STUCK = range(3)


class Machine:
    """A pager's half of a memory whose pages are in compressed memory, in this process, step by step."""

    def __init__(self, parts: int, readahead: int, dram: int, *, native: bool) -> None:
        self._stack = ExitStack()
        self.page_size = page_size = BASE * parts
        size = PAGES * page_size
        fd = os.memfd_create("arena", os.MFD_CLOEXEC)
        self._stack.callback(os.close, fd)
        os.ftruncate(fd, size)
        opened = open_userfaultfd()
        self._stack.callback(os.close, opened.fd)
        address = libc.mmap(None, size, libc.PROT_READ | libc.PROT_WRITE, libc.MAP_SHARED, fd)
        self._stack.callback(libc.munmap, address, size)
        uffd = UserFaultFd(opened.fd)
        uffd.register(address, size)
        self.tables = Tables.create(PAGES)
        self._stack.callback(self.tables.close)
        table = PageTable(PAGES, self.tables.page_columns)
        self.arena = Arena(fd, page_size, [Mapping(0, uffd, address, page_size, -1)], table.given)
        spec = Compressed(4 * size)
        fds = CompressedStore.create(spec, page_size, PAGES)
        for each in fds:
            self._stack.callback(os.close, each)
        self.store = CompressedStore(fds, spec, page_size, PAGES)
        self._stack.callback(self.store.close)
        books = Books()
        nodes = nodes_of(
            (Dram(dram * page_size), spec),
            [self.store.slot_bytes],
            page_size,
            books.node,
        )
        self.mm = Mm(
            page_size,
            nodes,
            DemotionPath.through(2),
            table,
            Policy(DESIGNS["batch"], readahead_pages=readahead),
            self._find_region,
            VmStat(self.tables.counters),
            sparse_column,
            parts=parts,
            make_group=books.group,
        )
        self.known = KnownRegions(self.mm, self.tables)
        self.scheduler = Scheduler(Stopwatch(time.perf_counter_ns, self.tables.histograms), sparse_column("B", PAGES))
        self.scheduler.noted = self.tables.word(Tables.HEADER_NOTE)
        bell = Bell(Bell.create(blocking=True))
        self._stack.callback(os.close, bell.fd)
        workers = Workers([node.name for node in nodes], self.scheduler, bell)
        placement = Placement(self.arena, page_size, {})
        stores = {1: self.store}
        copier = Copier(self.mm, self.arena, self.scheduler, stores, {}.__getitem__, workers, placement)
        self.interpreter = LiveInterpreter(
            self.mm,
            self.arena,
            self.scheduler,
            stores,
            copier,
            workers,
            Sampler(self.arena, placement, page_size),
            Copies(-1, self.arena),
        )
        self.copier = copier
        self.engine = Engine(
            self.mm,
            self.tables,
            self.arena,
            self.scheduler,
            self.known,
            books,
            stores,
            copier.peak_resident,
            native=native,
        )
        self._stack.callback(self.engine.close)
        self.interpreter.engine = self.engine
        self.engine.row.uffd, self.engine.row.address = uffd.fd, address
        for start, pages in REGIONS:
            self.tables.region_pages[start] = pages
            for page in range(start, start + pages):
                table.region[page] = start + 1
            self.known.find(start + 1)
        self._fill()

    def _fill(self) -> None:
        """Let every page of a region have been written, and be in DRAM, or below where there is no room for it."""
        buffer = Buffer(self.page_size)
        for start, pages in REGIONS:
            for page in range(start, start + pages):
                words = buffer.view.cast("Q")
                for index in range(len(words)):
                    words[index] = page << 32 | index // 3
                words.release()
                slot = self.store.reserve()
                size = self.store.write(slot, buffer, 0)
                self.mm.charge(self.mm.nodes[1], self.mm.group_of(page), size)
                self.mm.table.commit(page, 1, 1, slot)
                self.mm.lru_add(page)
        buffer.close()

    def _find_region(self, number: int) -> Region | None:
        return self.known.find(number)

    def close(self) -> None:
        self._stack.close()

    def run(self, protocol: Any) -> None:
        """Run a protocol, and what it has begun, to the end."""
        self.scheduler.spawn(protocol)
        self.run_ready()

    def run_ready(self) -> None:
        """Run what is ready to the end."""
        while not self.scheduler.idle:
            self.scheduler.run_foreground()
            self.scheduler.run_background()

    def serve(self, page: int, part: int, write: bool) -> int:
        """Let the native half answer a fault."""
        stuck = ctypes.c_uint32()
        outcome: int = library().tc_serve(
            ctypes.byref(self.engine.row),
            ctypes.c_uint64(page),
            ctypes.c_uint32(part),
            ctypes.c_bool(write),
            ctypes.byref(stuck),
        )
        return outcome

    def state(self) -> dict[str, Any]:
        """All that there is to compare."""
        mm, links = self.mm, self.mm.links
        lists = [lruvec for node in range(2) for lruvec in mm.lruvecs(node)]
        return {
            "entries": [_placed(mm.table.entry[page]) for page in range(PAGES)],
            "columns": {
                name: list(getattr(links, name)[:PAGES])
                for name in ("present", "dirty", "referenced", "evicted_at", "transit", "list_of")
            },
            "stopped": bytes(self.arena.stopped),
            "locked": list(self.scheduler.locked),
            "lists": [(lruvec.group, list(lruvec.active), list(lruvec.inactive), lruvec.age) for lruvec in lists],
            "lengths": [(len(lruvec.active), len(lruvec.inactive)) for lruvec in lists],
            "shadows": [(list(node.shadows), len(node.shadows)) for node in mm.nodes],
            "streams": [list(mm.region_of(start).stream._row) for start, _ in REGIONS],
            "nodes": [(node.used, node.peak) for node in mm.nodes],
            "groups": {index: (list(group.used), group.memory, group.peak_dram) for index, group in mm.groups.items()},
            "vmstat": mm.vmstat.as_dict(),
            "faults": self.scheduler.stopwatch.fault.read().count,
            "kswapd": self.interpreter._kswapd_wanted,
            "peak": self.copier.peak_resident[0],
            "note": self.scheduler.noted[0],
            "arena": os.pread(self.arena.fd, PAGES * self.page_size, 0),
            "extents": list(libc.data_extents(self.arena.fd, 0, PAGES * self.page_size)),
        }


def _placed(entry: int) -> int:
    """An entry; of EMPTY pages the word is 0."""
    return entry if entry >> 56 != EMPTY else 0


class Pair:
    """Two machines alike: in one, the native half answers what it can, in the other the protocol answers all."""

    def __init__(self, parts: int, readahead: int, dram: int) -> None:
        self.ours, self.reference = (Machine(parts, readahead, dram, native=native) for native in (True, False))
        self.outcomes = {DECLINED: 0, SERVED: 0, STUCK: 0}

    def both(self, do: Callable[[Machine], None]) -> None:
        do(self.ours)
        do(self.reference)
        self.compare()

    def fault(self, page: int, part: int, write: bool) -> int:
        ours, reference = self.ours, self.reference
        before = ours.state()
        outcome = ours.serve(page, part, write)
        self.outcomes[outcome] += 1
        if outcome == DECLINED:
            assert ours.state() == before, "what is declined changes nothing"
            ours.run(fault(ours.mm, page, write, part))
        ours.interpreter.settle()
        ours.run_ready()
        reference.run(fault(reference.mm, page, write, part))
        self.compare()
        return outcome

    def compare(self) -> None:
        ours, reference = self.ours.state(), self.reference.state()
        for name, value in ours.items():
            assert value == reference[name], name

    def close(self) -> None:
        self.ours.close()
        self.reference.close()


def _pages() -> list[int]:
    return [page for start, pages in REGIONS for page in range(start, start + pages)]


def _cold(pages: list[int]) -> Callable[[Machine], None]:
    return lambda machine: machine.run(reclaim_pages(machine.mm, pages))


def _advise(start: int, advice: int) -> Callable[[Machine], None]:
    def do(machine: Machine) -> None:
        machine.tables.region_advice[start] = advice
        machine.known.read_advice(start + 1)

    return do


def _limit(limit: int | None) -> Callable[[Machine], None]:
    def do(machine: Machine) -> None:
        machine.mm.groups[0].dram_limit = None if limit is None else limit * machine.page_size

    return do


def _hold(page: int) -> Callable[[Machine], None]:
    """Take a page's lock, or give it back."""

    def do(machine: Machine) -> None:
        if not machine.scheduler.try_lock(page):
            machine.scheduler.unlock(page)

    return do


def _pin(page: int) -> Callable[[Machine], None]:
    def do(machine: Machine) -> None:
        machine.mm.table.pins[page] ^= 1

    return do


STEPS = st.one_of(
    *[st.tuples(st.just("fault"), st.sampled_from(_pages()), st.integers(0, 15), st.booleans())] * 6,
    st.tuples(st.just("cold"), st.lists(st.sampled_from(_pages()), min_size=1, max_size=6, unique=True)),
    st.tuples(st.just("advise"), st.sampled_from([start for start, _ in REGIONS]), st.sampled_from([0, 0, 1, 2])),
    st.tuples(st.just("pin"), st.sampled_from(_pages())),
    st.tuples(st.just("limit"), st.sampled_from([None, None, 4])),
)


@settings(max_examples=60, deadline=None)
@given(
    parts=st.sampled_from([1, 4, 16]),
    readahead=st.sampled_from([0, 8]),
    dram=st.sampled_from([8, 64]),
    steps=st.lists(STEPS, max_size=40),
)
def test_it_does_what_the_protocol_does(parts: int, readahead: int, dram: int, steps: list[Any]) -> None:
    pair = Pair(parts, readahead, dram)
    try:
        for step in steps:
            if step[0] == "fault":
                _, page, part, write = step
                pair.fault(page, part % parts, write)
            elif step[0] == "cold":
                pair.both(_cold(step[1]))
            elif step[0] == "advise":
                pair.both(_advise(step[1], step[2]))
            elif step[0] == "pin":
                pair.both(_pin(step[1]))
            else:
                pair.both(_limit(step[1]))
    finally:
        pair.close()


@pytest.fixture(params=[1, 16], ids=["whole", "parts"])
def pair(request: pytest.FixtureRequest) -> Iterator[Pair]:
    made = Pair(request.param, 0, 64)
    yield made
    made.close()


def test_scattered_reads_are_served(pair: Pair) -> None:
    parts = pair.ours.mm.parts
    places = [(page, part) for page in _pages()[1:] for part in range(parts)]
    random.Random(3).shuffle(places)
    for page, part in places[:40]:
        pair.fault(page, part, False)
    assert pair.outcomes[SERVED] > pair.outcomes[DECLINED]


def test_the_first_write_to_a_clean_page_is_served(pair: Pair) -> None:
    pair.both(_advise(0, Advice.RANDOM))
    for part in range(pair.ours.mm.parts):
        assert pair.fault(5, part, False) == SERVED
    assert pair.fault(5, 0, True) == SERVED
    assert pair.ours.mm.table.state(5) == 3
    assert pair.ours.mm.vmstat["shadow_dropped"] == 1


def test_a_page_goes_down_and_comes_back_to_be_written(pair: Pair) -> None:
    pair.both(_advise(0, Advice.RANDOM))
    for _ in range(2):
        for part in range(pair.ours.mm.parts):
            pair.fault(5, part, True)
        pair.both(_cold([5]))
    assert pair.fault(5, 0, True) == SERVED


def test_clean_pages_are_dropped_as_a_list(pair: Pair) -> None:
    pair.both(_advise(0, Advice.RANDOM))
    for page in (3, 5, 6, 8):
        for part in range(pair.ours.mm.parts):
            pair.fault(page, part, page == 6)
    pair.both(_pin(8))
    before = pair.ours.mm.vmstat["pgdemote_proactive"]
    pair.both(_cold([3, 5, 6, 8]))
    assert pair.ours.mm.vmstat["pgdemote_proactive"] - before == 3
    assert [pair.ours.mm.table.state(page) for page in (3, 5, 6, 8)] == [1, 1, 1, 4]


def test_a_page_that_comes_back_soon_is_active(pair: Pair) -> None:
    pair.both(_advise(0, Advice.RANDOM))
    for page in (3, 5):
        pair.fault(page, 0, False)
    pair.both(_pin(3))  # reclaim puts it on the active list, which is what a distance is compared with
    pair.both(_cold([3, 5]))
    assert pair.fault(5, 0, False) == SERVED
    assert pair.ours.mm.vmstat["workingset_activate"] == 1


@pytest.mark.parametrize("page", [10, 11, PAGES, 1 << 40])
def test_a_page_of_no_region_is_declined(pair: Pair, page: int) -> None:
    assert pair.ours.serve(page, 0, False) == DECLINED


def test_a_locked_page_is_declined(pair: Pair) -> None:
    pair.both(_advise(0, Advice.RANDOM))
    _hold(5)(pair.ours)
    assert pair.ours.serve(5, 0, False) == DECLINED
    _hold(5)(pair.ours)
    assert pair.ours.serve(5, 0, False) == SERVED


def test_a_region_that_is_freed_is_declined(pair: Pair) -> None:
    pair.ours.tables.region_advice[0] = Advice.FREED
    assert pair.ours.serve(5, 0, False) == DECLINED


def test_rot_is_declined_and_found_by_the_protocol(pair: Pair) -> None:
    pair.both(_advise(0, Advice.RANDOM))
    slot = pair.ours.mm.table.place(5)[1]
    at, _ = pair.ours.store._pool.find(slot)
    ctypes.c_uint8.from_address(at + 40).value ^= 1
    assert pair.ours.serve(5, 0, False) == DECLINED
    pair.ours.run(fault(pair.ours.mm, 5, False))
    assert pair.ours.mm.vmstat["poisoned_pages"] == 1


@pytest.mark.parametrize("pair", [16], ids=["parts"], indirect=True)  # one base page is in one mapping
def test_a_page_that_cannot_be_mapped_in_one_is_gone_on_with(pair: Pair) -> None:
    """The kernel copies to one mapping at a time, and what a process has of a page may be several (mlock(2))."""
    machine = pair.ours
    pair.both(_advise(0, Advice.SEQUENTIAL))
    for each in (pair.ours, pair.reference):
        libc.mprotect(each.engine.row.address + 5 * each.page_size + BASE, BASE, libc.PROT_READ)
    stuck = ctypes.c_uint32()
    outcome = library().tc_serve(
        ctypes.byref(machine.engine.row),
        ctypes.c_uint64(5),
        ctypes.c_uint32(0),
        ctypes.c_bool(False),
        ctypes.byref(stuck),
    )
    assert (outcome, stuck.value) == (STUCK, machine.mm.all_parts)
    machine.run(go_on(machine.mm, 5, False, stuck.value))
    pair.reference.run(fault(pair.reference.mm, 5, False))
    machine.interpreter.settle()
    machine.scheduler.noted[0] = pair.reference.scheduler.noted[0] = 0
    pair.compare()


@pytest.mark.parametrize("pair", [16], ids=["parts"], indirect=True)  # one base page is in one mapping
def test_a_writer_goes_on_whose_page_is_in_several_mappings(pair: Pair) -> None:
    pair.both(_advise(0, Advice.RANDOM))
    for part in range(pair.ours.mm.parts):
        assert pair.fault(5, part, False) == SERVED
    addresses = [each.engine.row.address + 5 * each.page_size for each in (pair.ours, pair.reference)]
    for address in addresses:
        libc.mprotect(address + BASE, BASE, libc.PROT_READ)
    if pair.ours.serve(5, 0, True) == DECLINED:  # before Linux 6.2
        pair.ours.run(fault(pair.ours.mm, 5, True))
    pair.reference.run(fault(pair.reference.mm, 5, True))
    pair.ours.interpreter.settle()
    pair.compare()
    for address in addresses:
        ctypes.c_uint8.from_address(address).value = 1  # or it would wait here for ever


@pytest.mark.parametrize("length", [0, 1, 3, 4, 7, 8, 31, 32, 33, 63, 64, 100, 4096, 70001])
def test_the_checksum_is_xxh64(length: int) -> None:
    data = random.Random(length).randbytes(length)
    native = library().tc_xxh64
    native.restype = ctypes.c_uint64
    for seed in (0, 1, 12345678901234567890):
        found = native(data, ctypes.c_size_t(length), ctypes.c_uint64(seed))
        assert found == xxhash.xxh64_intdigest(data, seed)


@pytest.mark.parametrize(
    ("structure", "name"),
    [(NodeRow, "node"), (GroupRow, "group"), (PoolRow, "pool"), (MmRow, "mm"), (LoopRow, "loop")],
)
def test_the_layouts_agree(structure: type[ctypes.Structure], name: str) -> None:
    assert in_python(structure) == in_c(f"tc_{name}_fields")
