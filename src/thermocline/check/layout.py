"""Layouts: what an abstract machine is made of."""

from __future__ import annotations

from dataclasses import dataclass

from thermocline.check.store import PAGE, PARTS


@dataclass(frozen=True, slots=True)
class Place:
    """A lower node.

    Attributes
    ----------
    slots : int
        Pages that it holds in the worst case.
    slot_bytes, packed : int
        What one page takes at worst, and what a page takes that compresses (all but ``incompressible`` do).
    mapped : bool
        Whether it is slow memory that the program addresses: it has frames then, and no slots.
    reads_parts : bool
        Whether parts of its pages come up by themselves.
    """

    name: str
    slots: int
    slot_bytes: int = PAGE
    packed: int = PAGE
    charged_to_memory: bool = True
    keep_incompressible: bool = True
    mapped: bool = False
    reads_parts: bool = False
    incompressible: frozenset[int] = frozenset()

    def size(self, page: int) -> int:
        """Bytes charged for a page that was written here."""
        return self.slot_bytes if page in self.incompressible else self.packed


@dataclass(frozen=True, slots=True)
class Extent:
    """The pages of one array, from ``start`` on.

    Attributes
    ----------
    source : bool
        Whether it was made from a file: its pages start out in the source node.
    """

    start: int
    pages: int
    group: int = 0
    source: bool = False
    advice: int = 0


@dataclass(frozen=True, slots=True)
class Limits:
    """A group and what limits it, in pages."""

    index: int
    dram: int | None = None
    memory: int | None = None


@dataclass(frozen=True, slots=True)
class Layout:
    """Nodes, groups and arrays of a machine. DRAM is a number of frames.

    Attributes
    ----------
    slack : int or None
        Pages are counted when they are first touched (:mod:`thermocline.protocol.first_touch`), and so much room is
        left out of the count; None: they are not, for all of them find room.
    """

    pages: int
    dram: int
    lower: tuple[Place, ...] = (Place("file", 3, charged_to_memory=False),)
    extents: tuple[Extent, ...] = ()
    groups: tuple[Limits, ...] = ()
    slack: int | None = None

    @property
    def mapped(self) -> dict[int, int]:
        """How many frames each mapped node has, DRAM among them."""
        return {0: self.dram} | {index: place.slots for index, place in enumerate(self.lower, start=1) if place.mapped}

    @property
    def source(self) -> int:
        """Index of the node that stands for files that arrays were made from."""
        return 1 + len(self.lower)

    @property
    def parts(self) -> int:
        """Parts of a page that come up by themselves."""
        return PARTS if any(place.reads_parts for place in self.lower) else 1

    @property
    def arrays(self) -> tuple[Extent, ...]:
        """The arrays: one over all pages, unless said otherwise."""
        return self.extents or (Extent(0, self.pages),)
