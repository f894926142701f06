"""The books as the user sees them, read from the shared tables: by the program, the supervisor, or both."""

from __future__ import annotations

import ctypes
import time
from typing import Any

from thermocline.live.tables import NODE_WORDS, Tables
from thermocline.native import library
from thermocline.protocol.histogram import WORDS, Distribution, Histogram
from thermocline.protocol.mm import Mm
from thermocline.protocol.node import Kind
from thermocline.protocol.stopwatch import TIMED
from thermocline.protocol.vmstat import VmStat


def publish(mm: Mm, tables: Tables) -> None:
    """Write the books of the nodes, and what this process has cost, to the tables."""
    tables.header[Tables.HEADER_PAGER_CPU] = time.process_time_ns()
    for node in mm.nodes:
        if node.kind is not Kind.SOURCE:
            at = node.index * NODE_WORDS
            tables.nodes[at], tables.nodes[at + 1], tables.nodes[at + 2] = node.capacity, node.used, node.peak


def collect(tables: Tables, names: list[str]) -> dict[str, Any]:
    """Everything that is counted.

    Returns
    -------
    dict
        ``nodes``: capacity, used and peak of each, in bytes. ``arena``: the most bytes of it that were ever resident,
        and the bytes of the program's page tables when it last looked and could open a file (0: never), by the kernel's
        account. ``pager``: how many were started (more than one: one was killed), the processor time of the present one
        in seconds, and the longest that one took to take another's place, from when the supervisor knew of the death
        until faults were answered again. ``freed``: the blocks that NumPy has freed and that are kept with their frames
        for the next block of their size, and their bytes, which the nodes count as used where they are in memory; and
        how often one was handed out again. ``processes``: how many use the memory now: this one, forked children, and
        those that were sent shared arrays. ``vmstat``: every counter. ``fault_seconds`` and so on: what is timed (see
        :data:`thermocline.protocol.stopwatch.TIMED`).
    """
    nodes = {}
    for index, name in enumerate(names):
        at = index * NODE_WORDS
        nodes[name] = {
            "capacity": tables.nodes[at],
            "used": tables.nodes[at + 1],
            "peak": tables.nodes[at + 2],
        }
    return {
        "nodes": nodes,
        "arena": {
            "peak_resident": tables.header[Tables.HEADER_PEAK_RESIDENT],
            "page_tables": tables.header[Tables.HEADER_PAGE_TABLES],
        },
        "pager": {
            "starts": tables.header[Tables.HEADER_PAGER_STARTS],
            "cpu_seconds": tables.header[Tables.HEADER_PAGER_CPU] / 1e9,
            "longest_replacement_seconds": tables.header[Tables.HEADER_LONGEST_REPLACEMENT] / 1e9,
        },
        "freed": {
            "blocks": tables.header[Tables.HEADER_LAZYFREE_BLOCKS],
            "bytes": tables.header[Tables.HEADER_LAZYFREE_BYTES],
            "reused": tables.header[Tables.HEADER_REUSED],
        },
        "processes": tables.header[Tables.HEADER_ATTACHED],
        "vmstat": VmStat(tables.counters).as_dict(),
        **{f"{name}_seconds": _summary(times) for name, times in timed(tables).items()},
    }


def page_tables() -> int | None:
    """Bytes of this process's page tables, of the arena and of all else that it maps (proc(5), ``VmPTE``).

    None: the kernel does not say, for this process may open no file now, or /proc is not there.
    """
    count = library().tc_process_page_tables
    count.restype = ctypes.c_int64
    size = int(count())
    return None if size < 0 else size


def timed(tables: Tables) -> dict[str, Distribution]:
    """What is timed, as distributions."""
    return {name: Histogram(tables.histograms, index * WORDS).read() for index, name in enumerate(TIMED)}


def _summary(times: Distribution) -> dict[str, float]:
    shares = {"p50": 0.5, "p99": 0.99, "p999": 0.999}
    return {
        "count": times.count,
        "total": times.total / 1e9,
        **{name: times.percentile(share) / 1e9 for name, share in shares.items()},
        "max": times.max / 1e9,
    }
