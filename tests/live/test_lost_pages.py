"""Rot in the stores of a real memory: a reader of a changed page gets SIGBUS, and no reader gets a wrong byte."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from abilities import can_poison, poisons
from test_processes import helpers

from thermocline import Memory
from thermocline.errors import StoreError

PAGE = 64 << 10
PAGES = 48
MARK = b"the very words of the page "

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="the helpers' descriptors are open to root only")


PROGRAM = f"""
import errno, os, signal, sys
import numpy as np
from thermocline import Memory

PAGE, PAGES, MARK = {PAGE}, {PAGES}, {MARK!r}
memory = Memory(sys.argv[1])
other = memory.zeros(3 * PAGE, "u1")
array = memory.zeros(PAGES * PAGE, "u1")

def content(version):
    marks = np.frombuffer(MARK * (PAGES * PAGE // len(MARK) + 1), "u1")[: PAGES * PAGE].copy()
    marks[::PAGE] = np.arange(PAGES)
    marks[1::PAGE] = version
    return marks.reshape(PAGES, PAGE)

def lost():
    "The pages that cannot be had: a system call says so and does not end the program. The others are right."
    found = []
    scratch, expected = np.empty(PAGE, "u1"), content(version)
    file = os.memfd_create("scratch")
    for page in range(PAGES):
        try:
            assert os.pwrite(file, array[page * PAGE : (page + 1) * PAGE], 0) == PAGE
        except OSError as error:
            assert error.errno == errno.EFAULT
            found.append(page)
        else:
            assert os.preadv(file, [scratch], 0) == PAGE
            assert np.array_equal(scratch, expected[page]), f"page {{page}} is wrong"
    os.close(file)
    return found

print(hex(array.ctypes.data), flush=True)
version = 0
for line in sys.stdin:
    what, *words = line.split()
    if what == "fill":
        version += 1
        array[:] = content(version).reshape(-1)
        memory.advise(array, "cold")
        print(memory.stat()["nodes"]["dram"]["used"], flush=True)
    elif what == "lost":
        print(*lost(), flush=True)
    elif what == "ignore":
        print(signal.signal(signal.SIGBUS, signal.SIG_IGN), flush=True)
    elif what == "starts":
        print(memory.stat()["pager"]["starts"], flush=True)
    elif what == "pin":
        try:
            with memory.pin(array[int(words[0]) * PAGE : int(words[1]) * PAGE]):
                print("pinned", flush=True)
        except (OSError, MemoryError) as error:
            print(type(error).__name__, error, flush=True)
    elif what == "touch":
        print(array[int(words[0]) * PAGE + 77], flush=True)
"""


class Program:
    """A program with an array in a memory, and what its node holds."""

    def __init__(self, process: subprocess.Popen[str], node: str) -> None:
        self.process = process
        assert process.stdout is not None
        self.address = process.stdout.readline().strip()
        self.say("fill")
        supervisor = helpers(process.pid)["thermocline-supervisor"]
        folder = f"/proc/{supervisor}/fd"
        self.store = next(f"{folder}/{fd}" for fd in os.listdir(folder) if node in os.readlink(f"{folder}/{fd}"))

    def say(self, what: str) -> str:
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(f"{what}\n")
        self.process.stdin.flush()
        return self.process.stdout.readline().strip()

    def lost(self) -> list[int]:
        return [int(page) for page in self.say("lost").split()]

    def load(self) -> bytearray:
        with open(self.store, "rb") as store:
            return bytearray(store.read())

    def save(self, content: bytes | bytearray) -> None:
        fd = os.open(self.store, os.O_RDWR)
        os.pwrite(fd, content, 0)
        os.fsync(fd)
        os.close(fd)

    def end(self, page: int) -> str:
        """Touch a page, which ends the program with SIGBUS -> all that is on stderr."""
        assert self.process.stdin is not None and self.process.stderr is not None
        self.process.stdin.write(f"touch {page}\n")
        self.process.stdin.close()
        assert self.process.wait() == -signal.SIGBUS
        return self.process.stderr.read()


@contextmanager
def program(spec: str, node: str) -> Iterator[Program]:
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM, spec],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield Program(process, node)
        finally:
            process.kill()


@pytest.fixture(params=["on", "off"])
def in_file(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Program]:
    """Pages in a file, with and without encryption."""
    with program(f"dram=1MiB, file:{tmp_path}=16MiB;encrypt={request.param}", str(tmp_path)) as started:
        yield started


def check_messages(said: str, program: Program, lost: list[int], why: str, node: str) -> None:
    """A line for each lost page, once: array, page, node."""
    lines = said.splitlines()
    assert len(lines) == len(lost)
    for page in lost:
        (line,) = (line for line in lines if f"page {page} of {PAGES} of the array at {program.address}, " in line)
        assert re.match(r"thermocline: page \d+ \(page \d+ of", line)
        assert f" its bytes {page * PAGE} to {(page + 1) * PAGE - 1}) cannot" in line
        assert f"cannot be read from {node}: " in line and why in line


ROTTEN = "the bytes read are not those that were written"


@poisons
def test_a_flipped_bit_is_a_sigbus_with_a_message_and_other_pages_are_right(in_file: Program, tmp_path: Path) -> None:
    whole = in_file.load()
    slots = range(3, len(whole) // PAGE, 5)
    for number, slot in enumerate(slots):  # from the first byte of a page to the last
        whole[slot * PAGE + (PAGE - 1) * number // (len(slots) - 1)] ^= 1 << number % 8
    in_file.save(whole)
    lost = in_file.lost()
    assert len(lost) == len(slots)
    assert in_file.lost() == lost
    assert in_file.say("starts") == "1"
    check_messages(in_file.end(lost[0]), in_file, lost, ROTTEN, f"file:{tmp_path}")


def test_the_first_touch_of_a_rotten_page_is_a_sigbus(in_file: Program) -> None:
    """Without a system call before it."""
    in_file.save(bytes(len(in_file.load())))
    said = in_file.end(PAGES - 1)
    assert f"page {PAGES - 1} of {PAGES} of the array at {in_file.address}" in said


@pytest.mark.skipif(
    can_poison(), reason="this kernel has UFFDIO_POISON: the system call fails, and the program goes on"
)
def test_a_system_call_that_touches_a_rotten_page_ends_the_program_and_says_so_once(in_file: Program) -> None:
    in_file.save(bytes(len(in_file.load())))
    assert in_file.say("lost") == ""
    assert in_file.process.wait() == -signal.SIGKILL
    assert in_file.process.stderr is not None
    assert in_file.process.stderr.read().count("this kernel cannot poison it") == 1


def test_a_program_that_ignores_sigbus_is_ended_all_the_same(in_file: Program) -> None:
    in_file.save(bytes(len(in_file.load())))
    in_file.say("ignore")
    assert in_file.say(f"touch {PAGES - 1}") == ""
    assert in_file.process.wait() == (-signal.SIGBUS if can_poison() else -signal.SIGKILL)


def test_a_rotten_page_that_is_to_be_pinned_is_an_exception(in_file: Program, tmp_path: Path) -> None:
    in_file.save(bytes(len(in_file.load())))
    for _ in range(2):
        said = in_file.say(f"pin {PAGES - 4} {PAGES}")
        assert re.match(r"StoreError .*page \d+ \(page 0 of the 4 to be pinned, at 0x\w+\) cannot be read back", said)
    said = in_file.end(PAGES - 4)
    assert f"page {PAGES - 4} of {PAGES} of the array at {in_file.address}" in said
    assert f"cannot be read from file:{tmp_path}: " in said


@poisons
def test_slots_that_have_changed_places(in_file: Program) -> None:
    whole = in_file.load()
    one, other = slice(4 * PAGE, 5 * PAGE), slice(9 * PAGE, 10 * PAGE)
    whole[one], whole[other] = whole[other], whole[one]
    in_file.save(whole)
    assert len(in_file.lost()) == 2


@poisons
def test_a_file_cut_short(in_file: Program, tmp_path: Path) -> None:
    length = len(in_file.load())
    os.truncate(in_file.store, length - 3 * PAGE - 100)
    lost = in_file.lost()
    assert len(lost) == 4
    # Where a page has been written beyond the end since, there is a hole; else nothing at all.
    check_messages(in_file.end(lost[-1]), in_file, lost, "", f"file:{tmp_path}")


@poisons
def test_pages_as_they_were_before(in_file: Program) -> None:
    before = in_file.load()
    in_file.say("fill")
    in_file.save(before)
    # What is lost are pages of which the slot was written to again, and no page is of the first version.
    assert in_file.lost()


@poisons
def test_a_successor_finds_rot_as_well_and_is_not_stopped_by_it(in_file: Program) -> None:
    whole = in_file.load()
    whole[5 * PAGE + 5] ^= 1
    in_file.save(whole)
    os.truncate(in_file.store, len(whole) - PAGE)
    os.kill(helpers(in_file.process.pid)["thermocline-pager"], signal.SIGKILL)
    assert len(in_file.lost()) == 2
    assert in_file.say("starts") == "2"


def test_what_is_written_is_in_the_file_without_encryption_only(tmp_path: Path) -> None:
    for encrypt, there in ((";encrypt=off", True), ("", False)):
        with program(f"dram=1MiB, file:{tmp_path}=16MiB{encrypt}", str(tmp_path)) as started:
            content = started.load()
            assert len(content) >= (PAGES - 16) * PAGE
            assert (MARK in content) == there
            assert started.lost() == []


@poisons
@pytest.mark.parametrize("codec", ["zstd", "lz4"])
def test_a_flipped_bit_in_compressed_memory(codec: str) -> None:
    with program(f"dram=1MiB, {codec}=4MiB", f"thermocline-{codec}") as started:
        whole = started.load()
        at = next(position for position in range(4096) if whole[position] and position > 200)
        whole[at] ^= 16
        started.save(whole)
        lost = started.lost()
        assert len(lost) == 1
        check_messages(started.end(lost[0]), started, lost, ROTTEN, codec)


@poisons
def test_an_array_hears_of_its_lost_page_though_another_has_lost_the_same_before(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    scratch = os.memfd_create("scratch")
    addresses = set()
    with Memory("dram=1MiB, zstd=1MiB", page_size="4KiB") as memory:
        for name in ("one", "other"):
            (tmp_path / name).write_bytes(b"x" * 4096)
            array = memory.from_file(tmp_path / name, "u1")
            addresses.add(array.ctypes.data)
            os.truncate(tmp_path / name, 0)
            with pytest.raises(OSError):
                os.write(scratch, array.data)
            del array
            memory.stat()  # what was freed before is free after it
    os.close(scratch)
    assert len(addresses) == 1
    assert capfd.readouterr().err.count("cannot be read from source") == 2


def test_a_page_that_its_file_has_lost_cannot_be_pinned(tmp_path: Path) -> None:
    with Memory("dram=1MiB, zstd=1MiB", page_size="4KiB") as memory:
        (tmp_path / "source").write_bytes(b"x" * 3 * 4096)
        array = memory.from_file(tmp_path / "source", "u1")
        os.truncate(tmp_path / "source", 4096)
        with pytest.raises(StoreError, match=r"page 1 of the 3 to be pinned, at 0x.* cannot be read back and is lost"):
            memory.pin(array).__enter__()
        with memory.pin(array[:4096]) as pinned:
            assert bytes(pinned[:3]) == b"xxx"
        del array, pinned
