"""What the owner of a pool knows of its items without looking into the pool, which may have rotted."""

from __future__ import annotations

from thermocline.live.buffer import sparse_column

#: The entry of an item of which a successor could not tell the pieces. No table has it: no piece begins there.
ROTTEN = (1 << 64) - 1
_IN_ONE = 1 << 15


class Ledger:
    """For each slot the table's first word, and how many quanta its item takes: ten bytes.

    Parameters
    ----------
    slots : int
        The largest slot.

    Attributes
    ----------
    entries : column of u64
        The first words, by slot.
    """

    def __init__(self, slots: int) -> None:
        self.entries = sparse_column("Q", slots + 1)
        self._quanta = sparse_column("H", slots + 1)
        #: The largest slot that was ever noted.
        self._last = 0

    def note(self, slot: int, entry: int, quanta: int, *, in_one: bool) -> None:
        """An item is in the slot now, in one piece or in more."""
        self._last = max(self._last, slot)
        self.entries[slot] = entry
        self._quanta[slot] = quanta | (_IN_ONE if in_one else 0)

    def forget(self, slot: int) -> None:
        """Nothing is in the slot."""
        if slot <= self._last:
            self.entries[slot] = 0

    def clear(self) -> None:
        """Nothing is in any slot."""
        for slot in self.slots():
            self.entries[slot] = 0

    def entry(self, slot: int) -> int:
        """The table's first word for the slot; 0 when nothing is in it."""
        return self.entries[slot] if slot < len(self.entries) else 0

    def quanta(self, slot: int) -> int:
        """How much the item takes."""
        return self._quanta[slot] & _IN_ONE - 1

    def in_one(self, slot: int) -> bool:
        """Whether the item is in one piece."""
        return bool(self._quanta[slot] & _IN_ONE)

    def slots(self) -> list[int]:
        """The slots with an item."""
        return [slot for slot, entry in enumerate(self.entries[: self._last + 1]) if entry]

    def close(self) -> None:
        """Unmap the columns."""
        self.entries.release()
        self._quanta.release()
