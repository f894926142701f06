"""Lists of pages that native threads pack: what comes out is what one packer makes of each page."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator

import pytest

from conftest import ARENA_PAGES, PAGE
from thermocline.live.arena import Arena
from thermocline.live.buffer import Buffer
from thermocline.live.jobs import UNREADABLE, ZEROS, Jobs
from thermocline.live.packing import Packing
from thermocline.live.ring import Bell
from thermocline.live.stores.compressed import CompressedStore
from thermocline.protocol.page import array_column
from thermocline.spec import Compressed

LIKE_NUMBERS = b"".join(number.to_bytes(8, "little") for number in range(PAGE // 8))
LIKE_TEXT = b"the quick brown fox jumps over the lazy dog; " * (PAGE // 45 + 1)
NOISE = random.Random(1).randbytes(PAGE)


@pytest.fixture
def store() -> Iterator[CompressedStore]:
    spec = Compressed(4 << 20)
    descriptors = CompressedStore.create(spec, PAGE, 64)
    made = CompressedStore(descriptors, spec, PAGE, 64)
    yield made
    made.close()
    for fd in descriptors:
        os.close(fd)


@pytest.fixture
def jobs() -> Iterator[Jobs]:
    bell = Bell(Bell.create(blocking=False))
    made = Jobs(bell)
    yield made
    made.close()
    os.close(bell.fd)


class Packed:
    """Pages, packed in two shares or more, and put into a store -> what the store says of them."""

    def __init__(self, store: CompressedStore, arena: Arena, jobs: Jobs, contents: list[bytes | None]) -> None:
        size = len(contents) * PAGE
        self.buffer, self.packed = Buffer(size), Buffer(size)
        places: list[int | None] = []
        for page, content in enumerate(contents):
            if content is None:
                places.append(None)
            else:
                os.pwrite(arena.fd, content, page % ARENA_PAGES * PAGE)
                places.append(page % ARENA_PAGES * PAGE)
        pages = range(len(contents))
        self.packing = Packing(store, arena, pages, places, [0] * len(contents), self.buffer, self.packed, threads=2)
        done: list[bool] = []
        for job in self.packing.jobs:
            jobs.run(job, lambda: done.append(True))
        jobs.drain()
        for then in jobs.finished():
            then()
        assert len(done) == len(self.packing.jobs)

    def finish(self, lost: tuple[int, ...] = ()) -> list[int]:
        """The lengths."""
        if self.packing.learn(lost):
            self.packing.pack_again(array_column("Q", 1))
        self.packing.close()
        return self.packing.lengths

    def unpacked(self, store: CompressedStore, index: int) -> bytes:
        slot = store.reserve()
        source, length = self.packing.found(index)
        store.write_packed(slot, source, index * PAGE, length)
        page = Buffer(PAGE)
        store.read(slot, page, 0)
        return bytes(page.view)


@pytest.mark.parametrize("content", [LIKE_NUMBERS, LIKE_TEXT[:PAGE], NOISE], ids=["numbers", "text", "noise"])
def test_pages_that_are_alike_come_back_as_they_were(
    content: bytes, store: CompressedStore, arena: Arena, jobs: Jobs
) -> None:
    packed = Packed(store, arena, jobs, [content] * ARENA_PAGES)
    lengths = packed.finish()
    for index in range(ARENA_PAGES):
        assert packed.unpacked(store, index) == content
    alone = Buffer(PAGE)
    alone.view[:] = content
    packer = store.take_packer()
    assert set(lengths) == {len(packer.pack(alone.address, 1))}, "each is packed as the first one is, in all ways"
    store.put_packer(packer)


def test_an_array_whose_first_page_is_zeros_is_still_to_be_met(
    store: CompressedStore, arena: Arena, jobs: Jobs
) -> None:
    """What is known of the pages of an array begins with one that is packed."""
    lengths = Packed(store, arena, jobs, [bytes(PAGE), LIKE_NUMBERS, LIKE_NUMBERS]).finish()
    assert lengths[0] == ZEROS
    assert lengths[1] == lengths[2] > 0


def test_what_is_unlike_the_pages_before_it_is_packed_otherwise(
    store: CompressedStore, arena: Arena, jobs: Jobs
) -> None:
    Packed(store, arena, jobs, [LIKE_NUMBERS] * ARENA_PAGES).finish()
    contents: list[bytes | None] = [LIKE_NUMBERS, LIKE_TEXT[:PAGE], NOISE, LIKE_NUMBERS]
    packed = Packed(store, arena, jobs, contents)
    packed.finish()
    assert [packed.unpacked(store, index) for index in range(4)] == contents


def test_pages_of_zeros_and_pages_that_cannot_be_read_are_told_apart(
    store: CompressedStore, arena: Arena, jobs: Jobs
) -> None:
    packed = Packed(store, arena, jobs, [bytes(PAGE), None, LIKE_NUMBERS, None])
    lengths = packed.finish(lost=(1,))
    assert lengths[:2] == [ZEROS, UNREADABLE]
    assert lengths[2] > 0
    assert lengths[3] == ZEROS, "what was there was read by others, and their buffer was empty"


def test_a_page_behind_the_end_of_the_arena_is_unreadable(store: CompressedStore, arena: Arena, jobs: Jobs) -> None:
    buffer, packed = Buffer(PAGE), Buffer(PAGE)
    packing = Packing(store, arena, [0], [ARENA_PAGES * PAGE], [0], buffer, packed, threads=2)
    jobs.run(packing.jobs[0], lambda: None)
    jobs.drain()
    assert not packing.learn(())
    assert packing.lengths == [UNREADABLE]
    packing.close()


def test_a_long_list_is_shared_out(store: CompressedStore, arena: Arena, jobs: Jobs) -> None:
    assert len(Packed(store, arena, jobs, [LIKE_NUMBERS] * 32).packing.jobs) == 2
    assert len(Packed(store, arena, jobs, [LIKE_NUMBERS] * 4).packing.jobs) == 1
