"""Import, and start of a memory: seconds, beside importing NumPy alone."""

from __future__ import annotations

import compileall
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from plan import Plan
from process import said
from samples import Table, in_turn

import thermocline

_MEMORY = "import thermocline; array = thermocline.Memory('dram=64MiB, zstd=64MiB').zeros(1)"
#: What each side does, step by step, and what the time from the beginning to the end of a step is called.
_SIDES = {"thermocline": (_MEMORY, "array[0] = 1"), "import numpy": ("import numpy",)}
_ROWS = ("import and start", "... and the first touch")


def _timed(steps: Sequence[str]) -> str:
    """A program that takes these steps, and says after how many seconds each was done."""
    marks = (f"{step}; seconds.append(time.perf_counter() - begun); " for step in steps)
    return f"import time; seconds = []; begun = time.perf_counter(); {''.join(marks)}print(seconds, flush=True)"


def measure(plan: Plan, sides: list[str]) -> Iterator[tuple[str, Table]]:
    """One table."""
    # Whoever installs a package compiles it; what is run from a checkout may not be.
    compileall.compile_dir(Path(thermocline.__file__).parent, quiet=1)
    table = Table("start", list(_SIDES))
    for number, side in in_turn(_SIDES, plan.rounds):
        seconds = said([sys.executable, "-c", _timed(_SIDES[side])])
        for row, figure in zip(_ROWS, seconds, strict=False):  # the first touch is ours alone
            table.add(row, "s", side, number, figure)
    table.remark(
        "Ours imports NumPy, starts the supervisor and the pager, and makes an array. The two go on starting while the"
        " program does something else; a touch waits for them."
    )
    yield "start", table
