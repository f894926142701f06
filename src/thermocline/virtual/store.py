"""A lower node in virtual time: how much room each page takes there, and how long it takes to write and read it."""

from __future__ import annotations

from heapq import heappop, heappush

from thermocline.errors import SpecError
from thermocline.spec import Compressed, Dram, File, NodeSpec, Numa
from thermocline.virtual.clock import NS
from thermocline.virtual.costs import Costs, StoreCosts

_WORD, _RECORD, _LEAST_QUANTUM = 8, 24, 64


def slot_bytes(spec: NodeSpec, page_size: int) -> int:
    """The most that one page takes in a node, as the stores of `live` charge it.

    Compressed memory is a pool of quanta, each piece of a page in it begins with a word, and there is a record of the
    page: at worst each quantum is a piece.
    """
    if not isinstance(spec, Compressed):
        return page_size
    quantum = max(_LEAST_QUANTUM, page_size // 256)
    return -(-page_size // (quantum - _WORD)) * quantum + _RECORD


def costs_of(spec: Numa | Compressed | File, costs: Costs) -> StoreCosts:
    """What a node's store takes.

    Raises
    ------
    SpecError
        Its costs have not been measured.
    """
    kind = "numa" if isinstance(spec, Numa) else spec.codec if isinstance(spec, Compressed) else "file"
    found = costs.stores.get(kind)
    if found is None:
        raise SpecError(f'the costs have no stores.{kind}, which "{spec.name}" needs; add it (thermocline calibrate)')
    return found


def total_pages(nodes: tuple[NodeSpec, ...], page_size: int) -> int:
    """How many pages nodes hold in the worst case."""
    return sum(spec.capacity // slot_bytes(spec, page_size) for spec in nodes)


class VirtualStore:
    """Slots of a lower node, without the bytes in them. (A slow memory node has frames, and no slots.)

    Attributes
    ----------
    slow : bool
        Its reads and writes wait for a device, and are done by workers.
    latency : int
        Picoseconds that each transfer takes longer than calibrated.
    taken : dict of int to int
        Reserved slots, and the bytes that each is charged.
    """

    def __init__(self, spec: Numa | Compressed | File, costs: Costs, page_size: int) -> None:
        self.slow = isinstance(spec, File)
        self.slot_bytes = slot_bytes(spec, page_size)
        self.costs = costs_of(spec, costs)
        self.latency = round(spec.latency * 1_000_000_000 * NS) if isinstance(spec, File) else 0
        self.taken: dict[int, int] = {}
        self._page_size = page_size
        #: What a page of each region takes.
        self._packed: dict[int, int] = {}
        self._next = 1
        self._free: list[int] = []

    def expect(self, region: int, ratio: float | None) -> None:
        """Say how well the pages of a region compress; None: as those did by which the costs were measured."""
        ratio = self.costs.ratio if ratio is None else ratio
        incompressible = self.slow or ratio <= 1
        self._packed[region] = self.slot_bytes if incompressible else max(int(self._page_size / ratio), 1)

    def reserve(self) -> int:
        """A free slot: the lowest number there is, as in `live`."""
        if self._free:
            slot = heappop(self._free)
        else:
            slot = self._next
            self._next += 1
        self.taken[slot] = self.slot_bytes
        return slot

    def write(self, slot: int, region: int) -> int:
        """Keep a page of a region -> the bytes that it is charged."""
        size = self.taken[slot] = self._packed[region]
        return size

    def size(self, slot: int) -> int:
        """Bytes charged for a reserved slot now."""
        return self.taken[slot]

    def release(self, slot: int) -> None:
        """Forget what a slot holds."""
        del self.taken[slot]
        heappush(self._free, slot)


def check_nodes(nodes: tuple[NodeSpec, ...]) -> None:
    """Refuse what is no demotion path: DRAM comes first, and once.

    Raises
    ------
    SpecError
        It is none.
    """
    if not nodes or not isinstance(nodes[0], Dram) or any(isinstance(node, Dram) for node in nodes[1:]):
        raise SpecError("a memory begins with its DRAM, and has it once; write Dram(...) and then what is below it")
