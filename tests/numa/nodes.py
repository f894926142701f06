"""The memory nodes of the machine that this runs on, as sysfs has them."""

from __future__ import annotations

import re
from pathlib import Path

_NODES = Path("/sys/devices/system/node")
_TIERS = Path("/sys/devices/virtual/memory_tiering")


def slow_nodes() -> list[int]:
    """The nodes that node 0 may demote to: those in a tier of slower memory."""
    tiers: dict[int, list[int]] = {}
    for folder in _TIERS.glob("memory_tier*"):
        tiers[int(re.sub(r"\D", "", folder.name))] = _numbers((folder / "nodelist").read_text())
    fast = [tier for tier, nodes in tiers.items() if 0 in nodes]
    return sorted(node for tier, nodes in tiers.items() for node in nodes if fast and tier > fast[0])


def free_bytes(node: int) -> int:
    """Bytes of a node that nobody uses."""
    return _meminfo(node, "MemFree")


def anonymous_bytes(node: int) -> int:
    """Bytes of programs' memory in a node that is no file's."""
    return _meminfo(node, "AnonPages")


def vmstat() -> dict[str, int]:
    """The kernel's counters, of all nodes together."""
    rows = (line.split() for line in Path("/proc/vmstat").read_text().splitlines())
    return {name: int(value) for name, value in rows}


def online(node: int) -> int:
    """The blocks of memory that a node has and that are in use: 0 if it is offline."""
    return sum((block / "state").read_text() == "online\n" for block in _blocks(node))


def take_offline(node: int) -> list[Path]:
    """Take all memory of a node away, in mid-run: the kernel moves what is there to other nodes -> its blocks.

    Raises
    ------
    OSError
        Something in it cannot be moved, or there is no room elsewhere.
    """
    blocks = _blocks(node)
    for block in blocks:
        (block / "state").write_text("offline")
    return blocks


def bring_online(blocks: list[Path]) -> None:
    """Give a node the memory back that :func:`take_offline` took."""
    for block in blocks:
        (block / "state").write_text("online_movable")


def _blocks(node: int) -> list[Path]:
    return sorted(path.resolve() for path in (_NODES / f"node{node}").glob("memory[0-9]*"))


def _meminfo(node: int, name: str) -> int:
    found = re.search(rf"{name}:\s+(\d+) kB", (_NODES / f"node{node}" / "meminfo").read_text())
    assert found is not None
    return int(found[1]) * 1024


def _numbers(text: str) -> list[int]:
    """The numbers of a list like 0,2-4."""
    found: list[int] = []
    for part in text.strip().split(","):
        if part:
            first, _, last = part.partition("-")
            found += range(int(first), int(last or first) + 1)
    return found
