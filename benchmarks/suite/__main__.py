"""Thermocline beside what a user would pick instead: ratios of two sides, alternating in one run.

    python benchmarks/suite [--quick] [--rounds 5] [--contents KIND ...] [--sides SIDE ...] [--json FILE]

Every side holds the same array, four times the DRAM that it is given (256 MiB in 64 MiB with --quick, 2 GiB in 512 MiB
without), in a process of its own, and does the same to it; whatever is read is checked. A side that cannot be run here
is left out, and the reason printed. Printed are medians, and how far the rounds lie apart.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import signal
import statistics
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
from contents import BLOCK, KINDS
from limits import cgroup
from sides import SIDES
from swap import zram_swap
from workloads import WORKLOADS

import thermocline

HERE = Path(__file__).parent
MIB = 1 << 20
#: Size, DRAM, and random places.
QUICK, FULL = (256 * MIB, 64 * MIB, 20_000), (2048 * MIB, 512 * MIB, 100_000)
#: Seconds that one side may take for one round.
LIMIT = 900


def one_round(side: str, kind: str, shape: tuple[int, int, int], directory: str) -> dict[str, Any]:
    """Run a side once -> what it says.

    Raises
    ------
    OSError
        It cannot be run here.
    """
    size, dram, count = shape
    with contextlib.ExitStack() as stack:
        group = stack.enter_context(cgroup())
        if side == "zram":
            stack.enter_context(zram_swap(2 * size))
        command = [sys.executable, str(HERE / "sides.py"), side, kind, *map(str, (size, dram, count)), directory]
        environment = {**os.environ, "NUMPY_MADVISE_HUGEPAGE": "0", "OMP_NUM_THREADS": "1"}
        ran = subprocess.run(
            [*command, str(group.path)], env=environment, capture_output=True, text=True, timeout=LIMIT, check=False
        )
    if ran.returncode == -signal.SIGKILL:
        raise OSError("it was killed for want of memory under its limit")
    if ran.returncode:
        raise OSError(ran.stderr.strip().splitlines()[-1] if ran.stderr.strip() else f"status {ran.returncode}")
    said: dict[str, Any] = json.loads(ran.stdout)
    return said


def measure(sides: list[str], kind: str, shape: tuple[int, int, int], rounds: int, directory: str) -> dict[str, Any]:
    """All sides, in turn -> by side and workload the seconds per byte or word of each round; and what was left out."""
    found: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    spent: dict[str, int] = {}
    left_out: dict[str, str] = {}
    for _ in range(rounds):
        for side in sides:
            if side in left_out:
                continue
            try:
                said = one_round(side, kind, shape, directory)
            except (OSError, subprocess.SubprocessError) as error:
                left_out[side] = str(error)
                continue
            spent[side] = said["spent"]
            for workload, (seconds, amount) in said["workloads"].items():
                found[side][workload].append(seconds / amount)
    return {"seconds": found, "spent": spent, "left_out": left_out}


def shown(workload: str, seconds: list[float]) -> str:
    """A figure and its spread: GB/s where bytes were counted, microseconds where words were."""
    middle = statistics.median(seconds)
    spread = (max(seconds) - min(seconds)) / middle
    figure = f"{1e-9 / middle:.2f} GB/s" if workload in ("fill", "scan") else f"{1e6 * middle:.2f} us"
    return f"{figure} ±{50 * spread:.0f} %"


def table(kind: str, sides: list[str], found: dict[str, Any]) -> str:
    """A table of one kind of contents: each workload, by side, and the peers' times over ours."""
    there = [side for side in sides if side in found["seconds"]]
    peers = [side for side in there if side != "thermocline"]
    rows = [
        f"| {kind} | {' | '.join(there)} | {' | '.join(f'{peer} / thermocline' for peer in peers)} |",
        "|---" * (1 + len(there) + len(peers)) + "|",
    ]
    for workload in WORKLOADS:
        seconds = {side: found["seconds"][side][workload] for side in there}
        ratios = [
            f"{statistics.median(seconds[peer]) / statistics.median(seconds['thermocline']):.2f}"
            for peer in peers
            if "thermocline" in seconds
        ]
        rows.append(f"| {workload} | {' | '.join([*(shown(workload, seconds[side]) for side in there), *ratios])} |")
    spent = [f"{found['spent'][side] // MIB} MiB" for side in there]
    rows.append(f"| DRAM spent | {' | '.join([*spent, *[''] * len(peers)])} |")
    rows += [f"\n{side} was left out: {why}" for side, why in found["left_out"].items()]
    return "\n".join(rows)


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--scale", type=float, default=1.0, help="make everything smaller, for a try")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--contents", nargs="+", choices=KINDS, default=["float32", "int64", "random"])
    parser.add_argument("--sides", nargs="+", choices=list(SIDES), default=list(SIDES))
    parser.add_argument("--directory", default="/var/tmp")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    size, dram, count = (int(number * options.scale) for number in (QUICK if options.quick else FULL))
    shape = size // (8 * BLOCK) * 8 * BLOCK, dram, count
    machine = f"{os.cpu_count()} processors, Linux {platform.release()}, Python {platform.python_version()}"
    versions = f"NumPy {np.__version__}, Thermocline {thermocline.__version__}"
    print(f"{shape[0] // MIB} MiB in {shape[1] // MIB} MiB; medians of {options.rounds}; {machine}, {versions}")
    results = {}
    with tempfile.TemporaryDirectory(dir=options.directory) as directory:
        for kind in options.contents:
            results[kind] = measure(options.sides, kind, shape, options.rounds, directory)
            print(f"\n{table(kind, options.sides, results[kind])}", flush=True)
    if options.json is not None:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps({"machine": machine, "versions": versions, "results": results}, indent=1))


if __name__ == "__main__":
    main()
