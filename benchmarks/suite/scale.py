"""Very much managed memory: what a fault takes beside a small memory, and what the books take.

    python scale.py SIZE SHARE ROUNDS DIRECTORY

In SIZE bytes, a word is written in SHARE of the pages, evenly spread. Beside it is a memory of 1 GiB in the same
process, all of whose pages are written. Both are touched by turns.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from contents import check
from plan import GIB, MIB, Plan
from process import python, said
from samples import Table

sys.path.insert(0, str(Path(__file__).parents[1]))

_TOUCHES = 1000
_SMALL = GIB


def measure(plan: Plan, sides: list[str]) -> Iterator[tuple[str, Table]]:
    """One table."""
    size, share = plan.sparse
    big = "64 GiB"
    table = Table("a fault, and the books", [big, "1 GiB"])
    found = said(python("scale.py", str(size), str(share), str(plan.rounds), str(plan.directory)))
    for number, (large, small) in enumerate(found["us"]):
        table.add("a fault", "us", big, number, large)
        table.add("a fault", "us", "1 GiB", number, small)
    table.add("metadata", "%", big, 0, 100 * found["books"] / size)
    pages = f"{found['pages']:,} pages of 64 KiB, a word in each"
    table.remark(
        f"{size / GIB:g} GiB managed, {pages}, DRAM of 64 MiB over compressed memory, touched at random; the other is "
        "all of 1 GiB. A fault makes room, too: a page goes down for each that comes up. Metadata are tables, seals, "
        "and what pager and supervisor grew by (all but page tables), measured once."
    )
    yield "scale", table


def main() -> None:
    """Time one process."""
    from pressure import Overhead

    from thermocline import Memory

    size, share, rounds = int(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3])
    file = f"file:{sys.argv[4]}={max(size, GIB) // MIB}MiB"
    with Memory(f"dram=64MiB, zstd=4GiB, {file}") as large:
        large.zeros(1, "u1")[0] = 1
        overhead = Overhead()
        step = large.page_size // 8
        arrays = {}
        pages = {}

        def filled(memory: Memory, nbytes: int, every: int) -> None:
            array = memory.zeros(nbytes // 8, "u8")
            arrays[nbytes] = array[:: step * every]
            pages[nbytes] = len(arrays[nbytes])
            arrays[nbytes][:] = np.arange(1, pages[nbytes] + 1, dtype="u8")

        filled(large, size, max(round(1 / share), 1))
        books = sum(overhead.grown().values()) - overhead.grown()["page tables"]
        with Memory(f"dram=64MiB, zstd={_SMALL // 2}, {file}") as small:
            filled(small, _SMALL, 1)
            random = np.random.default_rng(0)
            found = []
            for _ in range(rounds):
                turn = []
                for nbytes in (size, _SMALL):
                    # More than are in DRAM are there in each, so that nearly all are faults.
                    places = random.integers(0, pages[nbytes], _TOUCHES)
                    memory = large if nbytes == size else small
                    before = memory.stat()["vmstat"]["pgfault"]
                    begun = time.perf_counter()
                    got = arrays[nbytes][places]
                    seconds = time.perf_counter() - begun
                    check(np.array_equal(got, places + 1), "a page")
                    turn.append(1e6 * seconds / max(memory.stat()["vmstat"]["pgfault"] - before, 1))
                found.append(turn)
            arrays.clear()
    print(json.dumps({"us": found, "books": books, "pages": pages[size]}))
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
