"""Making arrays under ``mem.numpy()``, beside NumPy's own allocator.

    python allocation.py

In each process the same statements are timed with NumPy's own functions and with those of the filter in their place, by
turns, the latter over a real memory. `benchmarks/allocator.py` takes the filter alone apart.
"""

from __future__ import annotations

import gc
import json
import os
import statistics
import sys
import timeit
from collections.abc import Iterator

import numpy as np
from plan import HUGE, Plan
from process import python, said
from samples import Table

#: Statement, and how often it is run for a sample.
_STATEMENTS = {
    "np.empty(10)": 20_000,
    "np.empty(1000)": 20_000,
    "np.ones(10) + 1": 20_000,
    "np.empty(1 << 20)": 50,
    "np.zeros(1 << 20)": 50,
    "np.ones(1 << 20)": 3,
}
_TURNS = 5


def measure(plan: Plan, sides: list[str]) -> Iterator[tuple[str, Table]]:
    """One table."""
    table = Table("making an array: np.empty, np.zeros and np.ones of float64", ["mem.numpy()", "plain"])
    for number in range(plan.rounds):
        for statement, times in said(python("allocation.py"), HUGE).items():
            for side, seconds in times.items():
                table.add(statement, "ns", side, number, 1e9 * seconds)
    table.remark("Arrays of 1 MiB and more are tiered: `1 << 20` are 8 MiB. Plain ones of that size come from mmap(2), "
                 "or from what was just freed.")  # fmt: skip
    yield "allocation", table


def main() -> None:
    """Time one process."""
    from thermocline import Memory
    from thermocline.numpy_allocator.handler import default_handler

    handler = default_handler()
    plain = [word or 0 for word in handler.functions]
    with Memory("dram=256MiB, zstd=256MiB") as memory, memory.numpy():
        filtered = [word or 0 for word in handler.functions]
        found: dict[str, dict[str, float]] = {}
        for statement, count in _STATEMENTS.items():
            timer = timeit.Timer(statement, globals={"np": np})
            samples: dict[str, list[float]] = {"plain": [], "mem.numpy()": []}
            for _ in range(_TURNS):
                for side, functions in (("plain", plain), ("mem.numpy()", filtered)):
                    handler.replace(functions)
                    samples[side].append(min(timer.repeat(3, count)) / count)
            found[statement] = {side: statistics.median(seconds) for side, seconds in samples.items()}
        handler.replace(filtered)
        assert (np.ones(1 << 20) + 1 == 2).all()
        gc.collect()
    print(json.dumps(found))
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
