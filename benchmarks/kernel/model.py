"""The same traces in our virtual interpreter, given the kernel's room, its watermarks and what it sees of touches."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from traces import Process

from thermocline.node_spec import Dram, Numa
from thermocline.protocol.node import Watermarks
from thermocline.virtual.costs import Cost, Costs, StoreCosts
from thermocline.virtual.machine import VirtualMemory

PAGE = 4096
_NOTHING = Cost(0)
#: How many times the pages of a trace the slow node holds: it is never full, neither here nor there.
_SLOW = 2

Zones = Mapping[str, Mapping[str, int]]


def costs(times: Mapping[str, float]) -> Costs:
    """What the emulated machine takes: a touch, a fault on a fresh page, and to move a page. All else takes nothing."""
    move = Cost(times["move"])
    return Costs(
        cores=2,
        hit=Cost(times["hit"]),
        zero=Cost(times["fault"]),
        stores={"numa": StoreCosts(read=move, write=move)},
        **{
            name: _NOTHING
            for name in (
                *("fault", "wake", "think", "turn", "message", "effect", "request", "submit", "worker"),
                *("install", "protect", "unprotect", "punch", "read", "poison"),
            )
        },
    )


def watermarks(zones: Zones) -> tuple[int, Watermarks]:
    """The kernel's marks, as one node's -> its capacity in pages, and the marks in bytes.

    A program gets no page below a zone's *min* mark, so that is where our node is full. kswapd is woken when *all*
    zones are below low, and sleeps again when *one* is above high (``pgdat_balanced``): the largest, where the cold
    pages are. The pages of others are in it, too.
    """
    room = {name: zone["free"] + zone["others"] - zone["min"] - zone["reserve"] for name, zone in zones.items()}
    largest = zones[max(room, key=lambda name: room[name])]
    low = sum(zone["low"] - zone["min"] for zone in zones.values())
    high = max(largest["high"] - largest["min"], low)
    return sum(room.values()), Watermarks(0, low * PAGE, high * PAGE)


def accesses(process: Process, start: int) -> Iterator[NDArray[np.uint32]]:
    """A process's touches as the virtual interpreter takes them."""
    for write, pages in process.pieces():
        yield ((pages + start) << 1 | write).astype(np.uint32)


def run(processes: list[Process], zones: Zones, times: Mapping[str, float], **choices: Any) -> dict[str, Any]:
    """A trace -> ``counted`` and ``nodes``, as ``plain.py`` has them."""
    capacity, marks = watermarks(zones)
    others = sum(zone["others"] for zone in zones.values())
    pages = sum(process.pages for process in processes) + others
    memory = VirtualMemory(
        (Dram(capacity * PAGE), Numa(1, _SLOW * pages * PAGE)),
        costs(times),
        page_size=PAGE,
        pages=pages,
        readahead=0,
        **({"promotion": False, "accessed_bits": True, "inactive_ratio": 1} | choices),
    )
    memory.mm.nodes[0].watermarks = marks
    if others:
        first = memory.region(others)
        memory.place(range(first.start, first.end), 0)
    regions = [memory.region(process.pages) for process in processes]
    for process, region in zip(processes, regions, strict=True):
        memory.thread(accesses(process, region.start))
    result = memory.run()
    table = memory.mm.table
    return {
        "counted": {name: count for name, count in memory.vmstat.as_dict().items() if count},
        "nodes": [
            [table.place(page)[0] if table.resident(page) else -1 for page in range(region.start, region.end)]
            for region in regions
        ],
        "seconds": result.ns / 1e9,
    }
