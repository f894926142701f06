"""The same DRAM in total for all: which limit gives compressed swap what we took, its pool included."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

#: By how much the totals may differ.
_CLOSE = 0.02
#: What must be left of the limit for a program to get anywhere, as a share of the data.
_LEAST = 1 / 32


@dataclass(frozen=True)
class Limit:
    """A limit in bytes, and why it is not the one that would be fair (empty: it is)."""

    size: int
    reason: str = ""


def equal_limit(total: int, data: int, first: int, spent: Callable[[int], int]) -> Limit:
    """The limit under which DRAM and pool come to a total.

    The pool of zram is not charged to the limit, and holds what the limit leaves no room for: ``spent(limit) = limit +
    (data - limit) / ratio``. One run tells the ratio, another corrects for what the pool loses in corners. Where all
    of the data in the pool is more than the total, there is no such limit.

    Parameters
    ----------
    total : int
        What both sides are to spend, in bytes.
    data : int
        What there is to hold.
    first : int
        A limit to begin with, less than the data.
    spent : callable
        Runs the workload under a limit -> bytes spent in all.
    """
    if total >= data:
        return Limit(data)
    limit = first
    for _ in range(3):
        came_to = spent(limit)
        if abs(came_to - total) <= _CLOSE * total:
            return Limit(limit)
        squeezed = max(came_to - limit, 1) / max(data - limit, 1)
        if squeezed >= 1:
            return Limit(first, f"zram does not make this smaller, and cannot hold it in {total >> 20} MiB")
        # Along the line through this run, of which a byte more of the limit makes 1 - squeezed more in total.
        aim = limit + (total - came_to) / (1 - squeezed)
        if aim < _LEAST * data:
            least = squeezed * data
            return Limit(
                first,
                f"zram takes {least / (1 << 20):.0f} MiB for all of this, and cannot hold it in {total >> 20} MiB",
            )
        limit = int(aim)
    return Limit(limit)
