"""The sides that are compared: how each holds an array that is larger than its memory.

    python sides.py SIDE CONTENTS SIZE DRAM COUNT DIRECTORY CGROUP

A process of its own for each round. It prints a line of JSON: what each workload took, and how much DRAM the side spent
at most, by the kernel's account. Where a side cannot be run here, the line says why.
"""

from __future__ import annotations

import json
import mmap
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import workloads
from contents import Contents
from limits import Cgroup
from swap import zram_bytes

MADV_NOHUGEPAGE = 15


class Side:
    """An array, and what is known of its keeping.

    Parameters
    ----------
    array : ndarray of u8
    spent : callable
        Bytes of DRAM that it takes now, or took at most.
    """

    def __init__(self, array: np.ndarray, spent: Callable[[], int]) -> None:
        self.array = array
        self.spent = spent

    def before(self, workload: str) -> None:
        """Make ready for a workload."""


@contextmanager
def tiered(size: int, dram: int, directory: str, cgroup: Cgroup) -> Iterator[Side]:
    """Ours: DRAM over compressed memory over a file."""
    from thermocline import Memory

    with Memory(f"dram={dram}, zstd={size // 2}, file:{directory}={2 * size}") as memory:
        array = memory.zeros(size // 8, "u8")

        def spent() -> int:
            nodes = memory.stat()["nodes"]
            return sum(node["peak"] for name, node in nodes.items() if not name.startswith("file"))

        yield Side(array, spent)
        del array


@contextmanager
def zram(size: int, dram: int, directory: str, cgroup: Cgroup) -> Iterator[Side]:
    """The kernel's: anonymous memory under a limit, with compressed swap."""
    with mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as memory:
        memory.madvise(MADV_NOHUGEPAGE)
        cgroup.limit(cgroup.used() + dram)
        before = cgroup.used()
        side = Side(np.frombuffer(memory, "u8"), lambda: cgroup.most() - before + zram_bytes())
        yield side
        del side.array


class Mapped(Side):
    """A file in the page cache, with the advice that is best for the workload."""

    def __init__(self, memory: mmap.mmap, spent: Callable[[], int]) -> None:
        super().__init__(np.frombuffer(memory, "u8"), spent)
        self._memory = memory

    def before(self, workload: str) -> None:
        """Cold, and with readahead only where it helps."""
        self._memory.flush()
        self._memory.madvise(mmap.MADV_DONTNEED)
        in_order = workload in ("fill", "scan")
        self._memory.madvise(mmap.MADV_NORMAL if in_order else mmap.MADV_RANDOM)


@contextmanager
def memmap(size: int, dram: int, directory: str, cgroup: Cgroup) -> Iterator[Side]:
    """np.memmap's way: a file that is mapped shared, under the same limit."""
    with tempfile.TemporaryFile(dir=directory) as file:
        file.truncate(size)
        with mmap.mmap(file.fileno(), size) as memory:
            cgroup.limit(cgroup.used() + dram)
            before = cgroup.used()
            side = Mapped(memory, lambda: cgroup.most() - before)
            yield side
            del side.array


@contextmanager
def plain(size: int, dram: int, directory: str, cgroup: Cgroup) -> Iterator[Side]:
    """No limit at all, on pages of 4 KiB."""
    with mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as memory:
        memory.madvise(MADV_NOHUGEPAGE)
        side = Side(np.frombuffer(memory, "u8"), lambda: size)
        yield side
        del side.array


SIDES = {"thermocline": tiered, "zram": zram, "memmap": memmap, "plain": plain}


def main() -> None:
    """Run one side once."""
    name, kind, size, dram, count, directory, group = sys.argv[1:]
    cgroup = Cgroup(Path(group))
    cgroup.enter()
    contents = Contents(kind)
    found: dict[str, tuple[float, int]] = {}
    with SIDES[name](int(size), int(dram), directory, cgroup) as side:
        for workload, run in workloads.WORKLOADS.items():
            side.before(workload)
            found[workload] = run(side.array, contents, int(count))
        spent = side.spent()
    print(json.dumps({"workloads": found, "spent": spent}))
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
