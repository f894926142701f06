"""What the owner of a pool knows of its items without looking into the pool, which may have rotted."""

from __future__ import annotations

from array import array
from collections.abc import Iterator

#: The entry of an item of which a successor could not tell the pieces. No table has it: no piece begins there.
ROTTEN = (1 << 64) - 1
_IN_ONE = 1 << 15


class Ledger:
    """For each slot the table's first word, and how many quanta its item takes: ten bytes."""

    def __init__(self) -> None:
        self._entries = array("Q")
        self._quanta = array("H")

    def note(self, slot: int, entry: int, quanta: int, *, in_one: bool) -> None:
        """An item is in the slot now, in one piece or in more."""
        missing = slot + 1 - len(self._entries)
        if missing > 0:
            self._entries.frombytes(bytes(missing * self._entries.itemsize))
            self._quanta.frombytes(bytes(missing * self._quanta.itemsize))
        self._entries[slot] = entry
        self._quanta[slot] = quanta | (_IN_ONE if in_one else 0)

    def forget(self, slot: int) -> None:
        """Nothing is in the slot."""
        if slot < len(self._entries):
            self._entries[slot] = 0

    def entry(self, slot: int) -> int:
        """The table's first word for the slot; 0 when nothing is in it."""
        return self._entries[slot] if slot < len(self._entries) else 0

    def quanta(self, slot: int) -> int:
        """How much the item takes."""
        return self._quanta[slot] & _IN_ONE - 1

    def in_one(self, slot: int) -> bool:
        """Whether the item is in one piece."""
        return bool(self._quanta[slot] & _IN_ONE)

    def slots(self) -> Iterator[int]:
        """The slots with an item."""
        return (slot for slot, entry in enumerate(self._entries) if entry)
