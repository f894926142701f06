"""The same DRAM in total for all: which limit gives compressed swap what we took, its pool included."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

#: By how much the totals may differ.
_CLOSE = 0.02
#: Runs under a limit, at most: each brings it nearer.
_RUNS = 3
#: What must be left of the limit for a program to get anywhere, as a share of the data.
_LEAST = 1 / 32


@dataclass(frozen=True)
class Limit:
    """A limit in bytes, and why it is not the one that would be fair (empty: it is)."""

    size: int
    reason: str = ""


def equal_limit(total: int, data: int, first: int, pool: Callable[[int], int]) -> Limit:
    """The limit under which DRAM and pool come to a total.

    The pool of zram is not charged to the limit, and holds what the limit leaves no room for: ``pool(limit) = (data -
    limit) / ratio``. One run tells the ratio, others correct for what the pool loses in corners. Where all of the data
    in the pool is more than the total, there is no such limit.

    Parameters
    ----------
    total : int
        What both sides are to spend, in bytes.
    data : int
        What there is to hold.
    first : int
        A limit to begin with, less than the data.
    pool : callable
        Runs the workload under a limit -> the most bytes that the pool took.
    """
    if total >= data:
        return Limit(data)
    limit = first
    for _ in range(_RUNS):
        pooled = pool(limit)
        if abs(limit + pooled - total) <= _CLOSE * total:
            break
        squeezed = max(pooled, 1) / max(data - limit, 1)
        least = squeezed * data
        # Along the line through this run, of which a byte more of the limit makes 1 - squeezed more in total.
        aim = limit + (total - limit - pooled) / (1 - squeezed) if squeezed < 1 else 0
        if aim < _LEAST * data:
            needs = f"{least / (1 << 20):.0f} MiB"
            return Limit(first, f"zram takes {needs} for all of this, and cannot hold it in {total >> 20} MiB")
        limit = int(aim)
    return Limit(limit)
