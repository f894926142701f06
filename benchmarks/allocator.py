"""What the filter costs an array: NumPy with and without it, alternating.

    python benchmarks/allocator.py [--rounds 7]

Each round starts a process. In it the same statements are timed with NumPy's own functions and with the filter's in
their place, by turns. The table gives medians over all, in nanoseconds, and their
ratio. Blocks below the threshold never enter Python. Those above it go all the way to a source that keeps blocks of
one size and nothing else, so what a real memory adds is not in the figures.
"""

import argparse
import ctypes
import json
import mmap
import os
import statistics
import subprocess
import sys
import time
import timeit
from pathlib import Path
from typing import Any

MIN_ARRAY = 1 << 20
BLOCK = 8 << 20
ARENA = 1 << 30

STATEMENTS = {
    "np.empty(10)": "empty(10)",
    "np.empty(1000)": "empty(1000)",
    "np.zeros(1000)": "zeros(1000)",
    "np.ones(10) + 1": "ones + 1",
    "np.empty(100_000)": "empty(100_000)",
    "np.empty(1 << 17), tiered": "empty(1 << 17)",
    "np.zeros(1 << 17), tiered": "zeros(1 << 17)",
    "np.zeros(1 << 20), tiered": "zeros(1 << 20)",
}
TURNS = 9


class Blocks:
    """A source of blocks of one size over anonymous memory. It does not clear them: no statement here writes."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, ARENA)
        self.low = ctypes.addressof(ctypes.c_char.from_buffer(self._memory))
        self.high = self.low + ARENA
        self._free = list(range(self.low, self.high, BLOCK))

    def allocate_block(self, nbytes: int) -> int:
        return self._free.pop() if nbytes <= BLOCK and self._free else 0

    def free_block(self, address: int) -> None:
        self._free.append(address)

    def block_size(self, address: int) -> int:
        return BLOCK


def timed() -> dict[str, tuple[float, float]]:
    """Seconds of each statement, stock and filtered, and what installing the filter took."""
    import numpy as np

    from thermocline import numpy_allocator
    from thermocline.numpy_allocator.handler import default_handler

    handler = default_handler()
    stock = [word or 0 for word in handler.functions]
    source = Blocks()
    started, resident = time.perf_counter(), resident_bytes()
    numpy_allocator.install(source.low, source.high)
    results = {
        "install(), s": (0.0, time.perf_counter() - started),
        "install(), bytes": (0.0, resident_bytes() - resident),
    }
    filtered = [word or 0 for word in handler.functions]
    numpy_allocator.register_source(source, source.low, source.high)
    numpy_allocator.activate(source, MIN_ARRAY)

    names: dict[str, Any] = {"empty": np.empty, "zeros": np.zeros, "ones": np.ones(10)}
    for name, statement in STATEMENTS.items():
        timer = timeit.Timer(statement, globals=names)
        count = 2000 if "tiered" in name else 20_000
        samples: tuple[list[float], list[float]] = ([], [])
        for _ in range(TURNS):
            for functions, seconds in zip((stock, filtered), samples, strict=True):
                handler.replace(functions)
                seconds.append(min(timer.repeat(3, count)) / count)
        results[name] = (statistics.median(samples[0]), statistics.median(samples[1]))
    return results


def resident_bytes() -> float:
    """The memory of this process (proc_pid_statm(5))."""
    return float(Path("/proc/self/statm").read_text().split()[1]) * mmap.PAGESIZE


def measured() -> dict[str, list[float]]:
    source = str(Path(__file__).parents[1] / "src")
    path = os.pathsep.join(filter(None, [source, os.environ.get("PYTHONPATH")]))
    environment = {**os.environ, "PYTHONPATH": path}
    result = subprocess.run(
        [sys.executable, __file__, "--inside"], env=environment, check=True, capture_output=True, text=True
    )
    return dict(json.loads(result.stdout))


def median(runs: list[dict[str, list[float]]], name: str) -> tuple[float, float]:
    return statistics.median(run[name][0] for run in runs), statistics.median(run[name][1] for run in runs)


def table(runs: list[dict[str, list[float]]]) -> str:
    lines = [f"{'':26}{'stock':>14}{'filter':>12}{'ratio':>10}"]
    for name in STATEMENTS:
        stock, filtered = median(runs, name)
        lines.append(f"{name:26}{stock * 1e9:11.1f} ns{filtered * 1e9:9.1f} ns{filtered / stock:10.3f}")
    for name, unit, factor in (("install(), s", "ms", 1e3), ("install(), bytes", "MiB", 2**-20)):
        lines.append(f"{'install()':26}{f'{median(runs, name)[1] * factor:.1f} {unit}':>36}")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description="What the filter costs an array.")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.inside:
        print(json.dumps(timed()))
        return
    print(table([measured() for _ in range(arguments.rounds)]))


if __name__ == "__main__":
    main()
