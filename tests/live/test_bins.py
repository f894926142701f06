"""Blocks that NumPy has freed are kept with their frames, and are the next blocks of their size."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from families import Steps, forked, starts, status_of, wait_for
from test_processes import helpers

from comparison import Script
from structures import in_c, in_python
from thermocline import Memory
from thermocline.live import bins
from thermocline.live.tables import Tables
from thermocline.protocol.lazyfree import IDLE

PAGE = 64 << 10
#: Elements of an array of 16 pages.
SIZE = 16 * PAGE // 8


@pytest.fixture
def keeping(tmp_path: Path) -> Iterator[Memory]:
    """DRAM of 8 MiB, so that 2 MiB may be kept, and arrays of 64 KiB and more are tiered."""
    with Memory(f"dram=8MiB, file:{tmp_path}=16MiB", readahead=0) as memory, memory.numpy("64KiB"):
        yield memory


def kept(memory: Memory) -> tuple[int, int]:
    """Blocks and bytes."""
    freed = memory.stat()["freed"]
    return freed["blocks"], freed["bytes"]


def count(memory: Memory, name: str) -> int:
    found: int = memory.stat()["vmstat"][name]
    return found


def used(memory: Memory) -> int:
    found: int = memory.stat()["nodes"]["dram"]["used"]
    return found


def address(array: np.ndarray) -> int:
    return int(array.ctypes.data)


def kill_pager(memory: Memory) -> None:
    """Kill it, and wait for its successor."""
    before = starts(memory)
    os.kill(helpers(os.getpid())["thermocline-pager"], signal.SIGKILL)
    while memory._regions.session.tables.header[Tables.HEADER_PAGER_STARTS] == before:
        os.sched_yield()


def test_the_structure_is_as_in_c() -> None:
    assert in_python(bins.Binned) == in_c("tc_binned_fields")


def test_the_next_block_of_a_size_has_the_frames_of_the_last(keeping: Memory) -> None:
    first = np.ones(SIZE)
    where, faults = address(first), count(keeping, "pgfault")
    del first
    assert kept(keeping) == (1, 16 * PAGE)
    assert used(keeping) == 16 * PAGE
    second = np.empty(SIZE)
    second[:] = 2
    assert (address(second), count(keeping, "pgfault")) == (where, faults)
    assert kept(keeping) == (0, 0)
    assert keeping.stat()["freed"]["reused"] == 1
    assert second.sum() == 2 * SIZE


def test_another_size_is_another_block(keeping: Memory) -> None:
    first = np.ones(SIZE)
    where = address(first)
    del first
    assert address(np.ones(SIZE // 2)) != where
    assert address(np.ones(SIZE - 1)) == where  # so many pages all the same


def test_zeros_are_zeros(keeping: Memory) -> None:
    for number in range(1, 4):
        array = np.zeros(SIZE)
        assert not array.any()
        array[:] = number
        del array
    assert keeping.stat()["freed"]["reused"] == 2
    part = np.zeros(SIZE // 2)
    part[SIZE // 8 : SIZE // 4] = 1
    where = address(part)
    del part
    whole = np.zeros(SIZE // 2)
    assert address(whole) == where
    assert not whole.any()


def test_zeros_that_were_never_touched_take_no_frames(keeping: Memory) -> None:
    for _ in range(3):
        assert np.zeros(SIZE).size == SIZE
    assert keeping.stat()["freed"]["reused"] == 2
    assert (used(keeping), count(keeping, "pgfault")) == (0, 0)


def test_no_more_is_kept_than_a_quarter_of_dram(keeping: Memory) -> None:
    arrays = [np.ones(SIZE) for _ in range(4)]
    large = np.ones(3 * SIZE)
    del large
    assert kept(keeping) == (0, 0)
    arrays.clear()
    assert kept(keeping)[1] <= 2 << 20
    others = [np.ones(SIZE // 2) for _ in range(4)]
    others.clear()  # the older ones make room for these
    assert kept(keeping)[1] <= 2 << 20
    reused = keeping.stat()["freed"]["reused"]
    assert np.ones(SIZE // 2).sum() == SIZE // 2
    assert keeping.stat()["freed"]["reused"] == reused + 1


@pytest.mark.parametrize("what", ["advice", "share", "demoted"])
def test_what_the_next_owner_could_not_use_as_it_is_is_not_kept(keeping: Memory, what: str) -> None:
    array = np.ones(SIZE)
    if what == "advice":
        keeping.advise(array, "random")
    elif what == "share":
        keeping.share(array)
    else:
        keeping.advise(array, "cold")
    del array
    assert kept(keeping) == (0, 0)
    assert used(keeping) == 0


def test_a_group_takes_its_own_blocks(keeping: Memory) -> None:
    group = keeping.group("small", dram="4MiB")
    outside = np.ones(SIZE)
    where = address(outside)
    del outside
    with group.numpy("64KiB"):
        inside = np.ones(SIZE)
        assert address(inside) != where
        of_group = address(inside)
        del inside
        assert address(np.ones(SIZE)) == of_group
    assert address(np.ones(SIZE)) == where


def test_each_memory_has_its_own_blocks(keeping: Memory) -> None:
    outer = np.ones(SIZE)
    with Memory("dram=8MiB, zstd=8MiB") as other, other.numpy("64KiB"):
        inner = np.ones(SIZE)
        places = address(outer), address(inner)
        del outer
        del inner
        assert (kept(keeping)[0], kept(other)[0]) == (1, 1)
        assert address(np.ones(SIZE)) == places[1]
    assert address(np.ones(SIZE)) == places[0]


def test_threads_never_have_one_block_at_a_time(keeping: Memory) -> None:
    wrong: list[Any] = []

    def work(seed: int) -> None:
        random = np.random.default_rng(seed)
        for step in range(150):
            size = SIZE // int(random.integers(1, 4))
            array = np.zeros(size) if step % 2 else np.empty(size)
            if step % 2 and array.any():
                wrong.append((seed, step, "is not zero"))
            array[:] = 1000 * seed + step
            if not (array == 1000 * seed + step).all():
                wrong.append((seed, step, "was written by another"))

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(1, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert keeping.stat()["freed"]["reused"] > 100


# -- pressure ---------------------------------------------------------------------------------------------------------


def test_freed_blocks_go_first_and_are_written_nowhere(keeping: Memory) -> None:
    resident = [np.ones(SIZE) for _ in range(4)]
    freed = [np.ones(SIZE), np.ones(SIZE)]
    del freed
    assert kept(keeping)[0] == 2
    resident.append(keeping.full(SIZE * 3, 3.0))  # 7 MiB of 8 are in use now, but for what the watermarks want free
    stat = keeping.stat()["vmstat"]
    assert stat["pglazyfreed"] > 0
    assert (stat["pgdemote_kswapd"], stat["pgdemote_direct"], stat["pswpout"]) == (0, 0, 0)
    again = np.empty(SIZE)
    again[:] = 7
    assert again.sum() == 7 * SIZE
    assert [array.sum() for array in resident] == [SIZE] * 4 + [9 * SIZE]


def test_zeros_of_a_block_whose_frames_went_meanwhile(keeping: Memory) -> None:
    freed = np.ones(SIZE)
    where = address(freed)
    del freed
    resident = keeping.full(SIZE * 8, 3.0)
    array = np.zeros(SIZE)
    assert address(array) == where
    assert not array.any()
    assert resident.sum() == 24 * SIZE


def test_what_fits_without_the_freed_blocks_is_allocated(keeping: Memory) -> None:
    freed = [np.ones(SIZE), np.ones(SIZE)]
    del freed
    limit = keeping._regions.commitment.limit * PAGE
    everything = keeping.zeros(limit // 8)
    assert everything.nbytes == limit
    assert kept(keeping) == (0, 0)


def test_frames_that_nobody_asks_for_are_given_back(keeping: Memory) -> None:
    array = np.ones(SIZE)
    del array
    assert used(keeping) > 0
    began = time.monotonic()
    while used(keeping):
        assert time.monotonic() < began + 60 * IDLE
    assert count(keeping, "pglazyfreed") == 16
    assert kept(keeping) == (1, 16 * PAGE)  # its addresses are the next block's still
    assert keeping._regions.session.tables.header[Tables.HEADER_LAZYFREE_WATCHED] == 0
    array = np.ones(SIZE)
    assert array.sum() == SIZE
    del array
    assert keeping._regions.session.tables.header[Tables.HEADER_LAZYFREE_WATCHED] == 1


# -- pagers that are killed, and children ----------------------------------------------------------------------------


def test_a_block_is_kept_when_the_pager_is_killed(keeping: Memory) -> None:
    array = np.ones(SIZE)
    where = address(array)
    del array
    kill_pager(keeping)
    assert used(keeping) == 16 * PAGE
    array = np.zeros(SIZE)
    assert address(array) == where
    assert not array.any()
    del array
    kill_pager(keeping)
    resident = keeping.full(SIZE * 8, 3.0)
    assert count(keeping, "pglazyfreed") == 16
    assert resident.sum() == 24 * SIZE


def test_blocks_are_made_and_freed_while_pagers_are_killed(keeping: Memory) -> None:
    resident = [np.full(SIZE, number) for number in range(6)]
    for step in range(30):
        if step % 5 == 4:
            kill_pager(keeping)
        arrays = [np.zeros(SIZE), np.empty(SIZE), np.zeros(SIZE)]
        assert not arrays[0].any()
        assert not arrays[2].any()
        for array in arrays:
            array[:] = step + 1
        assert [array.sum() for array in arrays] == [(step + 1) * SIZE] * 3
    assert [array.sum() for array in resident] == [number * SIZE for number in range(6)]


def test_a_block_that_a_child_has_is_not_kept(keeping: Memory, steps: Steps) -> None:
    arrays = [np.full(SIZE, 5.0)]

    def child() -> bool:
        steps.turn()
        return bool((arrays[0] == 5).all())

    pid = forked(child)
    try:
        arrays.clear()
        assert kept(keeping) == (0, 0)
        assert np.ones(SIZE).sum() == SIZE
    finally:
        steps.go_on()
    assert status_of(pid) == 0


def test_a_block_that_was_kept_before_a_fork_is_freed_behind_it(keeping: Memory) -> None:
    array = np.ones(SIZE)
    del array
    assert kept(keeping)[0] == 1

    def child() -> bool:
        made = [np.ones(SIZE) for _ in range(3)]  # plain memory
        made.clear()
        return True

    pid = forked(child)
    assert status_of(pid) == 0
    wait_for(keeping, 1)
    other = np.ones(SIZE)
    assert other.sum() == SIZE
    assert kept(keeping) == (0, 0)
    assert count(keeping, "cow_copies") == 0
    where = address(other)
    del other
    assert address(np.ones(SIZE)) == where  # made behind the fork, so it is kept


def test_a_child_neither_keeps_nor_takes_blocks_of_its_parent(keeping: Memory) -> None:
    live = [np.full(SIZE, 5.0)]
    freed = np.ones(SIZE)
    where = address(freed)
    del freed

    def child() -> bool:
        live.clear()
        mine = np.zeros(SIZE)
        return address(mine) != where and not mine.any()

    assert status_of(forked(child)) == 0
    assert live[0].sum() == 5 * SIZE


# -- the end ----------------------------------------------------------------------------------------------------------


def test_a_memory_closes_with_blocks_kept() -> None:
    memory = Memory("dram=8MiB, zstd=8MiB")
    with memory.numpy("64KiB"):
        array = np.ones(SIZE)
        del array
        assert kept(memory)[0] == 1
    memory.close()
    assert memory._regions.session.closed


def test_a_memory_that_is_being_closed_keeps_nothing() -> None:
    memory = Memory("dram=8MiB, zstd=8MiB")
    with memory.numpy("64KiB"):
        array = np.ones(SIZE)
    memory.close()
    assert array.sum() == SIZE
    del array
    assert memory._regions.session.closed


def test_there_is_an_end_to_how_many_memories_have_bins() -> None:
    """Those beyond do without, and those that come when some are closed have them."""
    opened = [ctypes.c_void_p() for _ in range(80)]
    binned = bins.Binned()
    library = bins.library()
    for each in opened:
        library.tc_bins_open(ctypes.byref(binned), ctypes.byref(each))
    have = [each for each in opened if each.value]
    assert 0 < len(have) <= 64
    assert not opened[-1].value
    library.tc_bins_close(have[0])
    again = ctypes.c_void_p()
    library.tc_bins_open(ctypes.byref(binned), ctypes.byref(again))
    assert again.value == have[0].value
    for each in have:
        library.tc_bins_close(each)


def test_a_child_that_frees_before_we_know_of_the_fork_tells_its_parent_nothing(script: Script) -> None:
    """A hook that was registered first runs first."""
    path = script("""
        import os
        freed_in_child = []
        os.register_at_fork(after_in_child=freed_in_child.clear)
        import numpy as np
        from thermocline import Memory
        memory = Memory("dram=8MiB, zstd=8MiB")
        with memory.numpy("64KiB"):
            freed_in_child.append(np.ones(100_000))
            pid = os.fork()
            if not pid:
                os._exit(0)
            os.waitpid(pid, 0)
            tables = memory._regions.session.tables
            print(memory.stat()["freed"]["blocks"], any(tables.lazyfree_blocks), any(tables.page_columns["lazyfree"]))
            print(freed_in_child[0].sum())
            freed_in_child.clear()
        memory.close()
    """)
    done = subprocess.run([sys.executable, path], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "0 False False\n100000.0\n", "")
