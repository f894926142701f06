"""Import, and start of a memory: seconds, beside importing NumPy alone."""

from __future__ import annotations

from collections.abc import Iterator

from plan import Plan
from process import said
from samples import Table, in_turn

_TIMED = "import time; begun = time.perf_counter(); {}; print(time.perf_counter() - begun, flush=True)"
_SIDES = {
    "thermocline": "import thermocline; memory = thermocline.Memory('dram=64MiB, zstd=64MiB'); memory.zeros(1)",
    "import numpy": "import numpy",
}


def measure(plan: Plan, sides: list[str]) -> Iterator[tuple[str, Table]]:
    """One table."""
    import sys

    table = Table("start", list(_SIDES))
    for number, side in in_turn(_SIDES, plan.rounds):
        seconds = said([sys.executable, "-c", _TIMED.format(_SIDES[side])])
        table.add("import and start", "s", side, number, seconds)
    table.remark("Ours imports NumPy, starts the supervisor and the pager, and makes an array.")
    yield "start", table
