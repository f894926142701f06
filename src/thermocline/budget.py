"""The nodes that a DRAM budget alone stands for (`--dram SIZE`), and those that a machine has (`Memory("auto")`)."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import SupportsIndex

from thermocline.cgroup import memory_limit, mounts
from thermocline.errors import SpecError
from thermocline.sizes import parse_size
from thermocline.spec import (
    DEFAULT_PAGE_SIZE,
    MINIMUM_PAGES,
    Compressed,
    Dram,
    File,
    Limit,
    NodeSpec,
    Numa,
    check_limit,
    check_minimum,
    check_page_size,
    expressible,
    free_space,
)
from thermocline.topology import Topology

_MEMORY_FILESYSTEMS = {"tmpfs", "ramfs", "devtmpfs", "hugetlbfs"}


def default_spec(
    dram: str | SupportsIndex,
    page_size: str | SupportsIndex = DEFAULT_PAGE_SIZE,
    *,
    limit: Limit = memory_limit,
    proc: str | Path = "/proc",
) -> tuple[NodeSpec, ...]:
    """Sensible nodes below a DRAM budget.

    Compressed memory of half the budget, but of no more than half of what the container's limit leaves beside
    the budget (the program needs some for itself); then a file of 16 times the budget, but of no more than 80
    % of the free space, in the first of $TMPDIR, /var/tmp and /tmp that is on a disk. A node for which there
    is no room or no place is left out.

    Parameters
    ----------
    dram
        The budget in bytes or as text, or ``"auto"``: half of the container's memory limit.
    page_size, limit
        As for `parse_spec`.
    proc
        Where the proc filesystem is mounted.

    Raises
    ------
    SpecError
        The budget is no size or below the minimum, or it is ``"auto"`` and no container sets a limit.
    """
    page = check_page_size(page_size)
    most = limit()
    if isinstance(dram, str) and dram.strip().lower() == "auto":
        if most is None:
            raise SpecError("no container sets a memory limit here, so there is nothing to halve; write --dram 2GiB")
        budget = most // 2 // page * page
    else:
        budget = parse_size(dram) // page * page
    nodes: list[NodeSpec] = [Dram(budget)]
    check_minimum(nodes[0], page)
    check_limit(nodes, most)
    return (*nodes, *_below(budget, None if most is None else most - budget, page, proc))


def auto_spec(
    page_size: str | SupportsIndex = DEFAULT_PAGE_SIZE,
    *,
    limit: Limit = memory_limit,
    topology: Callable[[], Topology] = Topology.read,
    proc: str | Path = "/proc",
) -> tuple[NodeSpec, ...]:
    """The nodes of this machine, in its own order of demotion.

    DRAM is half of the container's memory limit or, where there is none, half of the fastest memory nodes. Then come
    the slow ones, tier by tier, the nearest first: half of what is free on each. A container pays for what is there as
    well, so within a limit they share half of what DRAM leaves. Then compressed memory and a file, as for
    `default_spec`.

    Raises
    ------
    SpecError
        Neither a container nor the kernel says how much memory there is, or it is below the minimum.
    """
    page = check_page_size(page_size)
    machine = topology()
    most = limit()
    fast = sum(machine.nodes[index].size for index in machine.fast)
    if most is None and not fast:
        raise SpecError(
            "no container sets a memory limit, and this kernel tells of no memory nodes; write the nodes, such as"
            ' "dram=2GiB, zstd=4GiB"'
        )
    budget = min(most or fast, fast or most or 0) // 2 // page * page
    dram = Dram(budget)
    check_minimum(dram, page)
    room = (fast if most is None else most) - budget
    slow: list[Numa] = []
    for index in machine.demotion_order():
        size = machine.nodes[index].free // 2
        if most is not None:
            size = min(size, room // 2)
        if size >= MINIMUM_PAGES * page:
            slow.append(Numa(index, size // page * page))
            room -= slow[-1].capacity if most is not None else 0
    return (dram, *slow, *_below(budget, room, page, proc))


def _below(budget: int, room: int | None, page: int, proc: str | Path) -> list[NodeSpec]:
    """What is below DRAM and slow memory: compressed memory within half of what room is left for it, and a file."""
    nodes: list[NodeSpec] = []
    compressed = budget // 2 if room is None else min(budget // 2, room // 2)
    if compressed >= MINIMUM_PAGES * page:
        nodes.append(Compressed(compressed // page * page))
    for directory in (os.environ.get("TMPDIR", ""), "/var/tmp", "/tmp"):
        if _on_disk(directory, proc):
            quota = min(16 * budget, free_space(directory) // 10 * 8) // page * page
            if quota >= MINIMUM_PAGES * page:
                nodes.append(File(directory, quota))
                break
    return nodes


def _on_disk(directory: str, proc: str | Path) -> bool:
    """Whether files of default size may go there: it exists, can be written to, and is not itself memory."""
    if not os.path.isabs(directory) or not os.path.isdir(directory) or not expressible(directory):
        return False
    if not os.access(directory, os.W_OK | os.X_OK):
        return False
    place = Path(directory).resolve()
    # The longest mount point that holds the directory is its filesystem, and the last one made hides earlier
    # ones.
    above = [mount for mount in mounts(proc) if place.is_relative_to(mount.point)]
    nearest = max(above, key=lambda mount: len(mount.point.parts), default=None)
    if nearest is None:
        return True
    kind = [mount.kind for mount in above if mount.point == nearest.point][-1]
    return kind not in _MEMORY_FILESYSTEMS
