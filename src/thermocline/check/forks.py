"""Cases with forked children: what each sees, whatever the program, the other children and the pager do meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from thermocline.check.cases import cold, either, file, frees, pins, reads, slow_memory, writes, zstd, part_writes
from thermocline.check.configuration import Configuration, Placed
from thermocline.check.family import End, Fork
from thermocline.check.layout import Extent, Layout
from thermocline.check.program import Access
from thermocline.protocol.region import Advice

FORK = (Fork("child"),)
END = (End(),)


def _reads_old() -> Configuration:
    """The program writes what its child reads."""
    return Configuration(
        "fork, program writes",
        Layout(1, 1, (file(2),)),
        {"thread A": (FORK, writes(0), writes(0))},
        children={"child": (reads(0), reads(0))},
        placed=(Placed(0, 0),),
        kswapd=False,
    )
