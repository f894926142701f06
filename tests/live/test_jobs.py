"""Native threads of a pager: what their jobs do, and that changes of the mappings wait for them."""

from __future__ import annotations

import ctypes
import errno
import os
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest

from conftest import ARENA_PAGES, PAGE, mapped
from structures import in_c, in_python
from thermocline.live.arena import Arena
from thermocline.live.buffer import Buffer
from thermocline.live.jobs import FillJob, Job, Jobs, PackJob, PunchJob, _Packing
from thermocline.live.ring import Bell
from thermocline.live.stores.compressed import CompressedStore
from thermocline.spec import Compressed


@pytest.fixture
def bell() -> Iterator[Bell]:
    made = Bell(Bell.create(blocking=True))
    yield made
    os.close(made.fd)


@pytest.fixture
def jobs(bell: Bell) -> Iterator[Jobs]:
    made = Jobs(bell)
    yield made
    made.close()


@pytest.fixture
def store() -> Iterator[CompressedStore]:
    spec = Compressed(1 << 20)
    descriptors = CompressedStore.create(spec, PAGE, ARENA_PAGES)
    made = CompressedStore(descriptors, spec, PAGE, ARENA_PAGES)
    yield made
    made.close()
    for fd in descriptors:
        os.close(fd)


@pytest.fixture
def slots(store: CompressedStore) -> list[int]:
    """Of pages that are full of 1, of 2, and so on."""
    found = []
    buffer = Buffer(PAGE)
    for value in range(1, ARENA_PAGES + 1):
        buffer.view[:] = bytes([value]) * PAGE
        found.append(store.reserve())
        store.write(found[-1], buffer, 0)
    buffer.close()
    return found


def run(jobs: Jobs, bell: Bell, job: Job) -> Job:
    """Let a job be done, and wait for the bell."""
    done: list[bool] = []
    jobs.run(job, lambda: done.append(True))
    while not done:
        os.eventfd_read(bell.fd)
        for then in jobs.finished():
            then()
    return job


def bytes_at(arena: Arena, page: int) -> bytes:
    return ctypes.string_at(arena.address + page * PAGE, PAGE)


def fill(store: CompressedStore, slots: list[int], buffer: Buffer) -> FillJob:
    return FillJob.of(store.take_reader(), slots, buffer)


def test_the_structures_are_those_of_the_library() -> None:
    assert in_python(FillJob) == in_c("tc_fill_fields")
    assert in_python(PackJob) == in_c("tc_pack_fields")
    assert in_python(_Packing) == in_c("tc_packing_fields")
    assert in_python(PunchJob) == in_c("tc_punch_fields")


def test_a_run_comes_up(arena: Arena, jobs: Jobs, bell: Bell, store: CompressedStore, slots: list[int]) -> None:
    buffer = Buffer(4 * PAGE)
    job = fill(store, slots[2:6], buffer)
    assert arena.install_by(job, range(2, 6), [(2 * PAGE, 4 * PAGE)], protect=True)
    assert run(jobs, bell, job).error == 0
    assert [set(bytes_at(arena, page)) for page in range(2, 6)] == [{3}, {4}, {5}, {6}]
    assert arena.resident() == 4 * PAGE


