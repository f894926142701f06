"""The machine that the other tests here rely on: it has a slow node, and its kernel demotes."""

import mmap
import subprocess
import sys
from array import array
from pathlib import Path

import pytest
from nodes import anonymous_bytes, bring_online, free_bytes, online, slow_nodes, take_offline, vmstat

pytestmark = pytest.mark.numa

MIB = 1 << 20


def numbers(size: int) -> bytes:
    """The numbers of so much memory's pages, four bytes each."""
    return array("I", range(size // mmap.PAGESIZE)).tobytes()


def touched(size: int) -> mmap.mmap:
    """Private memory, each page of which holds its own number."""
    memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    memory.madvise(mmap.MADV_NOHUGEPAGE)
    for byte in range(4):
        memory[byte :: mmap.PAGESIZE] = numbers(size)[byte::4]
    return memory


def assert_intact(memory: mmap.mmap) -> None:
    for byte in range(4):
        assert memory[byte :: mmap.PAGESIZE] == numbers(len(memory))[byte::4]


def test_node_1_is_slow_and_has_no_processor() -> None:
    assert slow_nodes() == [1]
    assert not Path("/sys/devices/system/node/node1/cpulist").read_text().strip()


def test_the_distance_to_the_slow_node_is_told() -> None:
    assert Path("/sys/devices/system/node/node0/distance").read_text().split() == ["10", "20"]


def test_the_kernel_demotes_what_the_fast_node_has_no_room_for() -> None:
    """In a process of its own that may use node 0 only: by default what does not fit goes straight to node 1."""
    size = free_bytes(0) + 64 * MIB
    before = vmstat()
    program = f"import test_slow_node as t; m = t.touched({size}); t.assert_intact(m); print(t.anonymous_bytes(1))"
    ran = subprocess.run(
        ["numactl", "--membind=0", sys.executable, "-c", program],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
    )
    after = vmstat()
    demoted = sum(after[name] - before[name] for name in ("pgdemote_kswapd", "pgdemote_direct"))
    assert demoted > 64 * MIB // mmap.PAGESIZE // 2
    assert int(ran.stdout) > 32 * MIB


def test_the_slow_node_goes_offline_and_its_pages_stay() -> None:
    program = "import test_slow_node as t; t.move_away()"
    subprocess.run(
        ["numactl", "--membind=1", sys.executable, "-c", program], cwd=Path(__file__).parent, check=True, timeout=300
    )


def move_away() -> None:
    """The program of the test above: has pages in node 1, and takes the node offline."""
    memory = touched(32 * MIB)
    assert anonymous_bytes(1) >= 32 * MIB
    blocks = take_offline(1)
    try:
        assert not online(1)
        assert_intact(memory)
    finally:
        bring_online(blocks)
    assert online(1) == len(blocks)
