"""A node: a place for pages, with a hard capacity and watermarks (``pg_data_t`` and ``struct zone``)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from thermocline.protocol.shadows import Shadows
    from thermocline.spec import NodeSpec


class Kind(Enum):
    """What a touch of a page in the node costs the program."""

    #: The program addresses the page directly: no fault. DRAM, and slow memory that the kernel has as a node.
    MAPPED = "mapped"
    #: A touch of the page is a fault (compressed memory, files, remote).
    UNMAPPED = "unmapped"
    #: The file that an array was made from: read-only, and it needs no room.
    SOURCE = "source"


@dataclass(frozen=True, slots=True)
class Watermarks:
    """Free bytes at which an allocator reclaims for itself (min), kswapd wakes (low), and kswapd sleeps (high)."""

    minimum: int
    low: int
    high: int

    @classmethod
    def of(cls, capacity: int, slot_bytes: int) -> Watermarks:
        """Watermarks for a capacity, both in bytes.

        The kernel keeps 0.1 % of a zone between its marks (``watermark_scale_factor``) because its kswapd frees a
        clean page in a microsecond. Moving a page here takes a hundred, so the marks are further apart: 1/64 of the
        node between each, at least two slots, and in a tiny node at most an eighth each.
        """
        step = max(min(2 * slot_bytes, capacity // 8), capacity // 64)
        minimum = min(slot_bytes, capacity // 8)
        return cls(minimum, minimum + step, minimum + 2 * step)


@dataclass(slots=True)
class Node:
    """A place for pages.

    Attributes
    ----------
    capacity, used, peak : int
        Bytes. ``used`` never exceeds ``capacity``, reservations included.
    slot_bytes : int
        What reserving one slot takes: the worst case of one page here.
    charged_to_memory : bool
        Whether its bytes are RAM, and so count against a group's total.
    keep_incompressible : bool
        Whether a page that does not compress stays here rather than going on down.
    reads_parts : bool
        Whether a part of a page is had from here for much less than the whole.
    reserve : int
        Bytes that only urgent allocations may take (``min`` watermark, ``PF_MEMALLOC``): to complete a page that is in
        DRAM in part gives its slot back, and so makes room below where nothing else can.
    shadows : Shadows
        Resident pages whose clean copy is here: the first thing to give up for room. Of a node of an
        :class:`~thermocline.protocol.mm.Mm`.
    """

    index: int
    name: str
    kind: Kind
    capacity: int
    slot_bytes: int
    charged_to_memory: bool = True
    keep_incompressible: bool = True
    reads_parts: bool = False
    reserve: int = 0
    used: int = 0
    peak: int = 0
    failed: bool = False
    watermarks: Watermarks = field(init=False)
    shadows: Shadows = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        self.watermarks = Watermarks.of(self.capacity, self.slot_bytes)

    @property
    def free(self) -> int:
        """Bytes that are not used."""
        return self.capacity - self.used

    @property
    def has_room(self) -> bool:
        """Whether one more slot can be reserved."""
        return self.used + self.slot_bytes + self.reserve <= self.capacity and not self.failed

    def fits(self, size: int, *, urgent: bool = False) -> bool:
        """Whether so many bytes can be taken."""
        return self.used + size + (0 if urgent else self.reserve) <= self.capacity and not self.failed

    @property
    def below_low(self) -> bool:
        """Whether kswapd should be awake."""
        return self.free < self.watermarks.low

    @property
    def balanced(self) -> bool:
        """Whether kswapd may sleep (``pgdat_balanced``)."""
        return self.free >= self.watermarks.high

    def take(self, size: int) -> None:
        """Account bytes as used."""
        self.used = used = self.used + size
        self.peak = max(self.peak, used)

    def give(self, size: int) -> None:
        """Account bytes as free again."""
        self.used -= size


def nodes_of(
    specs: Sequence[NodeSpec], slot_bytes: Sequence[int], page_size: int, make: Callable[..., Node] = Node
) -> list[Node]:
    """The nodes of a spec, DRAM first, and behind them the node of source files.

    Parameters
    ----------
    slot_bytes : sequence of int
        Of each node but DRAM.
    make : callable
        As :class:`Node`.
    """
    nodes = [make(0, specs[0].name, Kind.MAPPED, specs[0].capacity, page_size)]
    for index, (spec, slot) in enumerate(zip(specs[1:], slot_bytes, strict=True), start=1):
        nodes.append(
            make(
                index,
                spec.name,
                Kind.MAPPED if spec.is_mapped else Kind.UNMAPPED,
                spec.capacity,
                slot,
                charged_to_memory=spec.in_memory,
                keep_incompressible=spec.keeps_incompressible,
                reads_parts=spec.reads_parts,
            )
        )
    nodes.append(make(len(nodes), "source", Kind.SOURCE, 0, page_size, charged_to_memory=False))
    return nodes
