"""Many regions, many pages, many cycles, many threads. How fast all of it is, `benchmarks/pressure.py` says."""

import ctypes
import gc
import mmap
import os
import statistics
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from accounts import descriptors, memory_files, page_tables, private
from test_processes import helpers

from thermocline import Memory, SpecError
from thermocline.live import libc

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30
MADV_NOHUGEPAGE = 15
#: Bytes of addresses that one page of a page table maps.
SPAN = 2 * MIB


def processes(memory: Memory) -> dict[str, int]:
    """The process ids of a memory that is at work, by role."""
    memory.zeros(1, "u1")[0] = 1  # the pager has its name when it has answered
    found = helpers(os.getpid())
    return {"program": os.getpid(), **{name.removeprefix("thermocline-"): pid for name, pid in found.items()}}


# -- many regions, many pages -----------------------------------------------------------------------------------------


def test_a_hundred_thousand_arrays_at_once() -> None:
    with Memory("dram=448MiB, zstd=64MiB", page_size="4KiB", readahead=0) as memory:
        arrays = []
        for number in range(100_000):
            array = memory.zeros(1, "i8")
            array[0] = number
            arrays.append(array)
        assert [int(array[0]) for array in arrays] == list(range(100_000))
        for at in np.random.default_rng(0).permutation(100_000).tolist():
            arrays[at] = None
        del array
        assert all(node["used"] == 0 for node in memory.stat()["nodes"].values())
        assert memory._regions.commitment.committed == 0
        whole = memory.zeros(memory._regions.commitment.limit * 4096, "u1")  # what was cut to pieces is one again
        assert whole[-1] == 0


def test_pages_by_the_ten_thousand_hold_what_was_written(tmp_path: Path) -> None:
    count, words = 40_000, 512
    with Memory(f"dram=16MiB, zstd=2MiB, file:{tmp_path}=512MiB", page_size="4KiB") as memory:
        array = memory.zeros((count, words), "i8")
        for start in range(0, count, 1000):
            numbers = np.arange(start, start + 1000)
            array[start : start + 1000] = numbers[:, None] * 1_000_003 + np.arange(words)
        random = np.random.default_rng(1)
        for page, word in zip(random.integers(0, count, 3000), random.integers(0, words, 3000), strict=True):
            assert array[page, word] == page * 1_000_003 + word
        assert memory.stat()["nodes"][f"file:{tmp_path}"]["used"] > 0


def test_columns_larger_than_the_machine_are_no_obstacle() -> None:
    """A word for each of three billion pages, promised to nobody: the pager starts, and pages come up."""
    with Memory("dram=3TiB, zstd=1GiB", page_size="4KiB") as memory:
        array = memory.zeros(10)
        array[:] = 1
        assert array.sum() == 10
        assert memory.stat()["pager"]["starts"] == 1


def test_more_pages_than_can_be_counted_are_refused() -> None:
    with pytest.raises(SpecError, match="write a larger page_size"):
        Memory("dram=5TiB, zstd=1GiB", page_size="4KiB")


# -- what it takes beside the pages -----------------------------------------------------------------------------------


def test_the_books_take_less_than_a_thousandth_of_what_they_are_about(tmp_path: Path) -> None:
    """Tables, seals, and the helpers' own memory, for each page that comes on top of many others.

    A page takes as many bytes of books whatever its size. So the pages are small here, and 64 KiB is what is promised
    of. They are written twice, of random length when packed, and read, in random order: so there are holes, shadows,
    and slots that were released.
    """
    size, few, many = 4 * KIB, 6_000, 20_000
    with Memory(f"dram=4MiB, zstd=56MiB, file:{tmp_path}={many * size // MIB}MiB", page_size=size) as memory:
        pids = processes(memory)
        array = memory.zeros((many, size), "u1")
        random = np.random.default_rng(2)
        noise = random.integers(0, 256, 2 * size, "u1")

        def use(pages: np.ndarray) -> int:
            for page in (*pages, *pages):
                start, length = random.integers(0, size, 2)
                array[page, :length] = noise[start : start + length]
            for page in pages:
                array[page, 0]
            taken = memory_files(pids["pager"], "thermocline-tables", "thermocline-seals")
            return taken + private(pids["pager"]) + private(pids["supervisor"])

        before = use(random.permutation(few))
        after = use(random.permutation(np.arange(few, many)))
        assert after - before <= (many - few) * 64 * KIB / 1000


def gives_back() -> bool:
    """Whether this kernel frees page tables of memory that is not needed any more (Linux 6.14, CONFIG_PT_RECLAIM)."""
    size = 16 * SPAN
    address = libc.mmap(None, size, libc.PROT_READ | libc.PROT_WRITE, libc.MAP_PRIVATE | libc.MAP_ANONYMOUS)
    try:
        libc.madvise(address, size, MADV_NOHUGEPAGE)  # the table that waits behind a huge page goes with it, everywhere
        for at in range(0, size, SPAN):
            ctypes.memset(address + at, 1, 1)
        before = page_tables(os.getpid())
        libc.discard(address, size)
        return page_tables(os.getpid()) < before
    finally:
        libc.munmap(address, size)


