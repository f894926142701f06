"""Groups: regions that share a limit (a memory cgroup)."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING

from thermocline.protocol.node import Node

if TYPE_CHECKING:
    from thermocline.protocol.lru import Lruvec

#: The group of every region that was given no other. It has no limit of its own.
ROOT = 0


class GroupReclaim(Enum):
    """What reclaim for a group's own limit does about demotion: the kernel's three answers, in the order it gave them.

    Attributes
    ----------
    NEVER
        It does not demote to memory. Pages go past the tiers of memory to storage, which turns ageing upside down: a
        page that the group needs again can lie lower than an idle one (Linux 5.15).
    DEMOTED
        It demotes, and counts demoted pages as reclaimed, though in compressed memory they are charged to the same
        group: reclaim for the limit on the total frees nothing, and the group exceeds it (Linux 5.19).
    LEFT
        It demotes, and counts only the bytes that left what is limited (since then).
    """

    NEVER = "never"
    DEMOTED = "demoted"
    LEFT = "left"


class Group:
    """A set of regions with limits.

    Attributes
    ----------
    dram_limit : int or None
        The most bytes that the group's pages may take in DRAM.
    memory_limit : int or None
        The most bytes that they may take in RAM of any kind, compressed pages included. Demoting a page from DRAM to
        compressed memory lowers this total by the difference only: *demoted is not freed* (in Linux 5.18 and before,
        demoted pages counted as reclaimed and ``memory.high`` freed nothing).
    """

    def __init__(
        self,
        index: int,
        name: str,
        nodes: int,
        *,
        dram_limit: int | None = None,
        memory_limit: int | None = None,
    ) -> None:
        self.index = index
        self.name = name
        self.dram_limit = dram_limit
        self.memory_limit = memory_limit
        self.used = [0] * nodes
        self.memory = 0
        self.peak_dram = 0

    def charge(self, node: Node, size: int) -> None:
        """Account bytes in a node to the group."""
        self.used[node.index] += size
        if node.charged_to_memory:
            self.memory += size
        if node.index == 0:
            self.peak_dram = max(self.peak_dram, self.used[0])

    def uncharge(self, node: Node, size: int) -> None:
        """The opposite of :meth:`charge`."""
        self.used[node.index] -= size
        if node.charged_to_memory:
            self.memory -= size

    def know_lists(self, node: int, lruvec: Lruvec) -> None:
        """The group has lists in a node now."""

    def excess(self, frame: int, credit: int = 0) -> int:
        """Bytes to be reclaimed before one more frame (in bytes) fits; 0 when it does.

        ``credit`` bytes are taken for reclaimed.
        """
        if self.dram_limit is None and self.memory_limit is None:
            return 0
        return max(self._dram_excess(frame), self._memory_excess(frame), credit) - credit

    def _dram_excess(self, frame: int) -> int:
        return 0 if self.dram_limit is None else self.used[0] + frame - self.dram_limit

    def _memory_excess(self, frame: int) -> int:
        return 0 if self.memory_limit is None else self.memory + frame - self.memory_limit

    def must_leave_memory(self, frame: int) -> bool:
        """Whether one more frame takes the group over its limit on the total, and not only over that on DRAM."""
        return self._memory_excess(frame) > 0
