"""Memories for the tests of the virtual interpreter, and what must hold when one has come to rest."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from thermocline.protocol.node import Kind
from thermocline.protocol.page import EMPTY, PARTIAL, POISONED, RESIDENT, SHADOWED, SLOTTED, State
from thermocline.spec import Compressed, Dram, File, NodeSpec, Numa
from thermocline.virtual.costs import Cost, Costs, StoreCosts
from thermocline.virtual.machine import VirtualMemory

PAGE = 4096

#: Round numbers, each of which a sum tells from the others.
COSTS = Costs(
    cores=4,
    hit=Cost(10),
    fault=Cost(20_000),
    wake=Cost(8_000),
    think=Cost(50_000),
    turn=Cost(3_000),
    message=Cost(2_000),
    effect=Cost(1_000),
    request=Cost(25_000),
    submit=Cost(11_000),
    worker=Cost(60_000),
    install=Cost(4_000, 0.25),
    zero=Cost(3_000, 0.125),
    protect=Cost(1_500, 0.0625),
    unprotect=Cost(1_600, 0.0625),
    punch=Cost(2_500, 0.25),
    read=Cost(1_200, 0.125),
    poison=Cost(7_000),
    stores={
        "zstd": StoreCosts(Cost(9_000, 0.5), Cost(30_000, 1.0), 3.0),
        "lz4": StoreCosts(Cost(5_000, 0.25), Cost(8_000, 0.5), 2.0),
        "file": StoreCosts(Cost(90_000, 0.25), Cost(70_000, 0.25)),
        "numa": StoreCosts(Cost(40_000), Cost(50_000)),
    },
)


def spread(costs: Costs, by: float) -> Costs:
    """The same costs, each of which varies."""
    single = {
        name: replace(getattr(costs, name), spread=by)
        for name in Costs.__dataclass_fields__
        if name not in ("cores", "stores")
    }
    stores = {
        name: replace(each, read=replace(each.read, spread=by), write=replace(each.write, spread=by))
        for name, each in costs.stores.items()
    }
    return replace(costs, stores=stores, **single)


def dram(pages: int = 16) -> Dram:
    return Dram(pages * PAGE)


def zstd(pages: int = 32) -> Compressed:
    return Compressed(pages * PAGE, "zstd")


def slow(pages: int = 32) -> Numa:
    """A node that the program addresses; no machine is asked for it."""
    return Numa(1, pages * PAGE)


def file(pages: int = 64, latency: float = 0.0) -> File:
    """In a directory that is not there: nobody looks."""
    return File("/nowhere/at/all", pages * PAGE, latency)


def memory(*nodes: NodeSpec, pages: int = 32, costs: Costs = COSTS, **settings: Any) -> VirtualMemory:
    """DRAM and a file, unless said otherwise, and no readahead."""
    settings.setdefault("readahead", 0)
    return VirtualMemory(nodes or (dram(), file()), costs, page_size=PAGE, pages=pages, **settings)


def reads(*pages: int) -> NDArray[np.uint32]:
    return np.array(pages, np.uint32) << 1


def writes(*pages: int) -> NDArray[np.uint32]:
    return np.array(pages, np.uint32) << 1 | 1


def mixed(random: np.random.Generator, pages: int, count: int, *, writing: float = 0.5) -> NDArray[np.uint32]:
    """Touches of random pages, some of them more often."""
    chosen = (pages * random.random(count) ** 2).astype(np.uint32)
    return chosen << 1 | (random.random(count) < writing)


def at_rest(memory: VirtualMemory) -> None:
    """Nobody waits or holds anything, and all books agree."""
    scheduler, program = memory._scheduler, memory._program
    assert program.over
    assert not program.messages
    assert scheduler.idle
    assert memory._inbox.next is None
    assert not memory._pager.requests
    assert not memory._interpreter.throttled
    assert not scheduler._queues
    locked = [page for page in range(memory.mm.table.pages) if scheduler.locked[page]]
    assert not locked, f"pages {locked} are still locked"
    assert not memory.stopwatch._allocating
    _check_pages(memory)
    _check_budgets(memory)
    _check_lists(memory)


def check_mapping(memory: VirtualMemory, pages: Iterable[int]) -> None:
    """At any time: a page that can be written is nowhere else, and one that can be read is not absent."""
    for page in pages:
        state = memory.mm.table.state(page)
        if memory._mapping.writable[page]:
            assert state in (RESIDENT, PARTIAL), f"page {page} can be written, and is {State(state).name}"
        if state in (RESIDENT, SHADOWED):
            assert memory._mapping.readable[page], f"page {page} is {State(state).name}, and not mapped"


def _check_pages(memory: VirtualMemory) -> None:
    mapping, table = memory._mapping, memory.mm.table
    for page in range(mapping.pages):
        state = table.state(page)
        assert state != PARTIAL, f"page {page} is left half filled"
        assert mapping.readable[page] == (state in (RESIDENT, SHADOWED) and page not in mapping.hinted)
        assert (page in mapping.poisoned) or state != POISONED
        assert not (mapping.writable[page] and state != RESIDENT)
        may_be_written = mapping.writable[page] and mapping.written[page] and page not in mapping.hinted
        assert mapping.allowed[2 * page + 1] == may_be_written
        assert mapping.written[page] or state not in (SLOTTED, SHADOWED)
        assert not mapping.written[page] or state != EMPTY


def _check_budgets(memory: VirtualMemory) -> None:
    mm = memory.mm
    named: dict[int, set[int]] = {index: set() for index in memory._stores}
    used = [0] * len(mm.nodes)
    shadows: dict[int, set[int]] = {index: set() for index in memory._stores}
    for page in range(mm.table.pages):
        entry = mm.table.read(page)
        if entry.names_slot and entry.node in named:
            assert entry.slot not in named[entry.node], f"slot {entry.slot} is named twice"
            named[entry.node].add(entry.slot)
            used[entry.node] += memory._stores[entry.node].size(entry.slot)
        if entry.frame is not None:
            used[entry.frame] += mm.page_size
        if entry.state == SHADOWED and entry.node in shadows:
            shadows[entry.node].add(page)
    for node, size in zip(mm.nodes, used, strict=True):
        assert node.used == size, f"{node.name} is charged {node.used} bytes, and its pages take {size}"
        assert node.peak <= node.capacity, f"{node.name} held more than it may"
        assert sum(group.used[node.index] for group in mm.groups.values()) == size
    for index, store in memory._stores.items():
        assert set(store.taken) == named[index]
        assert set(mm.nodes[index].shadows) == shadows[index]


def _check_lists(memory: VirtualMemory) -> None:
    mm = memory.mm
    listed: dict[int, int] = {}
    for node in mm.nodes:
        if node.kind is not Kind.SOURCE:
            for lruvec in mm.lruvecs(node.index):
                for page in (*lruvec.active, *lruvec.inactive):
                    assert page not in listed
                    listed[page] = node.index
    there = {page: mm.node_of(page) for page in range(mm.table.pages)}
    assert listed == {page: node for page, node in there.items() if node is not None}
