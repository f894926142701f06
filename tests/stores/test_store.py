"""What every store promises: one suite, run against each."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable

import numpy as np
import pytest
from shelf import Shelf, page

from thermocline.errors import StoreError
from thermocline.live.buffer import Buffer

CONTENTS: dict[str, Callable[[int], bytes]] = {
    "zeros": bytes,
    "one byte": lambda size: bytes(size - 1) + b"\1",
    "text": lambda size: (b"The thermocline parts warm water from cold. " * size)[:size],
    "float32": lambda size: np.cumsum(np.random.default_rng(1).normal(size=size // 4)).astype("f4").tobytes(),
    "int64": lambda size: np.arange(size // 8).tobytes(),
    "random": lambda size: np.random.default_rng(2).bytes(size),
}


@pytest.mark.parametrize("content", CONTENTS)
def test_a_page_reads_back_as_it_was_written(shelf: Shelf, content: str) -> None:
    expected = CONTENTS[content](shelf.page_size)
    slots = [shelf.put(expected, hint) for hint in (0, 0, 0, 1, 1 << 40)]
    assert all(shelf.get(slot) == expected for slot in slots)


def test_a_read_fills_its_page_and_nothing_beside_it(shelf: Shelf) -> None:
    slot = shelf.put(page(1, shelf.page_size))
    buffer = Buffer(3 * shelf.page_size)
    buffer.view[:] = b"\xa5" * buffer.size
    shelf.store.read(slot, buffer, shelf.page_size)
    around = bytes(buffer.view[: shelf.page_size]) + bytes(buffer.view[2 * shelf.page_size :])
    middle = bytes(buffer.view[shelf.page_size : 2 * shelf.page_size])
    buffer.close()
    assert middle == page(1, shelf.page_size)
    assert around == b"\xa5" * (2 * shelf.page_size)


@pytest.mark.parametrize("offset", [-1, 1, 1 << 40])
def test_a_page_outside_the_buffer_is_refused(shelf: Shelf, offset: int) -> None:
    slot = shelf.put(page(1, shelf.page_size))
    beyond = shelf.page_size + offset if offset > 0 else offset
    with pytest.raises(ValueError, match="no whole page"):
        shelf.store.read(slot, shelf.buffer, beyond)
    with pytest.raises(ValueError, match="no whole page"):
        shelf.store.write(slot, shelf.buffer, beyond)


def test_slots_are_small_numbers_from_one_on(shelf: Shelf) -> None:
    assert [shelf.reserve() for _ in range(8)] == list(range(1, 9))


def test_a_released_slot_is_handed_out_again_and_no_other_is(shelf: Shelf) -> None:
    slots = [shelf.put(page(seed, shelf.page_size)) for seed in range(4)]
    for slot in (slots[2], slots[0]):
        shelf.drop(slot)
    assert sorted((shelf.reserve(), shelf.reserve())) == [slots[0], slots[2]]
    assert shelf.get(slots[1]) == page(1, shelf.page_size)


def test_all_slots_can_be_released_and_reserved_anew(shelf: Shelf) -> None:
    for _ in range(3):
        slots = [shelf.reserve() for _ in range(5)]
        assert sorted(slots) == [1, 2, 3, 4, 5]
        for slot in slots:
            shelf.drop(slot)


def test_a_reserved_slot_is_charged_the_worst_case(shelf: Shelf) -> None:
    assert shelf.store.size(shelf.reserve()) == shelf.store.slot_bytes == shelf.kind.worst_case(shelf.page_size)


def test_writing_again_replaces(shelf: Shelf) -> None:
    slot = shelf.reserve()
    for seed in range(40):
        shelf.write(slot, page(seed, shelf.page_size), hint=seed % 5)
        assert shelf.get(slot) == page(seed, shelf.page_size)


def test_no_more_slots_than_there_can_be_pages(kind: str, page_size: int, shelves: Callable[..., Shelf]) -> None:
    shelf = shelves(kind, page_size, pages=3)
    for _ in range(3):
        shelf.reserve()
    with pytest.raises(StoreError) as caught:
        shelf.store.reserve()
    assert caught.value.errno == errno.ENOSPC


def test_within_its_capacity_a_store_never_refuses(shelf: Shelf) -> None:
    """Fill, release every other page, fill again, and again: free space falls to pieces, and all of it serves."""
    kept: dict[int, bytes] = {}
    for generation in range(6):
        kept |= shelf.fill(1000 * generation)
        for slot in list(kept)[generation % 2 :: 2]:
            assert shelf.get(slot) == kept.pop(slot)
            shelf.drop(slot)
    assert all(shelf.get(slot) == content for slot, content in kept.items())


def test_emptied_it_holds_as_much_as_when_it_was_new(shelf: Shelf) -> None:
    first = shelf.fill(0)
    for slot in list(first)[::-1]:
        shelf.drop(slot)
    assert len(shelf.fill(0)) == len(first)


def test_a_successor_finds_what_was_written(shelf: Shelf) -> None:
    kept = shelf.fill(0)
    shelf.succeed(kept)
    assert all(shelf.get(slot) == content for slot, content in kept.items())


def test_a_successor_has_the_room_of_what_it_was_not_told_of(shelf: Shelf) -> None:
    kept = shelf.fill(0)
    for slot in list(kept)[1::2]:
        del kept[slot]
    shelf.succeed(kept)
    kept |= shelf.fill(1000)
    assert all(shelf.get(slot) == content for slot, content in kept.items())
    assert not shelf.has_room


def test_a_successor_refuses_slots_that_cannot_be(shelf: Shelf) -> None:
    shelf.put(page(1, shelf.page_size))
    for wrong in (0, 1 << 30):
        with pytest.raises(StoreError) as caught:
            shelf.store.recover([1, wrong])
        assert caught.value.errno == errno.EIO


def test_a_slot_that_was_never_written_is_a_lost_page_for_a_successor(shelf: Shelf) -> None:
    """As one whose record has rotted to nothing: no reason to let the others go as well."""
    content = page(1, shelf.page_size)
    shelf.put(content)
    shelf.succeed([1, 2])
    with pytest.raises(StoreError):
        shelf.get(2)
    assert shelf.get(1) == content
    assert 0 < shelf.store.size(2) <= shelf.store.slot_bytes
    shelf.drop(2)
    assert shelf.get(shelf.put(content)) == content


def test_recovering_nothing_empties_the_store(shelf: Shelf) -> None:
    count = len(shelf.fill(0))
    shelf.succeed(())
    assert len(shelf.fill(0)) == count


def test_trim_gives_released_room_back_to_the_kernel(shelf: Shelf) -> None:
    kept = shelf.fill(0)
    table = -(-24 * (1 + len(kept)) // 4096) * 4096  # three words a slot, where there is a table: it stays
    full = shelf.blocks
    for slot in list(kept)[: len(kept) // 2]:
        del kept[slot]
        shelf.drop(slot)
    returned = shelf.trim()
    assert returned > 0
    if shelf.exact:
        assert shelf.blocks == full - returned
    assert shelf.blocks <= full * 3 // 4
    assert all(shelf.get(slot) == content for slot, content in kept.items())
    for slot in kept:
        shelf.drop(slot)
    shelf.trim()
    assert shelf.blocks <= (table if shelf.exact else full // 4)


def test_trim_returns_room_once(shelf: Shelf) -> None:
    kept = shelf.fill(0)
    assert not shelf.trim()
    for slot in kept:
        shelf.drop(slot)
    assert shelf.trim()
    assert not shelf.trim()
    assert len(shelf.fill(0)) == len(kept)
    assert not shelf.trim()


@pytest.mark.parametrize("which", [0, -1], ids=("first", "last"))
def test_a_successor_trims_what_its_predecessor_left(shelf: Shelf, which: int) -> None:
    kept = shelf.fill(0)
    table = -(-24 * (1 + len(kept)) // 4096) * 4096
    full = shelf.blocks
    slot = sorted(kept)[which]
    shelf.succeed([slot])
    shelf.trim()
    assert shelf.blocks <= (shelf.store.slot_bytes + 2 * 4096 + table if shelf.exact else full // 2)
    assert shelf.get(slot) == kept[slot]
    shelf.succeed([])
    shelf.trim()
    assert shelf.blocks <= (table if shelf.exact else full // 4)


def test_closing_leaves_the_descriptors_and_the_bytes(shelf: Shelf) -> None:
    slot = shelf.put(page(1, shelf.page_size))
    shelf.store.close()
    shelf.store = shelf.open()
    shelf.store.recover([slot])
    assert shelf.get(slot) == page(1, shelf.page_size)


def test_descriptors_do_not_pass_to_other_programs(shelf: Shelf) -> None:
    assert not any(os.get_inheritable(fd) for fd in shelf.descriptors)
