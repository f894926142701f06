"""Arrays in tiered memory with a slow node: their contents, and where their pages are (by the kernel and by us)."""

from __future__ import annotations

import mmap
import os
import re
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from thermocline import Memory
from thermocline.live.tables import Tables
from thermocline.protocol.page import RESIDENT, PageTable

sys.path.insert(0, str(Path(__file__).parent.parent))
from pagers import children, find_supervisor

PAGE = 64 << 10
WORDS = PAGE // 8
#: Seconds that only a failure takes.
PATIENCE = 300.0


def filled(memory: Memory, pages: int) -> np.ndarray:
    """An array each of whose words holds its own number, and that does not compress to nothing."""
    made = memory.empty(pages * WORDS, "u8")
    for page in range(pages):
        made[page * WORDS : (page + 1) * WORDS] = pattern(page)
    return made


def pattern(page: int) -> np.ndarray:
    return np.arange(page * WORDS, (page + 1) * WORDS, dtype="u8") * np.uint64(0x9E3779B97F4A7C15)


def assert_intact(array: np.ndarray, added: int = 0) -> None:
    for page in range(len(array) // WORDS):
        assert (array[page * WORDS : (page + 1) * WORDS] == pattern(page) + np.uint64(added)).all(), f"page {page}"


def pages_on(memory: Memory) -> dict[int, int]:
    """Bytes of the arena on each of the machine's nodes, by the kernel's account (proc(5), numa_maps)."""
    address = memory._regions.session.address
    for line in Path("/proc/self/numa_maps").read_text().splitlines():
        if line.startswith(f"{address:x} "):
            return {int(node): int(count) * mmap.PAGESIZE for node, count in re.findall(r"\bN(\d+)=(\d+)", line)}
    raise AssertionError("the arena is not mapped")


def table(memory: Memory) -> PageTable:
    tables = memory._regions.session.tables
    return PageTable(tables.pages, tables.page_columns)


def on_node(memory: Memory, array: np.ndarray, node: int) -> list[int]:
    """The pages of an array, counted from its first, whose frames are on a node by the page table."""
    first = (array.ctypes.data - memory._regions.session.address) // PAGE
    entries = [table(memory).read(first + page) for page in range(len(array) // WORDS)]
    return [page for page, entry in enumerate(entries) if entry.state == RESIDENT and entry.node == node]


def wait_for(what: Callable[[], bool]) -> None:
    """Look until it is so: the pager tells nobody."""
    end = time.monotonic() + PATIENCE
    while not what():
        assert time.monotonic() < end, "it never came to be"
        time.sleep(0.01)


def rest(memory: Memory) -> None:
    """Wait until the pager has nothing to do: what it has reserved is used then, or given back."""
    header = memory._regions.session.tables.header
    header[Tables.HEADER_RESTED] = 0
    memory.stat()
    wait_for(lambda: header[Tables.HEADER_RESTED] != 0)


def kill_pager() -> None:
    supervisor = find_supervisor(os.getpid())
    (pager,) = children(supervisor)
    os.kill(pager, signal.SIGKILL)


def books_agree(memory: Memory, array: np.ndarray) -> bool:
    """Whether page table, budgets and kernel say the same of who is where: not while a frame is on its way."""
    first = (array.ctypes.data - memory._regions.session.address) // PAGE
    # What was unmapped from us, to see whether we use it, is not in numa_maps: touch it.
    for page in range(len(array) // WORDS):
        if table(memory).resident(first + page):
            array[page * WORDS : (page + 1) * WORDS : mmap.PAGESIZE // 8].sum()
    kernel, nodes = pages_on(memory), memory.stat()["nodes"]
    assert kernel.get(0, 0) <= nodes["dram"]["capacity"]
    assert kernel.get(1, 0) <= nodes["numa:1"]["capacity"]
    charged = {node: len(on_node(memory, array, node)) * PAGE for node in (0, 1)}
    return kernel.get(1, 0) == charged[1] == nodes["numa:1"]["used"]


def check_books(memory: Memory, array: np.ndarray) -> None:
    wait_for(lambda: books_agree(memory, array))


def used_without_a_fault(memory: Memory, array: np.ndarray) -> bool:
    """Read and write pages of slow memory -> whether that was no fault; not if reclaim has just taken one of them."""
    slow = on_node(memory, array, 1)[-8:]
    faults = memory.stat()["vmstat"]["pgfault"]
    for page in slow:
        assert (array[page * WORDS : (page + 1) * WORDS] == pattern(page)).all()
        array[page * WORDS : (page + 1) * WORDS] += np.uint64(0)
    return bool(slow) and memory.stat()["vmstat"]["pgfault"] == faults
