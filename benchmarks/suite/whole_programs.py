"""Whole programs, as they are, with a quarter of the DRAM that they take: under ``thermocline run``, and over zram."""

from __future__ import annotations

import contextlib
import math
import os
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from contents import WrongError
from fairness import Limit, equal_limit
from limits import Cgroup, cgroup
from plan import HUGE, MIB, Plan
from process import HERE, persistent, said
from samples import DRAM, Table
from swap import zram_swap

PROGRAMS = {
    "svd": "scikit-learn's TruncatedSVD of dense float32",
    "tables": "pandas: group-by and join",
    "pagerank": "PageRank over SciPy's CSR arrays",
}
#: Plain first, because it tells what a quarter is; then ours, because the last is given what it took.
_ORDER = ("plain", "thermocline", "zram")
_SHARE = 4


class Program:
    """One program on all sides."""

    def __init__(self, plan: Plan, name: str, table: Table) -> None:
        self._plan, self._name, self._table = plan, name, table
        self._script = HERE / "programs" / f"{name}.py"
        self._results: list[float] = []
        self._spent: dict[str, list[int]] = defaultdict(list)
        self._zram: Limit | None = None
        self._left_out: set[str] = set()

    @property
    def _dram(self) -> int:
        """A quarter of what it takes plain, in whole pages."""
        return max(self._spent["plain"][0] // _SHARE // 65536, 32) * 65536

    def _run(self, side: str, limit: int = 0) -> dict[str, Any]:
        """Once -> seconds and bytes.

        Raises
        ------
        OSError
            It cannot be run here.
        WrongError
            Its results are not those of the plain run.
        """
        command = [sys.executable, str(self._script), str(self._plan.footprint)]
        with contextlib.ExitStack() as stack:
            group = stack.enter_context(cgroup())
            environment = {"BENCH_CGROUP": str(group.path), "BENCH_LIMIT": str(limit)}
            if side == "plain":
                environment |= HUGE
            if side == "thermocline":
                taken = self._spent["plain"][0]
                spec = f"dram={self._dram}, zstd={taken // 2}, file:{self._plan.directory}={8 * taken}"
                command = [sys.executable, "-m", "thermocline.cli", "run", "--memory", spec, "--quiet", *command[1:]]
            device = stack.enter_context(zram_swap(4 * self._spent["plain"][0])) if side == "zram" else None
            saved = stack.enter_context(group.kept_alive())
            found: dict[str, Any] = said(command, environment, before=Entering(group))
            if device is not None:
                found["pool"] = device.most()
                found["spent"] += found["pool"]
            found["saved"] = len(saved)
        self._results = self._results or found["results"]
        if not all(math.isclose(*pair, rel_tol=1e-5) for pair in zip(self._results, found["results"], strict=True)):
            raise WrongError(f"{self._name}, {side}: the results are not those of the plain run")
        return found

    def _tried(self, side: str, limit: int = 0) -> dict[str, Any]:
        """`_run`, again if it was killed."""
        found = persistent(lambda: self._run(side, limit))
        if found["saved"]:
            self._table.remark(f"{self._name}: {side} was to be killed for want of memory under its limit.")
        return found

    def _limit(self) -> int:
        """What zram may take beside its pool."""
        if self._zram is None:
            total = max(self._spent["thermocline"], default=self._dram)
            self._zram = equal_limit(
                total, self._spent["plain"][0], self._dram, lambda limit: int(self._tried("zram", limit)["pool"])
            )
            if self._zram.reason:
                self._table.remark(f"{self._name}: not the same DRAM, {self._zram.reason}.")
        return self._zram.size

    def measure(self) -> None:
        """All rounds of all sides."""
        for number in range(self._plan.rounds):
            for side in _ORDER[:: 1 if number % 2 == 0 else -1]:
                if side not in self._table.sides or side in self._left_out:
                    continue
                try:
                    found = self._tried(side, self._limit() if side == "zram" else 0)
                except OSError as error:
                    if side == "plain":
                        raise
                    self._left_out.add(side)
                    self._table.remark(f"{self._name}: {side} was left out from round {number + 1}: {error}.")
                    continue
                self._table.add(self._name, "s", side, number, found["seconds"])
                self._spent[side].append(found["spent"])
                self._table.add(f"{self._name}: {DRAM}", "MiB", side, number, found["spent"] / MIB)


class Entering:
    """Puts whoever calls it into a cgroup: a child, before it becomes the program."""

    def __init__(self, group: Cgroup) -> None:
        self._procs = Path(group.path, "cgroup.procs")

    def __call__(self) -> None:
        self._procs.write_text(str(os.getpid()))


def measure(plan: Plan, sides: list[str]) -> Iterator[tuple[str, Table]]:
    """One table."""
    title = f"whole programs with a quarter of the DRAM that they take: {plan.footprint // MIB} MiB or so"
    table = Table(title, [side for side in ("thermocline", "zram", "plain") if side in sides or side == "plain"])
    for name, what in PROGRAMS.items():
        table.remark(f"{name}: {what}.")
        try:
            Program(plan, name, table).measure()
        except OSError as error:
            table.remark(f"{name}: not measured, {error}.")
    table.remark("DRAM is what their cgroup was charged at most on top of what it held when all was imported, and "
                 "zram's pool; of ours, what the helpers grew by is in it.")  # fmt: skip
    yield "programs", table
