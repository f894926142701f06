"""Answering a fault: ours beside the least that a handler can do (floor.c), which only copies.

    python floor.py PAGE_SIZE PAGES SEED ONE_CORE KIND

All pages are in compressed memory, DRAM has room for all of them, and each is touched once, in random order. KIND
``random`` is kept there as it is, so that ours copies what the floor copies.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from contents import Contents, check
from plan import Plan
from process import HERE, python, said
from samples import Table, in_turn
from sides import warm

_SIZES = {"4 KiB": 4096, "64 KiB": 65536}
_PLACES = {"one core": True, "all cores": False}
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
    rows = {
        f"{size}, {place}{', int64 as it is compressed' if kind == 'int64' else ''}": (page, one_core, kind)
        for kind in ("random", "int64")
        for size, page in _SIZES.items()
        for place, one_core in _PLACES.items()
        if kind == "random" or not one_core
    }
    with tempfile.TemporaryDirectory(dir=plan.directory) as directory:
        program = compiled(Path(directory))
        for row, (page, one_core, kind) in rows.items():
            pages = max(min(plan.pages, plan.resident * 2 // page), _TOUCHES)
            for number, side in in_turn(table.sides, plan.rounds):
                if side == "floor":
                    took = floor(program, page, pages, number, one_core)
                else:
                    took = said(python("floor.py", *map(str, (page, pages, number, int(one_core), kind))))
                table.add(row, "us", side, number, took)
    yield "floor", table


def main() -> None:
    """Run ours once, and print microseconds a touch."""
    page, pages, seed, one_core = map(int, sys.argv[1:5])
    if one_core:
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})  # before the helpers are started: they inherit it

    from thermocline import Compressed, Dram, Memory

    size = page * pages
    warm(2 * size)
    nodes = [Dram(2 * size), Compressed(2 * size, incompressible="store")]
    with Memory(nodes, page_size=page, readahead=0) as memory:
        array = memory.zeros(size // 8, "u8")
        contents = Contents(sys.argv[5])
        step = page // 8
        for number in range(pages):
            array[number * step : (number + 1) * step] = contents.at(np.arange(number * step, (number + 1) * step))
        places = np.random.default_rng(seed).permutation(pages) * step + step // 2
        right = contents.at(places)
        got = np.empty(pages, "u8")
        memory.advise(array, "cold")
        if memory.stat()["nodes"]["dram"]["used"]:
            raise OSError("not everything could be demoted beforehand")
        before = memory.stat()["vmstat"]["pgfault"]
        begun = time.perf_counter()
        np.take(array, places, out=got)
        seconds = time.perf_counter() - begun
        check(np.array_equal(got, right), "a page")
        if memory.stat()["vmstat"]["pgfault"] - before < pages:
            raise OSError("some touches were no faults")
        del array
    print(json.dumps(1e6 * seconds / pages))
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
