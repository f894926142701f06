"""Access to what is in DRAM anyway: an array of ours beside one of plain memory, on small pages and on huge ones.

    python resident.py SIZE

Prints the seconds of a pass over it in order, and of as many random reads as make a measurable time, for each.
"""

from __future__ import annotations

import json
import mmap
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from contents import check
from plan import Plan
from process import python, said
from samples import Table
from sides import MADV_NOHUGEPAGE, warm

_SIDES = {"thermocline": "thermocline", "plain": "plain", "huge": "plain, huge pages"}
_LOOKUPS = 1 << 18
#: Each is done so often in a process, and the best taken: here a disturbance can only add.
_TRIES = 9


def measure(plan: Plan, sides: list[str]) -> Iterator[tuple[str, Table]]:
    """One table. All sides are in one process, in turn; each round is another process."""
    table = Table("access to what is in DRAM", ["thermocline", "plain", "huge"])
    for number in range(plan.rounds):
        found = said(python("resident.py", str(plan.resident), str(number)))
        for side in table.sides:
            table.add("sequential", "GB/s", side, number, found[side]["sequential"])
            table.add("random", "ns", side, number, found[side]["random"])
    table.remark(f"{plan.resident >> 20} MiB, all of it in DRAM. Plain memory has pages of 4 KiB; huge is plain memory "
                 f"with MADV_HUGEPAGE, which is what NumPy asks for where the system leaves it to the program "
                 f"({Path('/sys/kernel/mm/transparent_hugepage/enabled').read_text().strip()}).")  # fmt: skip
    yield "resident", table


def _mapped(size: int, advice: int) -> np.ndarray:
    memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    memory.madvise(advice)
    return np.frombuffer(memory, "u8")


def main() -> None:
    """Time one process."""
    from thermocline import Memory

    size, seed = map(int, sys.argv[1:])
    warm(3 * size)
    with Memory(f"dram={2 * size}, zstd={2 * size}") as memory:
        arrays = {
            "thermocline": memory.zeros(size // 8, "u8"),
            "plain": _mapped(size, MADV_NOHUGEPAGE),
            "huge": _mapped(size, mmap.MADV_HUGEPAGE),
        }
        random = np.random.default_rng(seed)
        places = random.integers(0, size // 8, _LOOKUPS)
        got = np.empty(_LOOKUPS, "u8")
        found: dict[str, dict[str, float]] = {side: {"sequential": 0.0, "random": float("inf")} for side in arrays}
        for array in arrays.values():
            array[:] = np.arange(len(array), dtype="u8")
        faults = memory.stat()["vmstat"]["pgfault"]
        for _ in range(_TRIES):
            for side, array in arrays.items():
                begun = time.perf_counter()
                total = array.sum()
                seconds = time.perf_counter() - begun
                check(int(total) == len(array) * (len(array) - 1) // 2, "sequential")
                found[side]["sequential"] = max(found[side]["sequential"], 1e-9 * size / seconds)
                begun = time.perf_counter()
                np.take(array, places, out=got)
                seconds = time.perf_counter() - begun
                check(np.array_equal(got, places), "random")
                found[side]["random"] = min(found[side]["random"], 1e9 * seconds / _LOOKUPS)
        assert memory.stat()["vmstat"]["pgfault"] == faults, "not all of it was in DRAM"
        arrays.clear()
        del array
    print(json.dumps(found))
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
