"""How fast virtual time passes: touches a second that hit, and faults a second.

    python benchmarks/virtual.py [--touches 200000000] [--rounds 3]

The best of a few rounds each. Hits: threads that touch random pages, all of them in DRAM. Faults: threads that touch
random pages of an array four times as large as DRAM, over compressed memory and a file, with reclaim at work; virtual
seconds a second say how that compares with the machine whose costs these are.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np

from thermocline.protocol.migrate import DESIGNS
from thermocline.spec import Compressed, Dram, File
from thermocline.virtual.costs import Cost, Costs, StoreCosts
from thermocline.virtual.machine import VirtualMemory
from thermocline.virtual.result import Result

PAGE = 64 << 10
PIECE = 1 << 22


def _cost(call: float, byte: float = 0.0) -> Cost:
    return Cost(call, byte, 0.2)


#: Of no machine in particular. They vary, because to draw their variation takes time, too.
COSTS = Costs(
    cores=4,
    hit=_cost(4),
    fault=_cost(20_000),
    wake=_cost(10_000),
    think=_cost(55_000),
    turn=_cost(3_000),
    message=_cost(2_000),
    effect=_cost(1_000),
    request=_cost(25_000),
    worker=_cost(60_000),
    install=_cost(3_000, 0.15),
    zero=_cost(3_000, 0.05),
    protect=_cost(2_000, 0.01),
    unprotect=_cost(2_000, 0.01),
    punch=_cost(3_000, 0.1),
    read=_cost(1_500, 0.1),
    poison=_cost(2_000),
    stores={
        "zstd": StoreCosts(_cost(2_000, 0.3), _cost(3_000, 1.2), 3.0),
        "file": StoreCosts(_cost(80_000, 0.5), _cost(60_000, 0.3)),
    },
)


def hits(pages: int, threads: int, touches: int) -> VirtualMemory:
    """Threads that find every page in DRAM."""
    made = VirtualMemory([Dram((pages + 4) * PAGE)], COSTS, page_size=PAGE, pages=pages)
    made.region(pages)
    made.place(range(pages), 0)
    piece = np.random.default_rng(0).integers(0, 2 * pages, PIECE, dtype=np.uint32)
    for _ in range(threads):
        made.thread(piece for _ in range(max(touches // threads // PIECE, 1)))
    return made


def faults(design: str, touches: int) -> VirtualMemory:
    """Threads that find every other page gone."""
    dram, pages = 256, 1024
    nodes = Dram(dram * PAGE), Compressed(dram * PAGE, "zstd"), File("/nowhere", 2 * pages * PAGE)
    made = VirtualMemory(nodes, COSTS, page_size=PAGE, pages=pages, design=design)
    made.region(pages)
    random = np.random.default_rng(0)
    for _ in range(4):
        made.thread([random.integers(0, 2 * pages, touches // 4, dtype=np.uint32)])
    return made


def best(rounds: int, make: Callable[[], VirtualMemory]) -> tuple[float, Result]:
    """Seconds of the processor that the fastest of some equal runs took, and what came of it."""
    times = []
    for _ in range(rounds):
        made = make()
        started = time.process_time()
        result = made.run()
        times.append(time.process_time() - started)
    return min(times), result


def main() -> None:
    parser = argparse.ArgumentParser(description="How fast virtual time passes.")
    parser.add_argument("--touches", type=int, default=200_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    print(f"{'hits':24}{'million/s':>12}")
    for pages, threads in ((1_000, 1), (1_000, 4), (100_000, 1), (1_000_000, 1)):
        seconds, result = best(arguments.rounds, lambda: hits(pages, threads, arguments.touches))  # noqa: B023
        touches = sum(thread.touches for thread in result.threads)
        print(f"{f'{pages:,} pages, {threads} threads':24}{touches / seconds / 1e6:12.0f}")
    print(f"\n{'faults':24}{'thousand/s':>12}{'virtual s/s':>14}")
    for design in DESIGNS:
        seconds, result = best(arguments.rounds, lambda: faults(design, 20_000))  # noqa: B023
        print(f"{design:24}{result.vmstat['pgfault'] / seconds / 1e3:12.1f}{result.ns / 1e9 / seconds:14.2f}")


if __name__ == "__main__":
    main()
