"""Where frames are, and which are used: asked of the kernel. One memory node is enough for that; tests/numa has two."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import mmap
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from thermocline.errors import StoreError
from thermocline.live import libc, numa, sampling
from thermocline.live.arena import Arena
from thermocline.live.mapping import Mapping
from thermocline.live.placement import Placement, homes_of
from thermocline.live.sampling import Sampler
from thermocline.live.userfaultfd import UserFaultFd, open_userfaultfd
from thermocline.spec import Dram, Numa
from thermocline.topology import MemoryNode, Topology

PAGE = 64 << 10
PAGES = 8
#: A node that no machine has, for the slow one of a spec.
ABSENT = 1023
HOMES = {0: (0,), 1: (ABSENT,)}

pytestmark = pytest.mark.skipif(not Topology.read().nodes, reason="this kernel tells of no memory nodes")


class Mapped:
    """An arena that this process maps, as a program does; its first pages are there."""

    def __init__(self, present: int) -> None:
        self.fd = os.memfd_create("arena")
        os.ftruncate(self.fd, PAGES * PAGE)
        self.address = libc.mmap(None, PAGES * PAGE, libc.PROT_READ | libc.PROT_WRITE, libc.MAP_SHARED, self.fd)
        self.words = np.frombuffer((ctypes.c_char * (PAGES * PAGE)).from_address(self.address), "u8")
        self.words[: present * PAGE // 8] = 7
        self.uffd = open_userfaultfd().fd
        UserFaultFd(self.uffd).register(self.address, PAGES * PAGE)
        self.process = os.pidfd_open(os.getpid())
        mapping = Mapping(0, UserFaultFd(self.uffd), self.address, PAGE, self.process)
        self.arena = Arena(self.fd, PAGE, [mapping])
        self.placement = Placement(self.arena, PAGE, HOMES)

    def touch(self, page: int) -> None:
        assert self.words[page * PAGE // 8] == 7

    def close(self) -> None:
        del self.words
        libc.munmap(self.address, PAGES * PAGE)
        for fd in (self.fd, self.uffd, self.process):
            os.close(fd)


@pytest.fixture
def mapped() -> Iterator[Mapped]:
    made = Mapped(4)
    yield made
    made.close()


def blocks(made: Mapped) -> int:
    return os.fstat(made.fd).st_blocks


def test_pages_are_found_where_they_are_and_holes_nowhere(mapped: Mapped) -> None:
    assert mapped.placement.whereabouts([0, 6]) == {0: {0}}


def test_a_page_that_nobody_has_mapped_is_found_and_looking_fills_no_hole(mapped: Mapped) -> None:
    before = blocks(mapped)
    libc.discard(mapped.address, PAGES * PAGE)
    assert mapped.placement.mapped(range(PAGES)) == [False] * PAGES
    assert mapped.placement.whereabouts([0, 3, 4]) == {0: {0}, 3: {0}}
    assert blocks(mapped) == before


def test_a_move_to_where_pages_are_is_done(mapped: Mapped) -> None:
    libc.discard(mapped.address, PAGE)  # the first of them is mapped by nobody
    assert mapped.placement.move([0, 1], [1, 1], 0) == [0, 0]
    mapped.touch(0)
    mapped.touch(1)


def test_a_node_that_is_gone_says_so(mapped: Mapped) -> None:
    with pytest.raises(StoreError, match="no such memory node any more") as gone:
        mapped.placement.move([0], [0], 1)
    assert gone.value.errno == errno.ENODEV
    mapped.touch(0)


def test_a_process_that_is_gone_has_nothing_mapped(mapped: Mapped) -> None:
    child = os.fork()
    if child == 0:
        os._exit(0)
    process = os.pidfd_open(child)
    os.waitpid(child, 0)
    with contextlib.closing(open(process, "rb", buffering=0)):
        gone = Mapping(1, UserFaultFd(mapped.uffd), mapped.address, PAGE, process)
        placement = Placement(Arena(mapped.fd, PAGE, [gone]), PAGE, HOMES)
        assert placement.mapped([0]) == [False]
        assert placement.whereabouts([0]) == {0: {0}}


def test_new_pages_may_be_told_where_to_come_from(mapped: Mapped) -> None:
    numa.prefer(mapped.address, PAGES * PAGE, [0])
    text = Path("/proc/self/numa_maps").read_text()
    (line,) = (line for line in text.splitlines() if line.startswith(f"{mapped.address:x} "))
    assert "prefer (many):0" in line


@pytest.mark.root
class TestSampling:
    @pytest.fixture(autouse=True)
    def no_swap(self) -> None:
        """Somebody else on the machine may have switched some on: it is not known before."""
        if sampling.swap():
            pytest.skip("there is swap")

    def test_who_is_used_is_seen_and_no_frame_is_lost(self, mapped: Mapped) -> None:
        before = blocks(mapped)
        sampler = Sampler(mapped.arena, mapped.placement, PAGE)
        assert sampler.hint([0, 1, 3]) == [True, True, True]
        mapped.touch(1)
        assert sampler.used([0, 1, 3]) == [False, True, False]
        assert blocks(mapped) == before
        for page in range(4):
            mapped.touch(page)

    def test_a_page_that_another_process_has_mapped_is_not_counted_as_used(self, mapped: Mapped) -> None:
        other = libc.mmap(None, PAGE, libc.PROT_READ, libc.MAP_SHARED, mapped.fd)
        libc.madvise(other, PAGE, libc.MADV_POPULATE_READ)
        try:
            unmapped = Sampler(mapped.arena, mapped.placement, PAGE).hint([0, 1])
        finally:
            libc.munmap(other, PAGE)
        assert unmapped == [False, True]

    def test_with_swap_nothing_is_unmapped_and_the_user_is_told_once(
        self, mapped: Mapped, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setattr(sampling, "swap", lambda: True)
        sampler = Sampler(mapped.arena, mapped.placement, PAGE)
        assert sampler.hint([0]) is None
        assert sampler.hint([0]) is None
        assert mapped.placement.mapped([0]) == [True]
        assert capfd.readouterr().err.count("swapoff -a") == 1


def test_swap_is_what_the_kernel_lists(tmp_path: Path) -> None:
    listed = tmp_path / "swaps"
    listed.write_text("Filename\tType\tSize\tUsed\tPriority\n")
    assert not sampling.swap(str(listed))
    with listed.open("a") as swaps:
        swaps.write("/dev/zram0\tpartition\t1048576\t0\t100\n")
    assert sampling.swap(str(listed))


def test_dram_is_the_fast_nodes_that_the_spec_names_as_nothing_else() -> None:
    nodes = {index: MemoryNode(index, 1 << 30, 0, index < 2, {}, 4 if index < 2 else 22) for index in range(3)}

    def machine() -> Topology:
        return Topology(nodes)

    assert homes_of([Dram(1 << 20), Numa(2, 1 << 20)], machine) == {0: (0, 1), 1: (2,)}
    assert homes_of([Dram(1 << 20), Numa(1, 1 << 20)], machine) == {0: (0,), 1: (1,)}
    assert homes_of([Dram(1 << 20, 1), Numa(2, 1 << 20)], machine) == {0: (1,), 1: (2,)}
    assert homes_of([Dram(1 << 20)], machine) == {}


def test_a_process_that_has_ended_is_gone_before_its_parent_knows() -> None:
    """It has no address space any more, and move_pages(2) calls that EINVAL."""
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
    try:
        with pytest.raises(ProcessLookupError):
            numa.move(child, [mmap.PAGESIZE], 0, shared=False)
        with pytest.raises(ProcessLookupError):
            numa.locate(child, [mmap.PAGESIZE])
    finally:
        os.waitpid(child, 0)
