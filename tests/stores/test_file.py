from __future__ import annotations

import errno
import fcntl
import os
import resource
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from shelf import Shelf, page

from thermocline.errors import StoreError
from thermocline.live.buffer import Buffer
from thermocline.live.stores import file
from thermocline.live.stores.file import FileStore
from thermocline.live.stores.seals import Seals
from thermocline.spec import File

PAGE = 65536


@pytest.fixture
def shelf(shelves: Callable[..., Shelf]) -> Shelf:
    return shelves("file", PAGE)


@contextmanager
def mounted(place: Path, kind: str, *options: str) -> Iterator[Path]:
    """A filesystem of its own, or a skipped test where none may be mounted."""
    place.mkdir()
    command = ["mount", "-t", kind, *options, kind, str(place)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode:
        pytest.skip(f"no {kind} can be mounted here: {result.stderr.strip()}")
    try:
        yield place
    finally:  # lazily, because a failed test may still hold a file in it
        subprocess.run(["umount", "--lazy", str(place)], check=True)


@pytest.fixture
def tiny(tmp_path: Path) -> Iterator[Path]:
    """A filesystem of eight and a half pages."""
    with mounted(tmp_path / "tiny", "tmpfs", "-o", f"size={PAGE * 17 // 2}") as place:
        yield place


@pytest.fixture
def cached(tmp_path: Path) -> Iterator[Path]:
    """A filesystem that refuses direct I/O."""
    with mounted(tmp_path / "cached", "ramfs") as place:
        yield place


def test_the_file_has_no_name_and_is_the_owners_alone(shelf: Shelf, tmp_path: Path) -> None:
    shelf.fill(0)
    fd, _ = shelf.descriptors
    assert os.fstat(fd).st_nlink == 0
    assert os.fstat(fd).st_mode & 0o777 == 0o600
    assert list(tmp_path.iterdir()) == []


def test_a_file_without_a_name_cannot_be_given_one(shelf: Shelf, tmp_path: Path) -> None:
    fd, _ = shelf.descriptors
    directory = os.open(tmp_path, os.O_RDONLY)
    try:
        with pytest.raises(FileNotFoundError):
            os.link(f"/proc/self/fd/{fd}", "found", dst_dir_fd=directory, follow_symlinks=True)
    finally:
        os.close(directory)


def test_creating_it_leaves_it_empty(shelf: Shelf) -> None:
    fd, _ = shelf.descriptors
    assert os.fstat(fd).st_size == os.fstat(fd).st_blocks == 0


def test_the_quota_is_kept(shelf: Shelf) -> None:
    assert len(shelf.fill(0)) == 32
    with pytest.raises(StoreError) as caught:
        shelf.store.reserve()
    assert caught.value.errno == errno.ENOSPC
    fd, _ = shelf.descriptors
    assert os.fstat(fd).st_size == 32 * PAGE


@pytest.mark.parametrize(
    ("make", "number"),
    [
        (lambda path: path / "missing", errno.ENOENT),
        (lambda path: Path("/proc/self/task"), errno.ENOENT),
        (lambda path: (path / "plain").write_text("") or path / "plain", errno.ENOTDIR),
    ],
    ids=("missing", "no files there", "no directory"),
)
def test_a_directory_that_takes_no_file(make: Callable[[Path], Path], number: int, tmp_path: Path) -> None:
    spec = File(make(tmp_path), "1MiB")
    with pytest.raises(StoreError) as caught:
        FileStore.create(spec, PAGE, 16)
    assert caught.value.errno == number
    assert spec.name in caught.value.strerror
    assert "\n" not in caught.value.strerror


def test_io_is_direct_where_the_filesystem_lets_it(shelf: Shelf, tmp_path: Path) -> None:
    plain = os.open(tmp_path / "plain", os.O_CREAT | os.O_RDWR)
    try:
        fcntl.fcntl(plain, fcntl.F_SETFL, os.O_DIRECT)
    except OSError:
        pytest.skip("this filesystem has no direct I/O")
    finally:
        os.close(plain)
    assert fcntl.fcntl(shelf.descriptors[0], fcntl.F_GETFL) & os.O_DIRECT


@pytest.mark.root
def test_a_filesystem_without_direct_io_is_served_through_the_cache(cached: Path) -> None:
    with closing(Shelf(File(cached, 4 * PAGE), PAGE)) as shelf:
        assert not fcntl.fcntl(shelf.descriptors[0], fcntl.F_GETFL) & os.O_DIRECT
        kept = shelf.fill(0)
        assert all(shelf.get(slot) == content for slot, content in kept.items())


def test_where_every_file_is_born_with_a_name_it_loses_it_at_once(tmp_path: Path) -> None:
    fd = file._open_and_unlink(os.fspath(tmp_path))
    status = os.fstat(fd)
    inheritable = os.get_inheritable(fd)
    os.close(fd)
    assert (status.st_nlink, status.st_mode & 0o777, inheritable) == (0, 0o600, False)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.root
def test_a_full_disk_is_an_error_and_loses_no_page(tiny: Path) -> None:
    with closing(Shelf(File(tiny, 100 * PAGE), PAGE)) as shelf:
        kept = {}
        with pytest.raises(StoreError) as caught:
            while True:
                slot = shelf.reserve()
                content = page(slot, PAGE)
                shelf.write(slot, content)
                kept[slot] = content
        assert caught.value.errno == errno.ENOSPC
        assert str(tiny) in caught.value.strerror
        assert len(kept) == 8
        assert all(shelf.get(slot) == content for slot, content in kept.items())
        # Room that another page gives back serves the one that failed.
        gone = min(kept)
        del kept[gone]
        shelf.drop(gone)
        shelf.trim()
        kept[slot] = page(99, PAGE)
        shelf.write(slot, kept[slot])
        assert all(shelf.get(slot) == content for slot, content in kept.items())


@pytest.mark.root
def test_a_disk_that_is_full_from_the_start(tiny: Path) -> None:
    (tiny / "ballast").write_bytes(bytes(PAGE * 8))
    with pytest.raises(StoreError) as caught:
        FileStore.create(File(tiny, 4 * PAGE), PAGE, 4)
    assert caught.value.errno == errno.ENOSPC
    assert "name a directory with room" in caught.value.strerror


def test_a_write_that_stops_half_way_is_an_error(shelf: Shelf) -> None:
    """At a limit on file sizes the kernel writes what fits and reports a short count, then EFBIG."""
    slots = [shelf.reserve() for _ in range(3)]
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (PAGE + PAGE // 2, limits[1]))
    try:
        shelf.write(slots[0], page(0, PAGE))
        with pytest.raises(StoreError) as caught:
            shelf.write(slots[1], page(1, PAGE))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert caught.value.errno == errno.EFBIG
    shelf.write(slots[1], page(1, PAGE))
    assert [shelf.get(slot) for slot in slots[:2]] == [page(0, PAGE), page(1, PAGE)]


def test_a_device_that_fails_keeps_its_errno() -> None:
    """A process's own memory, as a file, fails with EIO where nothing is mapped: the first pages never are."""
    fd, seals = os.open("/proc/self/mem", os.O_RDWR | os.O_CLOEXEC), Seals.create(4)
    store = FileStore((fd, seals), File("/scratch", 4 * 4096), 4096, 4)
    buffer = Buffer(4096)
    try:
        for call in (store.read, store.write):
            with pytest.raises(StoreError) as caught:
                call(store.reserve(), buffer, 0)
            assert caught.value.errno == errno.EIO
            assert "file:/scratch" in caught.value.strerror
            del caught
    finally:
        store.close()
        os.close(fd)
        os.close(seals)


def test_a_file_cut_short_is_an_error(shelf: Shelf) -> None:
    kept = list(shelf.fill(0))
    fd, _ = shelf.descriptors
    os.ftruncate(fd, 10 * PAGE + 4096)
    assert shelf.get(kept[9]) == page(10, PAGE)
    for slot in kept[10:12]:
        with pytest.raises(StoreError) as caught:
            shelf.get(slot)
        assert caught.value.errno == errno.EIO
    shelf.succeed(kept)
    assert [shelf.get(slot) for slot in kept[:10]] == [page(seed, PAGE) for seed in range(1, 11)]


def test_trim_stops_where_a_filesystem_cannot_punch() -> None:
    fd, seals = os.open("/proc/self/mem", os.O_RDWR | os.O_CLOEXEC), Seals.create(4)
    store = FileStore((fd, seals), File("/scratch", 4 * 4096), 4096, 4)
    store.release(store.reserve())
    assert store.trim() == 0
    assert store.trim() == 0
    store.close()
    os.close(fd)
    os.close(seals)


@pytest.mark.parametrize("page_size", [4096, PAGE])
def test_workers_write_and_read_while_slots_come_and_go(page_size: int, shelves: Callable[..., Shelf]) -> None:
    shelf = shelves("file", page_size)

    def work(slots: list[int], seed: int) -> int:
        """Write and read back pages -> how many were wrong."""
        buffer = Buffer(page_size)
        wrong = 0
        for turn in range(20):
            for slot in slots:
                buffer.view[:] = page(seed + 100 * turn + slot, page_size)
                shelf.store.write(slot, buffer, 0)
            for slot in slots:
                shelf.store.read(slot, buffer, 0)
                wrong += buffer.view != page(seed + 100 * turn + slot, page_size)
        buffer.close()
        return wrong

    slots = [shelf.reserve() for _ in range(12)]
    with ThreadPoolExecutor(4) as workers:
        results = [workers.submit(work, slots[n::4], 10_000 * n) for n in range(4)]
        while not all(result.done() for result in results):
            mine = [shelf.reserve() for _ in range(8)]
            for slot in mine:
                shelf.drop(slot)
            shelf.store.trim()
        assert [result.result() for result in results] == [0] * 4
