"""Whole arrays in a mapping that spills: ours beside zict on disk and distributed's buffer over it.

    python spill.py SIDE ARRAYS DRAM LIMIT SEED DIRECTORY CGROUP

A process for each round: all arrays of 256 KiB are put in, then as many are taken out at random and summed.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, MutableMapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from contents import BLOCK, Contents, check
from limits import Cgroup, cgroup
from plan import MIB, Plan
from process import persistent, python, said
from samples import DRAM, Table, in_turn
from sides import warm

_WORDS = 1 << 15
_BYTES = 8 * _WORDS
#: What of its limit a peer's arrays may take: the rest is for what it packs, and for the page cache.
_SHARE = 0.75
_SIDES = ("thermocline", "zict", "distributed")


def measure(plan: Plan, sides: list[str]) -> Iterator[tuple[str, Table]]:
    """One table. Ours is first, and tells what DRAM the others are given."""
    size = plan.arrays * _BYTES
    dram = max(size // 4 // 65536, 32) * 65536
    table = Table(f"whole arrays of 256 KiB: {size // MIB} MiB in {dram // MIB} MiB of DRAM", list(_SIDES))
    limit, left_out = dram, set()
    for number, side in in_turn(_SIDES, plan.rounds):
        if side in left_out:
            continue
        order = (side, plan.arrays, dram, limit, number, plan.directory)
        try:
            found = persistent(partial(_one_round, *order))
        except OSError as error:
            left_out.add(side)
            table.remark(f"{side} was left out from round {number + 1}: {error}.")
            continue
        for what in ("set", "get"):
            table.add(what, "us", side, number, found[what])
        if side == "thermocline":
            limit = max(limit, found["spent"])
        if found["saved"]:
            table.remark(f"{side} was to be killed for want of memory under its limit.")
        table.add(DRAM, "MiB", side, number, found["spent"] / MIB)
    table.remark(
        "The others keep arrays of 75 % of the DRAM that ours took, compressed memory included, under a limit of all "
        "of it, which holds for the page cache of their files as well."
    )
    yield "whole arrays", table


def _one_round(*order: object) -> dict[str, Any]:
    """Run a side once -> what it says, and how often it would have been killed for want of memory."""
    with cgroup() as group, group.kept_alive() as saved:
        return {**said(python("spill.py", *map(str, order), str(group.path))), "saved": len(saved)}


Keep = Callable[[str, np.ndarray], None]


@contextlib.contextmanager
def tiered(size: int, dram: int, limit: int, directory: str, group: Cgroup) -> Iterator[tuple[Any, Keep, Any]]:
    """Ours: a dictionary of arrays in one memory."""
    from thermocline import Memory

    with Memory(f"dram={dram}, zstd={size // 2}, file:{directory}={2 * size}") as memory:
        arrays: dict[str, np.ndarray] = {}

        def keep(name: str, array: np.ndarray) -> None:
            arrays[name] = memory.array(array)

        def spent() -> int:
            return sum(node["peak"] for name, node in memory.stat()["nodes"].items() if not name.startswith("file"))

        yield arrays, keep, spent
        arrays.clear()


@contextlib.contextmanager
def zict(size: int, dram: int, limit: int, directory: str, group: Cgroup) -> Iterator[tuple[Any, Keep, Any]]:
    """zict.Buffer over files, without a copy where there need be none."""
    from zict import Buffer, File, Func

    def make(where: str, size: int) -> Buffer:
        slow = Func(memoryview, lambda data: np.frombuffer(data, "u8"), File(f"{directory}/{where}"))
        return Buffer({}, slow, size, weight=lambda _, array: array.nbytes)

    yield from _limited(make, limit, group)


@contextlib.contextmanager
def distributed(size: int, dram: int, limit: int, directory: str, group: Cgroup) -> Iterator[tuple[Any, Keep, Any]]:
    """What a worker of Dask keeps its results in."""
    from distributed.spill import SpillBuffer

    yield from _limited(lambda where, size: SpillBuffer(f"{directory}/{where}", size), limit, group)


def _limited(
    make: Callable[[str, int], MutableMapping[str, np.ndarray]], limit: int, group: Cgroup
) -> Iterator[tuple[Any, Keep, Any]]:
    # What is imported or made at the first use is no data: an array is written out at once, and read again.
    first = make("first", 1)
    first["first"] = np.zeros(_WORDS, "u8")
    check(not first["first"].any(), "the first array")
    first.clear()
    before = group.leave_to_data(limit)
    buffer = make("arrays", int(limit * _SHARE))

    def keep(name: str, array: np.ndarray) -> None:
        buffer[name] = array.copy()

    yield buffer, keep, lambda: group.most() - before
    buffer.clear()


def main() -> None:
    """Time one process."""
    side, *numbers, directory, path = sys.argv[1:]
    count, dram, limit, seed = map(int, numbers)
    contents = Contents("int64")
    # Blocks of the contents are repeated with other numbers: those of one array are all that need be made.
    block = np.zeros(BLOCK, "u8")
    contents.write(block, 0)
    parts = block.reshape(-1, _WORDS)
    sums = [int(part[1:].sum()) for part in parts]
    names = [str(number) for number in range(count)]
    wanted = np.random.default_rng(seed).integers(0, count, count).tolist()
    warm(count * _BYTES)
    group = Cgroup(Path(path))
    group.enter()
    with {"thermocline": tiered, "zict": zict, "distributed": distributed}[side](
        count * _BYTES, dram, limit, directory, group
    ) as (arrays, keep, spent):
        begun = time.perf_counter()
        for number, name in enumerate(names):
            part = parts[number % len(parts)]
            part[0] = number
            keep(name, part)
        put = time.perf_counter() - begun
        got = []
        begun = time.perf_counter()
        for number in wanted:
            array = arrays[names[number]]
            got.append((int(array[0]), int(array.sum())))
        taken = time.perf_counter() - begun
        check(got == [(number, sums[number % len(parts)] + number) for number in wanted], "an array")
        del array
        found = {"set": 1e6 * put / count, "get": 1e6 * taken / count, "spent": spent()}
    print(json.dumps(found))
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
