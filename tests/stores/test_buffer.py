from __future__ import annotations

import ctypes
import mmap

import pytest

from thermocline.live.buffer import Buffer


@pytest.mark.parametrize("size", [1, 4096, 65536 + 32])
def test_its_address_is_that_of_its_view_and_page_aligned(size: int) -> None:
    buffer = Buffer(size)
    assert buffer.size == len(buffer.view) == size
    assert buffer.address % mmap.PAGESIZE == 0
    buffer.view[size - 1] = 42
    assert ctypes.string_at(buffer.address + size - 1, 1) == b"\x2a"
    buffer.close()


def test_it_begins_as_zeros() -> None:
    buffer = Buffer(8192)
    assert buffer.view == bytes(8192)
    buffer.close()


def is_mapped(address: int) -> bool:
    with open("/proc/self/maps") as maps:
        spans = [[int(end, 16) for end in line.split()[0].split("-")] for line in maps]
    return any(start <= address < end for start, end in spans)


def test_close_unmaps_it() -> None:
    buffer = Buffer(64 << 20)
    address = buffer.address
    assert is_mapped(address)
    buffer.close()
    assert not is_mapped(address)


def test_a_slice_still_held_stays_readable_and_is_the_last_to_go() -> None:
    buffer = Buffer(64 << 20)
    address = buffer.address
    held = buffer.view[:8]
    buffer.close()
    assert held == bytes(8)
    del buffer, held
    assert not is_mapped(address)