def test_page_tables_are_accounted_for() -> None:
    with Memory("dram=8MiB, zstd=256MiB") as memory:
        before = memory.stat()["arena"]["page_tables"]
        array = memory.zeros(128 * MIB, "u1")
        array[:: 64 * KIB] = 1
        grown = memory.stat()["arena"]["page_tables"] - before
        tables = 128 * MIB // SPAN * mmap.PAGESIZE
        assert tables <= grown <= tables + 16 * mmap.PAGESIZE  # some of other mappings, meanwhile


@pytest.mark.parametrize("piece", [128 * MIB, 64 * KIB, 3 * MIB])
def test_page_tables_of_freed_arrays_go_back_to_the_kernel(piece: int) -> None:
    """Of small arrays, too, once all that lie in the same two megabytes are gone, in whatever order."""
    if not gives_back():
        pytest.skip("this kernel keeps empty page tables")
    with Memory("dram=8MiB, zstd=256MiB") as memory:
        kept = memory.zeros(1, "u1")
        kept[0] = 1
        before = memory.stat()["arena"]["page_tables"]
        arrays = [memory.zeros(piece, "u1") for _ in range(128 * MIB // piece)]
        for array in arrays:
            array[:: 64 * KIB] = 1
        for at in np.random.default_rng(3).permutation(len(arrays)).tolist():
            arrays[at] = None
        del array
        gc.collect()
        memory.stat()
        assert memory.stat()["arena"]["page_tables"] - before <= 16 * mmap.PAGESIZE
        assert kept[0] == 1
        again = memory.zeros(128 * MIB, "u1")
        assert not again[:: 4 * KIB].any()


# -- many cycles ------------------------------------------------------------------------------------------------------


def through_zeros(memory: Memory, file: Path) -> np.ndarray:
    return memory.zeros(16, "i8")


def through_numpy(memory: Memory, file: Path) -> np.ndarray:
    with memory.numpy(min_array="64KiB"):
        return np.zeros(64 * KIB, "u1")


def through_from_file(memory: Memory, file: Path) -> np.ndarray:
    return memory.from_file(file, "u1")


@pytest.mark.parametrize(
    ("make", "cycles"),
    [(through_zeros, 30_000), (through_numpy, 30_000), (through_from_file, 8_000)],
)
def test_cycles_of_making_and_freeing_leave_nothing(
    make: Callable[[Memory, Path], np.ndarray], cycles: int, tmp_path: Path
) -> None:
    """No descriptor in any of the three processes, not eight bytes a cycle, and no object of Python's in the program.

    The first half is for what grows once: frees that nobody has answered yet may be two thousand. (The program's heap
    has room from other tests, in which a few bytes would not be seen.)
    """
    file = tmp_path / "data"
    file.write_bytes(bytes(64 * KIB))
    with Memory("dram=2MiB, zstd=8MiB") as memory:

        def turn(rounds: int) -> None:
            for number in range(rounds):
                array = make(memory, file)
                if number % 8 == 0:
                    array[0] = 1
                del array
            memory.stat()
            gc.collect()

        pids = processes(memory)
        turn(cycles // 2)
        before = {role: (private(pid), descriptors(pid)) for role, pid in pids.items()}
        objects = sys.getallocatedblocks()
        turn(cycles // 2)
        assert sys.getallocatedblocks() - objects < cycles / 10
        for role, pid in pids.items():
            assert descriptors(pid) <= before[role][1], role
            assert private(pid) - before[role][0] < 4 * cycles + 64 * KIB, role


# -- many threads -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("below", ["zstd=64MiB", "file:{}=64MiB"])
def test_every_thread_progresses_where_all_thrash(below: str, tmp_path: Path) -> None:
    """32 threads, each at random in eight times the DRAM. No touch waits while the others do a quarter of all there is.

    How long a wait takes depends on the machine; how often others are served in the middle of it does not.
    """
    count, share = 32, 100
    with Memory(f"dram=4MiB, {below.format(tmp_path)}", readahead=0) as memory:
        array = memory.zeros(32 * MIB, "u1").view("i8")
        step = mmap.PAGESIZE // 8  # parts of a page come up alone: those that are touched have to be more than DRAM
        places = len(array) // step
        array[::step] = np.arange(places)
        done = [0] * count
        longest = [0] * count
        wrong: list[int] = []
        gate = threading.Barrier(count)

        def work(number: int) -> None:
            word = ctypes.c_int64()
            gate.wait()
            for place in np.random.default_rng(number).integers(0, places, share).tolist():
                before = sum(done)
                ctypes.memmove(ctypes.addressof(word), array.ctypes.data + place * mmap.PAGESIZE, 8)  # without GIL
                longest[number] = max(longest[number], sum(done) - before)
                if word.value != place:
                    wrong.append(place)
                done[number] += 1

        threads = [threading.Thread(target=work, args=(number,)) for number in range(count)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not wrong
        assert done == [share] * count
        assert max(longest) < count * share / 4, statistics.median(longest)
