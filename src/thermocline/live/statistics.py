"""The books as the user sees them, read from the shared tables: by the program, the supervisor, or both."""

from __future__ import annotations

from typing import Any

from thermocline.live.tables import FAULT_CLASSES, NODE_WORDS, Tables
from thermocline.protocol.mm import Mm
from thermocline.protocol.node import Kind
from thermocline.protocol.vmstat import VmStat

#: Classes an octave of fault times: a class is at most an eighth wide.
_SUB = 8


def fault_class(nanoseconds: int) -> int:
    """The class that a fault time is counted in."""
    octave = max(nanoseconds.bit_length() - 1, 3)
    return min((octave - 3) * _SUB + (nanoseconds >> octave - 3 & 7), FAULT_CLASSES - 1)


def class_upper_bound(index: int) -> int:
    """The largest time of a class, in nanoseconds."""
    octave, eighth = divmod(index, _SUB)
    return (8 + eighth + 1 << octave) - 1


def publish(mm: Mm, tables: Tables) -> None:
    """Write the books of the nodes to the tables."""
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
        by the kernel's account. ``pager``: how many were started (more than one: one was killed). ``vmstat``: every
        counter. ``fault_seconds``: percentiles of the time between the pager's hearing of a fault and its answer.
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
        "arena": {"peak_resident": tables.header[Tables.HEADER_PEAK_RESIDENT]},
        "pager": {"starts": tables.header[Tables.HEADER_PAGER_STARTS]},
        "vmstat": VmStat(tables.counters).as_dict(),
        "fault_seconds": _percentiles(tables),
    }


def _percentiles(tables: Tables) -> dict[str, float]:
    classes = list(tables.fault_classes)
    total = sum(classes)
    slowest = tables.header[Tables.HEADER_FAULT_MAX]
    found = {}
    for name, share in (("p50", 0.5), ("p99", 0.99), ("p999", 0.999)):
        left = total * share
        value = 0
        for index, count in enumerate(classes):
            left -= count
            if count and left <= 0:
                value = min(class_upper_bound(index), slowest)
                break
        found[name] = value / 1e9
    found["max"] = slowest / 1e9
    return found
