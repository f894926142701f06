"""A real disk that is gone from one moment to the next: what can be kept is kept, and the rest is refused and named.

The disk is a loop device, which loses its last sector, and all before it, when its file is cut to nothing.
"""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PROGRAM = """
import errno, os, sys
import numpy as np
from thermocline import Memory, OutOfMemory

PAGE = 64 << 10
scratch = os.memfd_create("scratch")

def content(page):
    return np.random.default_rng(page).integers(0, 256, PAGE, dtype="u1")

def refused(array, access):
    "The pages of which an access by a system call fails."
    found = []
    for page in range(len(array) // PAGE):
        try:
            access(array[page * PAGE : (page + 1) * PAGE], page)
        except OSError as error:
            assert error.errno in (errno.EFAULT, 133), error
            found.append(page)
    return found

def write(part, page):
    os.pwrite(scratch, content(page), 0)
    os.preadv(scratch, [part.data], 0)

def read(part, page):
    os.pwrite(scratch, part.data, 0)
    assert os.pread(scratch, PAGE, 0) == content(page).tobytes(), f"page {page} is wrong"

memory = Memory(f"dram=1MiB, file:{sys.argv[1]}=16MiB", readahead=0)
below, above, later = (memory.zeros(pages * PAGE, "u1") for pages in (24, 10, 20))
assert not refused(below, write)
memory.advise(below, "cold")
assert not refused(above, write)
print("ready", flush=True)
sys.stdin.readline()
print(len(refused(above, read)), len(refused(below, read)))
unwritten = refused(later, write)
print(len(unwritten) >= 20 - 6, len(refused(above, read)))
print(all(page in unwritten for page in refused(later, read)), memory.stat()["pager"]["starts"])
try:
    memory.zeros(16 * PAGE, "u1")
except OutOfMemory:
    print("no memory")
del later, below
small = memory.zeros(2 * PAGE, "u1")
print(refused(small, write), refused(small, read), refused(above, read))
"""


class Disk:
    """A filesystem on a loop device."""

    def __init__(self, folder: Path) -> None:
        self._image, self.directory = folder / "image", folder / "mounted"
        self.directory.mkdir()
        self._image.touch()
        os.truncate(self._image, 64 << 20)
        self._device = _run("losetup", "--find", "--show", str(self._image)).strip()

    def mount(self) -> None:
        """Make a filesystem and mount it."""
        _run("mkfs.ext4", "-q", self._device)
        _run("mount", self._device, str(self.directory))

    def vanish(self) -> None:
        """Lose every sector: whatever is read or written from here on is an error (EIO)."""
        os.truncate(self._image, 0)
        _run("losetup", "--set-capacity", self._device)

    def close(self) -> None:
        """Unmount it and free the device."""
        subprocess.run(["umount", "--lazy", str(self.directory)], check=False, stderr=subprocess.DEVNULL)
        _run("losetup", "--detach", self._device)


def _run(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    """A disk, where disks can be made."""
    if os.geteuid() != 0:
        pytest.skip("only root can make a disk")
    try:
        made = Disk(tmp_path)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"there are no loop devices here ({error})")
    try:
        try:
            made.mount()
        except (OSError, subprocess.CalledProcessError) as error:
            pytest.skip(f"no filesystem can be mounted here ({error})")
        yield made
    finally:
        made.close()


def test_a_disk_that_vanishes_costs_what_is_on_it_and_nothing_else(disk: Disk) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(disk.directory)],
        env={**os.environ, "THERMOCLINE_INJECT": "patience 500ms"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as program:
        assert program.stdout is not None
        assert program.stdout.readline() == "ready\n"
        disk.vanish()
        out, said = program.communicate("go\n")
    assert out.splitlines() == ["0 24", "True 0", "True 1", "no memory", "[] [] []"], said
    assert program.returncode == 0
    node = f"file:{disk.directory}"
    lost = re.findall(rf"page \d+ \(page (\d+) of 24 of .*\) cannot be read from {node}", said)
    assert sorted(map(int, lost)) == list(range(24))
    assert said.count(f"{node} refuses every write and is out of use") == 1
    assert said.count(f"{node} cannot take the pages it should hold") == 1
