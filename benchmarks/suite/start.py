"""Import, and start of a memory: seconds, beside importing NumPy alone."""

from __future__ import annotations

import compileall
import sys
from collections.abc import Iterator
from pathlib import Path

from plan import Plan
from process import said
from samples import Table, in_turn

import thermocline

#: Seconds until it is imported and started, and until an array was touched, where there is one.
_TIMED = "import time; begun = time.perf_counter(); {}; print([time.perf_counter() - begun{}], flush=True)"
_MEMORY = "import thermocline; array = thermocline.Memory('dram=64MiB, zstd=64MiB').zeros(1)"
_SIDES = {
    "thermocline": _TIMED.format(f"{_MEMORY}; started = time.perf_counter() - begun; array[0] = 1", ", started"),
    "import numpy": _TIMED.format("import numpy", ""),
}


def measure(plan: Plan, sides: list[str]) -> Iterator[tuple[str, Table]]:
    """One table."""
    # Whoever installs a package compiles it; what is run from a checkout may not be.
    compileall.compile_dir(Path(thermocline.__file__).parent, quiet=1)
    table = Table("start", list(_SIDES))
    for number, side in in_turn(_SIDES, plan.rounds):
        seconds = said([sys.executable, "-c", _SIDES[side]])
        table.add("import and start", "s", side, number, seconds[-1])
        if len(seconds) > 1:
            table.add("... and the first touch", "s", side, number, seconds[0])
    table.remark(
        "Ours imports NumPy, starts the supervisor and the pager, and makes an array. The two go on starting while the"
        " program does something else; a touch waits for them."
    )
    yield "start", table
