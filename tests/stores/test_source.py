from __future__ import annotations

import errno
import os
import random
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from thermocline.errors import StoreError
from thermocline.live.buffer import Buffer
from thermocline.live.stores import SourceStore

HEADER = 128  # as in a .npy file


@pytest.fixture(params=(4096, 65536), ids=("4KiB", "64KiB"))
def page_size(request: pytest.FixtureRequest) -> int:
    return int(request.param)


@pytest.fixture
def data(page_size: int) -> bytes:
    """Three and a half pages, a tail that is not part of the array, and no alignment anywhere."""
    return random.Random(0).randbytes(3 * page_size + page_size // 2 + 3)


@pytest.fixture
def path(tmp_path: Path, data: bytes) -> Path:
    path = tmp_path / "array.npy"
    path.write_bytes(b"H" * HEADER + data + b"tail" * 100)
    return path


@pytest.fixture
def store(path: Path, data: bytes, page_size: int) -> Iterator[SourceStore]:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    yield SourceStore(fd, HEADER, len(data), page_size)
    os.close(fd)


def read(store: SourceStore, slot: int, page_size: int) -> bytes:
    with closing(Buffer(3 * page_size)) as buffer:
        buffer.view[:] = b"\xa5" * buffer.size
        store.read(slot, buffer, page_size)
        content = bytes(buffer.view)
    assert content[:page_size] == content[2 * page_size :] == b"\xa5" * page_size
    return content[page_size : 2 * page_size]


def test_slots_are_the_pages_of_the_file_and_zeros_beyond(store: SourceStore, data: bytes, page_size: int) -> None:
    pages = b"".join(read(store, slot, page_size) for slot in range(1, 7))
    assert pages == data.ljust(6 * page_size, b"\0")


def test_nothing_is_charged_and_nothing_is_kept(store: SourceStore, page_size: int) -> None:
    assert store.slow
    assert store.slot_bytes == store.size(1) == store.trim() == 0
    store.release(1)
    store.recover([1, 2, 3])
    store.close()
    assert read(store, 1, page_size)


def test_it_is_read_only(store: SourceStore, page_size: int, path: Path) -> None:
    before = path.read_bytes()
    with closing(Buffer(page_size)) as buffer, pytest.raises(StoreError) as caught:
        store.write(1, buffer, 0)
    assert caught.value.errno == errno.EROFS
    with pytest.raises(StoreError):
        store.reserve()
    assert path.read_bytes() == before


def test_a_file_that_became_shorter_is_an_error(store: SourceStore, data: bytes, page_size: int, path: Path) -> None:
    os.truncate(path, HEADER + 2 * page_size + 100)
    assert read(store, 2, page_size) == data[page_size : 2 * page_size]
    for slot in (3, 4):
        with pytest.raises(StoreError) as caught:
            read(store, slot, page_size)
        assert caught.value.errno == errno.EIO
        assert "ends at byte" in caught.value.strerror
        del caught
    assert read(store, 5, page_size) == bytes(page_size)


def test_a_page_outside_the_buffer_is_refused(store: SourceStore, page_size: int) -> None:
    with closing(Buffer(page_size)) as buffer, pytest.raises(ValueError, match="no whole page"):
        store.read(1, buffer, 1)
