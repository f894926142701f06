from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import random
from collections.abc import Iterator

import pytest

from thermocline.errors import StoreError
from thermocline.live.stores.pool import RECORD, TRIM_PAGES, WORD, Pool

MOST = 4096
QUANTUM = 64
CAPACITY = 64 * QUANTUM + 24  # not a multiple of anything
F_GET_SEALS, SEAL_SEAL, SEAL_SHRINK, SEAL_GROW = 1034, 1, 2, 4


@pytest.fixture
def fd() -> Iterator[int]:
    fd = Pool.create("thermocline-test", CAPACITY, 100)
    yield fd
    os.close(fd)


@pytest.fixture
def pool(fd: int) -> Iterator[Pool]:
    pool = Pool(fd, CAPACITY, MOST, 100)
    yield pool
    pool.close()


def put(pool: Pool, data: bytes) -> int:
    slot = pool.reserve()
    pool.write(slot, memoryview(data))
    return slot


def get(pool: Pool, slot: int) -> bytes:
    return ctypes.string_at(*pool.find(slot))


def noise(seed: int, length: int) -> bytes:
    return random.Random(seed).randbytes(length)


@pytest.mark.parametrize("length", [1, 55, 56, 57, 63, 64, 1000, 4000])
def test_data_of_any_length_is_charged_whole_quanta_and_a_record(pool: Pool, length: int) -> None:
    slot = pool.reserve()
    charged = pool.write(slot, memoryview(noise(length, length)))
    assert charged == -(-(length + WORD) // QUANTUM) * QUANTUM + RECORD
    assert get(pool, slot) == noise(length, length)


def test_an_item_without_a_large_enough_hole_is_cut_in_pieces(pool: Pool) -> None:
    """Single quanta are free everywhere, and one item fills them all: the worst case that `item_bytes` names."""
    slots = [put(pool, noise(n, 56)) for n in range(64)]
    for slot in slots[::2]:
        pool.release(slot)
    data = noise(1000, 32 * 56)
    slot = pool.reserve()
    assert pool.write(slot, memoryview(data)) == 32 * QUANTUM + RECORD == pool.size(slot)
    assert get(pool, slot) == data
    assert [get(pool, slot) for slot in slots[1::2]] == [noise(n, 56) for n in range(1, 64, 2)]
    pool.release(slot)
    assert get(pool, put(pool, noise(7, 32 * 56))) == noise(7, 32 * 56)


def test_the_worst_case_of_an_item(pool: Pool) -> None:
    assert pool.item_bytes == -(-MOST // 56) * QUANTUM + RECORD


def test_a_full_pool_says_so_and_keeps_what_it_has(pool: Pool) -> None:
    slots = [put(pool, noise(n, 56)) for n in range(60)]
    slot = put(pool, noise(60, 100))
    with pytest.raises(StoreError) as caught:
        pool.write(slot, memoryview(noise(61, 200)))
    assert caught.value.errno == errno.ENOSPC
    assert get(pool, slot) == noise(60, 100)
    assert [get(pool, slot) for slot in slots] == [noise(n, 56) for n in range(60)]
    assert pool.write(slot, memoryview(noise(62, 2 * QUANTUM - WORD))) == 2 * QUANTUM + RECORD


def test_an_empty_slot_holds_nothing(pool: Pool) -> None:
    slot = put(pool, b"once")
    pool.release(slot)
    assert pool.reserve() == slot
    assert pool.size(slot) == pool.item_bytes
    with pytest.raises(StoreError) as caught:
        pool.find(slot)
    assert caught.value.errno == errno.EIO


def test_a_successor_finds_items_in_pieces(fd: int, pool: Pool) -> None:
    slots = [put(pool, noise(n, 56)) for n in range(64)]
    for slot in slots[::2]:
        pool.release(slot)
    slots = [*slots[1::2], put(pool, noise(1000, 700))]
    expected = [get(pool, slot) for slot in slots]
    successor = Pool(fd, CAPACITY, MOST, 100)
    successor.recover(slots)
    assert [get(successor, slot) for slot in slots] == expected
    rest = 32 * 56 - 13 * 56
    assert get(successor, put(successor, noise(1, rest))) == noise(1, rest)
    assert [get(successor, slot) for slot in slots] == expected
    successor.close()


def test_a_slot_that_a_predecessor_left_written_is_empty_when_reserved(fd: int, pool: Pool) -> None:
    put(pool, b"kept")
    put(pool, b"forgotten")
    successor = Pool(fd, CAPACITY, MOST, 100)
    successor.recover([1])
    assert successor.reserve() == 2
    assert successor.size(2) == successor.item_bytes
    successor.close()


def test_a_damaged_table_costs_its_item_and_no_other(fd: int, pool: Pool) -> None:
    slots = [put(pool, noise(n, 56)) for n in range(2)]
    pool_bytes = 2 * 4096
    entry = os.pread(fd, 8, pool_bytes + RECORD)
    for damage in (entry, (1 << 40 | 56).to_bytes(8, "little")):  # the other's piece; a piece beyond the end
        os.pwrite(fd, damage, pool_bytes + 2 * RECORD)
        pool.recover(slots)
        with pytest.raises(StoreError) as caught:
            pool.find(2)
        assert caught.value.errno == errno.EBADMSG
        assert get(pool, 1) == noise(0, 56)
    assert pool.size(2) == RECORD
    pool.release(2)
    # Its room is free again for a successor, who asks the table; and the first page's never was.
    pool.recover([1])
    slots = [put(pool, noise(n, 56)) for n in range(63)]
    assert get(pool, 1) == noise(0, 56)
    assert [get(pool, slot) for slot in slots] == [noise(n, 56) for n in range(63)]


def test_the_memory_can_be_neither_resized_nor_opened_by_others(fd: int) -> None:
    with pytest.raises(PermissionError):
        os.ftruncate(fd, 0)
    with pytest.raises(PermissionError):
        os.ftruncate(fd, 1 << 20)
    assert fcntl.fcntl(fd, F_GET_SEALS) == SEAL_SEAL | SEAL_SHRINK | SEAL_GROW
    assert os.fstat(fd).st_mode & 0o777 == 0o600
    assert "thermocline-test" in os.readlink(f"/proc/self/fd/{fd}")


def test_only_memory_that_was_written_is_held() -> None:
    fd = Pool.create("thermocline-test", 1 << 40, 1 << 30)
    pool_bytes = 1 << 24
    os.close(fd)
    fd = Pool.create("thermocline-test", pool_bytes, 1 << 20)
    pool = Pool(fd, pool_bytes, 65536, 1 << 20)
    assert os.fstat(fd).st_blocks == 0
    put(pool, noise(1, 30000))
    assert os.fstat(fd).st_blocks * 512 == 8 * 4096 + 4096
    pool.close()
    os.close(fd)


def test_one_trim_is_bounded_and_the_next_goes_on() -> None:
    size = 3 * TRIM_PAGES * 4096
    fd = Pool.create("thermocline-test", size, 1000)
    pool = Pool(fd, size, 65536, 1000)
    slots = [put(pool, noise(1, 65000)) for _ in range(180)]
    for slot in slots:
        pool.release(slot)
    trims = []
    while returned := pool.trim():
        trims.append(returned)
    assert trims[:2] == [TRIM_PAGES * 4096] * 2
    assert len(trims) == 3
    assert os.fstat(fd).st_blocks * 512 == 2 * 4096  # the table
    pool.close()
    os.close(fd)
