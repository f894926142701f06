"""An array that is larger than its DRAM: ours beside zram, a mapped file, and memory without a limit."""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any

from contents import KINDS
from fairness import Limit, equal_limit
from limits import cgroup
from plan import MIB, Plan
from process import persistent, python, said
from samples import DRAM, Table, in_turn
from sides import SIDES, Order
from swap import zram_swap
from workloads import SCATTERED, WORKLOADS

#: The side without a goal.
_KEPT = "memmap, kept"
#: Enough to see what a limit comes to: the pool is largest when pages have been written twice.
_CALIBRATION = ("fill", "uniform reads", "read-modify-write")


def one_round(order: Order) -> dict[str, Any]:
    """Run a side once -> what it says, and how often it would have been killed for want of memory.

    Raises
    ------
    OSError
        It cannot be run here.
    """
    with contextlib.ExitStack() as stack:
        group = stack.enter_context(cgroup())
        order = replace(order, cgroup=str(group.path))
        if order.side == "zram":
            device = stack.enter_context(zram_swap(2 * order.size)).device
            order = replace(order, zram=str(device))
        saved = stack.enter_context(group.kept_alive())
        found: dict[str, Any] = {**said(python("sides.py", order.text())), "saved": len(saved)}
    return found


class Arrays:
    """One kind of contents on all sides."""

    def __init__(self, plan: Plan, kind: str, sides: list[str]) -> None:
        title = f"{kind}: {plan.size // MIB} MiB in {plan.dram // MIB} MiB of DRAM and what is compressed below it"
        self.table = Table(title, sides)
        self._plan, self._kind = plan, kind
        self._order = Order(
            "thermocline",
            kind if kind in KINDS else KINDS[0],
            plan.size,
            plan.dram,
            plan.dram,
            plan.count,
            str(plan.directory),
            plan.workloads[kind],
        )
        self._limits: dict[str, Limit] = {}
        self._spent: dict[str, list[int]] = defaultdict(list)
        self._left_out: set[str] = set()
        self._saved: dict[str, int] = defaultdict(int)

    def _workloads(self, side: str) -> tuple[str, ...]:
        """What a side does: a file that is kept in the cache is another one only where places are scattered."""
        names = self._order.workloads
        kept = SCATTERED | {"fill"} if SCATTERED & set(names) else set()
        return tuple(name for name in names if side != _KEPT or name in kept)

    def _limit(self, side: str) -> Limit:
        """What a side may take: what ours took, its limit such that its pool is within that."""
        if side in self._limits:
            return self._limits[side]
        total = max(self._spent["thermocline"], default=self._plan.dram)
        limit = Limit(total)
        if side == "zram":
            mine = tuple(name for name in _CALIBRATION if name in self._order.workloads)
            order = replace(self._order, side=side, workloads=mine or self._order.workloads)

            def pool(size: int) -> int:
                return int(persistent(partial(one_round, replace(order, limit=size)))["pool"])

            limit = equal_limit(total, self._plan.size, self._plan.dram, pool)
            if limit.reason:
                more = f"it was given {limit.size // MIB} MiB, and its pool on top (see the row of what was spent)"
                self.table.remark(f"Not the same DRAM: {limit.reason}; {more}.")
        self._limits[side] = limit
        return limit

    def measure(self) -> Table:
        """All rounds of all sides. Ours is first, because the others are given what it took."""
        for number, side in in_turn(self.table.sides, self._plan.rounds):
            if side in self._left_out or not self._workloads(side):
                continue
            try:
                limit = self._limit(side).size if side not in {"thermocline", "plain"} else 0
                order = replace(self._order, side=side, limit=limit, workloads=self._workloads(side))
                found = persistent(partial(one_round, order))
            except OSError as error:
                self._left_out.add(side)
                self.table.remark(f"{side} was left out from round {number + 1}: {error}.")
                continue
            self._enter(side, number, found)
        return self.table

    def _enter(self, side: str, number: int, found: dict[str, Any]) -> None:
        for name, figure in found["figures"].items():
            self.table.add(name, WORKLOADS[name].unit, side, number, figure)
        if found["packed"] and found["packed"][1]:
            held, taken = found["packed"]
            self.table.add("held by a byte of compressed memory", "x", side, number, held / taken)
        self._spent[side].append(found["spent"])
        self.table.add(DRAM, "MiB", side, number, found["spent"] / MIB)
        if found["helpers"]:
            helpers = f"{found['helpers'] / MIB:.0f} MiB"
            self.table.facts.setdefault("its helper processes, not counted", {})[side] = helpers
        if found["saved"]:
            self._saved[side] += found["saved"]
            times = self.table.facts.setdefault("times it was to be killed for want of memory", {})
            times[side] = str(self._saved[side])


def measure(plan: Plan, sides: list[str]) -> Iterator[tuple[str, Table]]:
    """A table for each kind of contents."""
    names = [side for side in SIDES if side in sides and (plan.extras or side != _KEPT)]
    for kind in plan.workloads:
        yield f"arrays, {kind}", Arrays(plan.of(kind), kind, names).measure()