def test_what_is_there_of_a_run_is_left_alone(
    arena: Arena, jobs: Jobs, bell: Bell, store: CompressedStore, slots: list[int]
) -> None:
    ones = Buffer(PAGE)
    ones.view[:] = b"\xff" * PAGE
    arena.install(PAGE // 2, PAGE // 2, ones, 0, protect=False)
    buffer = Buffer(2 * PAGE)
    job = fill(store, slots[:2], buffer)
    assert arena.install_by(job, range(2), [(0, PAGE // 2), (PAGE, PAGE)], protect=True)
    assert run(jobs, bell, job).error == 0
    assert bytes_at(arena, 0) == b"\1" * (PAGE // 2) + b"\xff" * (PAGE // 2)
    assert set(bytes_at(arena, 1)) == {2}


def test_pages_that_come_up_to_be_written_are_known_as_writable(
    arena: Arena, store: CompressedStore, slots: list[int]
) -> None:
    arena.stopped[:] = b"\1" * len(arena.stopped)
    arena.install_by(fill(store, slots[:2], Buffer(2 * PAGE)), range(2), [(0, 2 * PAGE)], protect=False)
    assert list(arena.stopped[:3]) == [0, 0, 1]


def test_an_item_that_is_not_what_was_written_is_not_brought_up(
    arena: Arena, jobs: Jobs, bell: Bell, store: CompressedStore, slots: list[int]
) -> None:
    store.release(slots[1])
    job = fill(store, slots[:2], Buffer(2 * PAGE))
    assert arena.install_by(job, range(2), [(0, 2 * PAGE)], protect=True)
    assert run(jobs, bell, job).error == errno.EBADMSG
    assert not job.was_read
    assert arena.resident() == 0


def test_where_several_processes_have_the_arena_it_is_only_read(
    arena: Arena, jobs: Jobs, bell: Bell, store: CompressedStore, slots: list[int]
) -> None:
    buffer = Buffer(PAGE)
    with mapped(arena.fd) as guest:
        arena.attach(guest)
        job = fill(store, slots[:1], buffer)
        assert not arena.install_by(job, range(1), [(0, PAGE)], protect=True)
        assert run(jobs, bell, job).error == 0
    assert job.was_read
    assert set(buffer.view) == {1}
    assert arena.resident() == 0


def test_what_cannot_be_installed_is_said(
    arena: Arena, jobs: Jobs, bell: Bell, store: CompressedStore, slots: list[int]
) -> None:
    job = fill(store, slots[:1], Buffer(PAGE))
    assert arena.install_by(job, range(1), [(0, PAGE)], protect=True)
    job.address = arena.address + ARENA_PAGES * PAGE  # where nothing is mapped, as of an array that is being freed
    assert run(jobs, bell, job).error in (errno.ENOENT, errno.EINVAL)
    assert job.was_read


def test_pages_are_punched(arena: Arena, jobs: Jobs, bell: Bell) -> None:
    for page in range(5):
        arena.install_zeros(page * PAGE, PAGE)
    assert run(jobs, bell, arena.punch_job([0, 1, 3])).error == 0
    assert [page for page, count in arena.present_runs() for page in range(page, page + count)] == [2, 4]


def test_a_change_of_the_mappings_waits_for_the_jobs(
    jobs: Jobs, bell: Bell, store: CompressedStore, slots: list[int]
) -> None:
    fd = os.memfd_create("arena", os.MFD_CLOEXEC)
    os.ftruncate(fd, ARENA_PAGES * PAGE)
    with mapped(fd) as mapping:
        arena = Arena(fd, PAGE, [mapping], jobs=jobs)
        for _ in range(50):
            job = fill(store, slots, Buffer(ARENA_PAGES * PAGE))
            assert arena.install_by(job, range(ARENA_PAGES), [(0, ARENA_PAGES * PAGE)], protect=False)
            jobs.run(job, lambda: None)
            arena.protect_present()
            # All of it was there by then, or a fork would have left pages writable that came up behind it.
            assert bytes(arena.stopped) == b"\1" * ARENA_PAGES
            assert arena.resident() == ARENA_PAGES * PAGE
            os.eventfd_read(bell.fd)
            for then in jobs.finished():
                then()
            arena.punch(0, ARENA_PAGES)
    os.close(fd)


def test_jobs_that_are_under_way_are_ended_with_their_threads(
    bell: Bell, store: CompressedStore, slots: list[int]
) -> None:
    jobs = Jobs(bell)
    buffers = [Buffer(ARENA_PAGES * PAGE) for _ in range(20)]
    for buffer in buffers:
        jobs.run(fill(store, slots, buffer), lambda: None)
    jobs.close()
    jobs.close()
    assert not jobs.threads


WITHOUT_THREADS = """
import os, resource
from thermocline.live.jobs import Jobs
from thermocline.live.ring import Bell

os.setresuid(65534, 65534, 65534)
resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))
jobs = Jobs(Bell(Bell.create(blocking=True)))
print(jobs.threads)
jobs.close()
"""


@pytest.mark.skipif(os.getuid() != 0, reason="root alone can become a user who may have no threads")
def test_where_no_thread_may_be_started_there_is_none() -> None:
    done = subprocess.run([sys.executable, "-c", WITHOUT_THREADS], capture_output=True, text=True, check=False)
    assert done.stdout == "0\n", done.stderr


def test_what_comes_up_goes_before_what_is_punched(
    bell: Bell, arena: Arena, store: CompressedStore, slots: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0})  # one thread
    jobs = Jobs(bell)
    handed_over = threading.Event()
    wait = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p)(lambda _: not handed_over.wait(60))
    busy = arena.punch_job([0])
    busy.job.run = ctypes.cast(wait, ctypes.c_void_p).value
    order: list[str] = []
    jobs.run(busy, lambda: order.append("busy"))
    for number in range(3):
        jobs.run(arena.punch_job([number]), lambda: order.append("punched"))
    jobs.run(fill(store, slots[:1], Buffer(PAGE)), lambda: order.append("came up"))
    handed_over.set()
    jobs.drain()
    for then in jobs.finished():
        then()
    jobs.close()
    assert busy.error == 0
    assert [what for what in order if what != "busy"] == ["came up", "punched", "punched", "punched"]
