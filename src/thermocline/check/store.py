"""Slots of a lower node: numbers, a version of each base page, and what they are charged."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

#: Base pages in a page. Two are enough to see a page that is torn.
PARTS = 2
#: Bytes of a page. Large enough that watermarks of a node of one page differ from 0.
PAGE = 64


@dataclass(frozen=True, slots=True)
class Content:
    """What a slot holds: of which page, a version for each part, and the bytes charged for it."""

    page: int
    versions: tuple[int, ...]
    size: int


class Buffer:
    """The versions of a page that were read and are on their way."""

    __slots__ = ("page", "versions")

    def __init__(self, page: int, versions: Iterable[int] = ()) -> None:
        self.page = page
        self.versions = list(versions)


class Store:
    """The slots of one node, from 1 on; the lowest free one is handed out first, as in every real store."""

    def __init__(self, slot_bytes: int) -> None:
        self.slot_bytes = slot_bytes
        #: Slot -> its content, None while it is reserved only.
        self.slots: dict[int, Content | None] = {}

    def reserve(self) -> int:
        """Take the lowest free slot."""
        slot = 1
        while slot in self.slots:
            slot += 1
        self.slots[slot] = None
        return slot

    def size(self, slot: int) -> int:
        """Bytes charged for a slot: its worst case until it is written."""
        content = self.slots[slot]
        return self.slot_bytes if content is None else content.size

    def recover(self, slots: Iterable[int]) -> None:
        """Take over from a pager that died: these slots are taken, all others free."""
        self.slots = {slot: self.slots[slot] for slot in slots}
