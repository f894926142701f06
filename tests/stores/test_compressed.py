from __future__ import annotations

import errno
import os
import resource
from collections.abc import Callable

import numpy as np
import pytest
from shelf import Shelf, page

from thermocline.errors import StoreError

PAGE = 65536


@pytest.fixture(params=("lz4", "zstd"))
def shelf(request: pytest.FixtureRequest, shelves: Callable[..., Shelf]) -> Shelf:
    return shelves(request.param, PAGE)


def test_the_memory_is_named_after_the_codec(shelf: Shelf) -> None:
    (fd,) = shelf.descriptors
    assert f"thermocline-{shelf.spec.codec}" in os.readlink(f"/proc/self/fd/{fd}")


def test_a_page_that_does_not_shrink_is_charged_more_than_a_page(shelf: Shelf) -> None:
    rng = np.random.default_rng(0)
    assert PAGE < shelf.write(shelf.reserve(), rng.bytes(PAGE)) < PAGE + 512
    assert PAGE < shelf.write(shelf.reserve(), rng.bytes(PAGE - 2000) + bytes(2000)) < PAGE + 512
    assert shelf.write(shelf.reserve(), rng.bytes(PAGE // 2) + bytes(PAGE // 2)) < PAGE * 5 // 8


def test_pages_of_numbers_shrink_as_a_shuffle_lets_them(shelf: Shelf) -> None:
    """One region a kind of content, in turn: each with the filter that suits it."""
    rng = np.random.default_rng(0)
    kinds = {
        1.28: lambda: np.cumsum(rng.normal(size=PAGE // 4)).astype("f4").tobytes(),
        2.5: lambda: np.sort(rng.integers(0, 10**9, PAGE // 8)).tobytes(),
        3.0: lambda: rng.integers(0, 10**6, PAGE // 8).tobytes(),
        20.0: lambda: np.repeat(rng.integers(0, 9, PAGE // 800 + 1), 100)[: PAGE // 8].astype("f8").tobytes(),
    }
    for _ in range(5):
        for hint, (ratio, make) in enumerate(kinds.items()):
            slot = shelf.reserve()
            assert PAGE / shelf.write(slot, make(), hint) > ratio
            shelf.drop(slot)


def test_rows_that_are_alike_and_longer_than_a_block_are_packed_as_one(shelf: Shelf) -> None:
    """As the squares of a centred matrix: to a codec that sees a row at a time it is noise."""
    rng = np.random.default_rng(0)
    row = rng.random(4000, "f4")
    for start in range(0, 40 * PAGE, PAGE):
        rows = np.resize(row, (start + PAGE) // 4)[start // 4 :].copy()
        rows[rng.integers(0, len(rows), 60)] = 0
        slot = shelf.reserve()
        assert PAGE / shelf.write(slot, rows.tobytes()) > 2.5
        assert shelf.get(slot) == rows.tobytes()
        shelf.store.read_part(slot, shelf.buffer, 0, 20480, 4096)
        assert bytes(shelf.buffer.view[20480:24576]) == rows.tobytes()[20480:24576]
        shelf.drop(slot)


def test_a_slot_written_again_without_room_for_both_keeps_what_it_had(shelf: Shelf) -> None:
    kept = shelf.fill(0)
    slot, content = next((slot, content) for slot, content in kept.items() if shelf.charged[slot] > PAGE)
    noise = np.random.default_rng(0).bytes(PAGE)
    with pytest.raises(StoreError) as caught:
        while True:
            shelf.write(shelf.reserve() if shelf.has_room else slot, noise)
    assert caught.value.errno == errno.ENOSPC
    assert shelf.get(slot) == content


def test_pages_of_two_mebibytes(shelves: Callable[..., Shelf]) -> None:
    shelf = shelves("zstd", 2 << 20, room=4)
    contents = [page(seed, 2 << 20) for seed in (0, 1, 2)] + [np.arange(1 << 18).tobytes()]
    slots = [shelf.put(content) for content in contents if shelf.has_room]
    assert [shelf.get(slot) for slot in slots] == contents[: len(slots)]
    assert len(slots) >= 3


def test_where_there_is_no_descriptor_to_be_had_the_error_is_ours(shelf: Shelf) -> None:
    _, hard = limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    try:
        with pytest.raises(StoreError) as caught:
            shelf.kind.create(shelf.spec, PAGE, 100)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert caught.value.errno == errno.EMFILE
    assert str(shelf.spec.codec) in caught.value.strerror
