"""A fork stops the writers of every page that may have been written since the last one, and passes over the others."""

from __future__ import annotations

import mmap
import os
import struct
from collections.abc import Callable, Iterator

import pytest

from conftest import ARENA_PAGES, PAGE, mapped
from thermocline.live.arena import Arena
from thermocline.live.buffer import Buffer

#: An entry of /proc/PID/pagemap: its size, and the bits for a page that is mapped, and one whose writers are stopped.
_ENTRY, _PRESENT, _WRITE_PROTECTED = 8, 1 << 63, 1 << 57


def writers_are_stopped(arena: Arena, page: int) -> bool:
    """Whether a write to any base page of a page that is there would be a fault, by the kernel's account."""
    first, count = (arena.address + page * PAGE) // mmap.PAGESIZE, PAGE // mmap.PAGESIZE
    fd = os.open("/proc/self/pagemap", os.O_RDONLY)
    try:
        entries = struct.unpack(f"<{count}Q", os.pread(fd, count * _ENTRY, first * _ENTRY))
    finally:
        os.close(fd)
    present = [entry for entry in entries if entry & _PRESENT]
    assert present
    return all(entry & _WRITE_PROTECTED for entry in present)


@pytest.fixture(params=["alone", "beside a guest"])
def shared(arena: Arena, request: pytest.FixtureRequest) -> Iterator[Arena]:
    """An arena that one process has mapped, or two have."""
    if request.param == "alone":
        yield arena
        return
    with mapped(arena.fd) as guest:
        arena.attach(guest)
        yield arena


@pytest.fixture
def ones() -> Iterator[Buffer]:
    made = Buffer(PAGE)
    made.view[:] = b"\1" * PAGE
    yield made
    made.close()


def install(arena: Arena, page: int, ones: Buffer, *, protect: bool = False) -> None:
    arena.install(page * PAGE, PAGE, ones, 0, protect=protect)


#: What makes pages writable after a fork.
WRITABLE: dict[str, Callable[[Arena, int, Buffer], object]] = {
    "let go": lambda arena, page, _: arena.unprotect(page, 1),
    "brought up": lambda arena, page, ones: (arena.punch(page, 1), install(arena, page, ones)),
    "zeros": lambda arena, page, _: (arena.punch(page, 1), arena.install_zeros(page * PAGE, PAGE)),
    "a part": lambda arena, page, ones: (
        arena.punch(page, 1),
        arena.install(page * PAGE, PAGE - mmap.PAGESIZE, ones, 0, protect=True),
        arena.install((page + 1) * PAGE - mmap.PAGESIZE, mmap.PAGESIZE, ones, 0, protect=False),
    ),
    "lost, but for a part": lambda arena, page, ones: (
        arena.punch(page, 1),
        arena.install(page * PAGE, mmap.PAGESIZE, ones, 0, protect=True),
        arena.poison(page),
    ),
}


@pytest.mark.parametrize("how", WRITABLE)
def test_a_fork_stops_the_writers_of_what_became_writable(shared: Arena, ones: Buffer, how: str) -> None:
    arena = shared
    for page in range(ARENA_PAGES):
        install(arena, page, ones)
    arena.protect_present()
    assert all(writers_are_stopped(arena, page) for page in range(ARENA_PAGES))
    WRITABLE[how](arena, 3, ones)
    assert [page for page in range(ARENA_PAGES) if not writers_are_stopped(arena, page)] == [3]
    arena.protect_present()
    assert all(writers_are_stopped(arena, page) for page in range(ARENA_PAGES))


def test_what_nothing_has_written_since_the_last_fork_is_passed_over(arena: Arena, ones: Buffer) -> None:
    for page in range(ARENA_PAGES):
        install(arena, page, ones)
    arena.protect_present()
    arena.unprotect(2, 1)
    arena.mappings[0].unprotect(5, 1)  # behind its back, to see what it does
    arena.protect_present()
    assert [page for page in range(ARENA_PAGES) if not writers_are_stopped(arena, page)] == [5]


def test_a_fork_stops_the_writers_of_all_that_is_there_however_it_is_scattered() -> None:
    table = (2 << 20) // PAGE  # pages that a page table maps
    pages = 4 * table
    there = {0, 5, table - 1, table, 3 * table + 2, pages - 1}
    fd = os.memfd_create("arena", os.MFD_CLOEXEC)
    os.ftruncate(fd, pages * PAGE)
    for page in there:
        os.pwrite(fd, b"\1", page * PAGE)
    arena = Arena(fd, PAGE, [])
    stopped: list[int] = []
    for first, count in arena.writable_runs():
        stopped += range(first, first + count)
    assert there <= set(stopped)
    assert not set(stopped) & set(range(2 * table, 3 * table)), "a page table is made where nothing is"
    assert stopped == sorted(set(stopped))
    arena.stopped[5] = arena.stopped[table] = 1
    assert not {5, table} & {page for first, count in arena.writable_runs() for page in range(first, first + count)}
    os.close(fd)
