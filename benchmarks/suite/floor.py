"""Answering a fault: ours beside the least that a handler can do (floor.c), which only copies.

    python floor.py PAGE_SIZE UNIT PAGES SEED ONE_CORE KIND

All pages are in compressed memory, DRAM has room for all of them, and each is touched once, in random order. KIND
``random`` is kept there as it is, so that ours copies what the floor copies: UNIT bytes, the whole page or a part.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from contents import Contents, check
from plan import Plan
from process import HERE, python, said
from samples import Table, in_turn
from sides import warm


@dataclass(frozen=True)
class Case:
    """Bytes of a page, and what of it is wanted; whether all processes share a core; what is in the pages."""

    page: int
    unit: int
    one_core: bool = False
    kind: str = "random"

    @property
    def is_extra(self) -> bool:
        """Whether it says more than there is a goal for."""
        return self.kind != "random" or self.unit != self.page


_CASES = {
    "4 KiB, one core": Case(4096, 4096, True),
    "4 KiB, all cores": Case(4096, 4096),
    "64 KiB, one core": Case(65536, 65536, True),
    "64 KiB, all cores": Case(65536, 65536),
    "4 KiB, all cores, int64 as it is compressed": Case(4096, 4096, kind="int64"),
    "64 KiB, all cores, int64 as it is compressed": Case(65536, 65536, kind="int64"),
    "4 KiB of 64 KiB, all cores": Case(65536, 4096),
}
#: Touches of one measurement at the least: fewer are over before the processes have settled.
_TOUCHES = 512


def compiled(directory: Path) -> Path:
    """The floor, compiled.

    Raises
    ------
    OSError
        There is no C compiler, or it does not like it.
    """
    program = directory / "floor"
    compiler = os.environ.get("CC", "gcc")
    ran = subprocess.run(
        [compiler, "-O2", "-Wall", "-o", str(program), str(HERE / "floor.c")],
        capture_output=True,
        text=True,
        check=False,
    )
    if ran.returncode:
        raise OSError(
            f"{compiler} failed: {ran.stderr.strip().splitlines()[0] if ran.stderr.strip() else ran.returncode}"
        )
    return program


def floor(program: Path, page: int, pages: int, seed: int, one_core: bool) -> float:
    """Run it -> microseconds a touch.

    Raises
    ------
    OSError
        It cannot be run here.
    """
    cores = sorted(os.sched_getaffinity(0))
    pinned = [str(cores[0])] * 2 if one_core else []
    return said([str(program), str(page), str(pages), str(seed), *pinned]) / 1e3


def measure(plan: Plan, sides: list[str]) -> Iterator[tuple[str, Table]]:
    """One table: by page size, and by whether all processes share a core."""
    table = Table(
        "answering a fault: a touch of each page in random order, all of them in memory", ["thermocline", "floor"]
    )
    with tempfile.TemporaryDirectory(dir=plan.directory) as directory:
        program = compiled(Path(directory))
        for row, case in _CASES.items():
            if case.is_extra and not plan.extras:
                continue
            pages = max(min(plan.pages, plan.resident * 2 // case.page), _TOUCHES)
            for number, side in in_turn(table.sides, plan.rounds):
                if side == "floor":
                    took = floor(program, case.unit, pages, number, case.one_core)
                else:
                    numbers = case.page, case.unit, pages, number, int(case.one_core)
                    took = said(python("floor.py", *map(str, numbers), case.kind))
                table.add(row, "us", side, number, took)
    table.remark(
        "All cores: where the processes run is left to the kernel, and to ours. Where 4 KiB of each page of 64 KiB are "
        "wanted, the floor copies no more than that."
    )
    yield "floor", table


def main() -> None:
    """Run ours once, and print microseconds a touch."""
    page, unit, pages, seed, one_core = map(int, sys.argv[1:6])
    if one_core:
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})  # before the helpers are started: they inherit it

    from thermocline import Compressed, Dram, Memory

    size = page * pages
    warm(2 * size)
    nodes = [Dram(2 * size), Compressed(2 * size, incompressible="store")]
    with Memory(nodes, page_size=page, readahead=0) as memory:
        array = memory.zeros(size // 8, "u8")
        contents = Contents(sys.argv[6])
        step = page // 8
        for number in range(pages):
            array[number * step : (number + 1) * step] = contents.at(np.arange(number * step, (number + 1) * step))
        places = np.random.default_rng(seed).permutation(pages) * step + step // 2
        right = contents.at(places)
        got = np.empty(pages, "u8")
        memory.advise(array, "cold")
        # Without readahead, either brings up nothing but the page that is touched: the first all of it.
        memory.advise(array, "sequential" if unit == page else "random")
        if memory.stat()["nodes"]["dram"]["used"]:
            raise OSError("not everything could be demoted beforehand")
        before = memory.stat()["vmstat"]["pgfault"]
        begun = time.perf_counter()
        np.take(array, places, out=got)
        seconds = time.perf_counter() - begun
        check(np.array_equal(got, right), "a page")
        if memory.stat()["vmstat"]["pgfault"] - before < pages:
            raise OSError("some touches were no faults")
        if unit == page and memory.stat()["nodes"]["dram"]["used"] < size:
            raise OSError("some pages did not come up whole")
        del array
    print(json.dumps(1e6 * seconds / pages))
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
