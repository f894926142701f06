"""The sides that are compared: how each holds an array that is larger than its memory.

    python sides.py ORDER

A process of its own for each round. ORDER is JSON, see `Order`. It prints a line of JSON: the figure of each workload,
and what DRAM the side took. Where a side cannot be run here, its last line on stderr says why.
"""

from __future__ import annotations

import json
import mmap
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from contents import Contents
from limits import Cgroup, anonymous, may_leave
from swap import Zram
from workloads import IN_ORDER, WORKLOADS, Work

if TYPE_CHECKING:  # the other sides do without
    from thermocline import Memory

MADV_NOHUGEPAGE = 15


@dataclass(frozen=True)
class Order:
    """What a side is to do: sizes in bytes, ``limit`` what the data may take in DRAM, ``count`` looked-up words."""

    side: str
    kind: str
    size: int
    dram: int
    limit: int
    count: int
    directory: str
    workloads: tuple[str, ...]
    cgroup: str = ""
    zram: str = ""

    def text(self) -> str:
        """As JSON."""
        return json.dumps(asdict(self))


class Side:
    """An array, and what is known of its keeping."""

    def __init__(self, array: np.ndarray) -> None:
        self.array = array

    def before(self, workload: str) -> None:
        """Make ready for a workload."""

    def spent(self) -> int:
        """Bytes of DRAM that the data took at most."""
        return self.array.nbytes

    def pool(self) -> int:
        """Bytes of it that are not charged to the side's limit."""
        return 0

    def packed(self) -> tuple[int, int] | None:
        """What compressed memory holds and takes now, in bytes; None if there is none."""
        return None

    def helpers(self) -> int:
        """Bytes that processes take which are there only to serve it."""
        return 0


class Tiered(Side):
    """Ours: DRAM over compressed memory over a file."""

    def __init__(self, memory: Memory, array: np.ndarray, cgroup: Cgroup) -> None:
        super().__init__(array)
        self._memory, self._cgroup = memory, cgroup

    def _nodes(self) -> tuple[dict[str, int], dict[str, int], dict[str, int]]:
        dram, packed, file = self._memory.stat()["nodes"].values()
        return dram, packed, file

    def spent(self) -> int:
        dram, packed, _ = self._nodes()
        return dram["peak"] + packed["peak"]

    def packed(self) -> tuple[int, int] | None:
        dram, packed, file = self._nodes()
        held = self.array.nbytes - dram["used"] - file["used"]
        return (held, packed["used"]) if held > 0 else None  # what does not pack is in the file, for a while twice

    def helpers(self) -> int:
        return sum(anonymous(pid) for pid in self._cgroup.processes() if pid != os.getpid())


@contextmanager
def tiered(order: Order, cgroup: Cgroup) -> Iterator[Side]:
    """Ours."""
    from thermocline import Memory

    size = order.size
    with Memory(f"dram={order.dram}, zstd={size // 2}, file:{order.directory}={2 * size}") as memory:
        side = Tiered(memory, memory.zeros(size // 8, "u8"), cgroup)
        yield side
        del side.array


class Limited(Side):
    """Whatever the kernel keeps for us under a limit. ``before`` is what the cgroup held when it was set."""

    def __init__(self, array: np.ndarray, cgroup: Cgroup, before: int) -> None:
        super().__init__(array)
        may_leave(array)
        self._cgroup, self._before = cgroup, before

    def spent(self) -> int:
        return self._cgroup.most() - self._before


class Swapped(Limited):
    """Anonymous memory, with compressed swap below it."""

    def __init__(self, array: np.ndarray, cgroup: Cgroup, before: int, zram: Zram) -> None:
        super().__init__(array, cgroup, before)
        self._zram = zram

    def pool(self) -> int:
        return self._zram.most()

    def spent(self) -> int:
        return super().spent() + self.pool()

    def packed(self) -> tuple[int, int]:
        return self._zram.held(), self._zram.used()


@contextmanager
def zram(order: Order, cgroup: Cgroup) -> Iterator[Side]:
    """The kernel's tiering."""
    before = cgroup.leave_to_data(order.limit, all_else=True)
    with mmap.mmap(-1, order.size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as memory:
        memory.madvise(MADV_NOHUGEPAGE)
        side = Swapped(np.frombuffer(memory, "u8"), cgroup, before, Zram(Path(order.zram)))
        yield side
        del side.array


class Mapped(Limited):
    """A file in the page cache, with the advice that is best for the workload."""

    def __init__(self, memory: mmap.mmap, file: int, cold: bool, cgroup: Cgroup, before: int) -> None:
        super().__init__(np.frombuffer(memory, "u8"), cgroup, before)
        self._memory, self._file, self._cold = memory, file, cold

    def before(self, workload: str) -> None:
        """With readahead only where it helps; nothing is cached of a cold one."""
        if self._cold:
            self._memory.flush()
            os.fsync(self._file)
            self._memory.madvise(mmap.MADV_DONTNEED)
            os.posix_fadvise(self._file, 0, 0, os.POSIX_FADV_DONTNEED)
        self._memory.madvise(mmap.MADV_NORMAL if workload in IN_ORDER else mmap.MADV_RANDOM)


@contextmanager
def memmap(order: Order, cgroup: Cgroup) -> Iterator[Side]:
    """np.memmap's way: a file that is mapped shared."""
    with tempfile.TemporaryFile(dir=order.directory) as file:
        file.truncate(order.size)
        before = cgroup.leave_to_data(order.limit, all_else=True)
        with mmap.mmap(file.fileno(), order.size) as memory:
            side = Mapped(memory, file.fileno(), order.side == "memmap", cgroup, before)
            yield side
            del side.array


@contextmanager
def plain(order: Order, cgroup: Cgroup) -> Iterator[Side]:
    """No limit at all, on pages of 4 KiB."""
    with mmap.mmap(-1, order.size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as memory:
        memory.madvise(MADV_NOHUGEPAGE)
        side = Side(np.frombuffer(memory, "u8"))
        yield side
        del side.array


SIDES = {"thermocline": tiered, "zram": zram, "memmap": memmap, "memmap, kept": memmap, "plain": plain}


def warm(size: int) -> None:
    """Touch so much memory and free it: what lay free for long, a virtual machine's host may have taken back."""
    with mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as memory:
        memory.madvise(MADV_NOHUGEPAGE)
        words = np.frombuffer(memory, "u8")
        words[:: mmap.PAGESIZE // 8] = 1
        del words


def main() -> None:
    """Run one side once."""
    order = Order(**json.loads(sys.argv[1]))
    figures: dict[str, float] = {}
    packed = None
    with Work(Contents(order.kind), order.size // 8, order.count) as work:
        warm(order.size)
        cgroup = Cgroup(Path(order.cgroup))
        cgroup.enter()
        with SIDES[order.side](order, cgroup) as side:
            for name in order.workloads:
                side.before(name)
                figures[name] = WORKLOADS[name].figure(side.array, work)
                if name == "fill":  # before there are copies of what is in DRAM
                    packed = side.packed()
            taken = {"spent": side.spent(), "pool": side.pool(), "helpers": side.helpers()}
    print(json.dumps({"figures": figures, "packed": packed, **taken}))
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
