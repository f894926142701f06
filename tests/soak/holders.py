"""The processes that use a memory and the arrays that each has, as the machine knows them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

#: The program, which makes the arrays, for as long as it is there.
PROGRAM = 0


@dataclass
class Holder:
    """A process: the arrays that it has, and those of them that it can send because they came as handles."""

    keys: set[int] = field(default_factory=set)
    handles: set[int] = field(default_factory=set)
    guest: bool = False


class Holders:
    """All of them, by number, the oldest first."""

    def __init__(self) -> None:
        self._holders: dict[int, Holder] = {}
        self._next = 0

    def __iter__(self) -> Iterator[int]:
        return iter(list(self._holders))

    def __len__(self) -> int:
        return len(self._holders)

    def begin(self, *, guest: bool = False) -> int:
        """A process that has nothing."""
        return self._add(Holder(guest=guest))

    def fork(self, parent: int) -> int:
        """A child has what its parent has."""
        had = self._holders[parent]
        return self._add(Holder(set(had.keys), set(had.handles)))

    def _add(self, holder: Holder) -> int:
        number = self._next
        self._next += 1
        self._holders[number] = holder
        return number

    def renew(self, who: int) -> None:
        """A process has run another program in its place, which has nothing."""
        self._holders[who] = Holder(guest=True)

    def end(self, who: int) -> None:
        """A process is gone."""
        del self._holders[who]

    @property
    def guests(self) -> int:
        """How many programs of their own there are."""
        return sum(holder.guest for holder in self._holders.values())

    @property
    def children(self) -> int:
        """How many were forked, by whomever."""
        return sum(not holder.guest for who, holder in self._holders.items() if who != PROGRAM)

    # -- arrays -------------------------------------------------------------------------------------------------------

    def arrays(self, who: int = PROGRAM) -> list[int]:
        """What a process has."""
        return sorted(self._holders[who].keys) if who in self._holders else []

    def take(self, who: int, key: int, *, handle: bool = False) -> None:
        """A process has an array from now on, or has it as a handle."""
        self._holders[who].keys.add(key)
        if handle:
            self._holders[who].handles.add(key)

    def drop(self, who: int, key: int) -> None:
        """A process has an array no more."""
        self._holders[who].keys.discard(key)
        self._holders[who].handles.discard(key)

    def of(self, key: int) -> list[int]:
        """Who has an array, the oldest first."""
        return [who for who, holder in self._holders.items() if key in holder.keys]

    def with_arrays(self) -> list[int]:
        """Who has any."""
        return [who for who, holder in self._holders.items() if holder.keys]

    def others_with_arrays(self) -> list[int]:
        """Which children and guests have any."""
        return [who for who in self.with_arrays() if who != PROGRAM]

    def others(self) -> list[int]:
        """All children and guests."""
        return [who for who in self._holders if who != PROGRAM]

    # -- handles ------------------------------------------------------------------------------------------------------

    def sendable(self, who: int) -> list[int]:
        """What a process can send: the program all that it has, others what has come as a handle, or was one before."""
        return sorted(self._holders[who].handles) if who != PROGRAM else self.arrays()

    def receivers(self, sender: int) -> list[int]:
        """Whom a process can send something: the program, too, whose own arrays come back to it then."""
        return [who for who in self._holders if who != sender]

    def senders(self) -> list[int]:
        """Who has something to send, and somebody to send it to."""
        return [who for who in self._holders if self.sendable(who) and self.receivers(who)]
