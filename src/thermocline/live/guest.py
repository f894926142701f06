"""Joining a memory from a process that its program did not fork: through its door, with the secret."""

from __future__ import annotations

import contextlib
import ctypes
import weakref
from collections.abc import Callable
from dataclasses import dataclass

from thermocline.errors import ClosedError
from thermocline.live import control, fence, libc
from thermocline.live.address_space import address_space
from thermocline.live.attachment import Attachment, Door
from thermocline.live.channel import Channel
from thermocline.live.descriptor import Descriptor, DescriptorError
from thermocline.live.guard import Guard, leased_bytes, process_guard, value_of


@dataclass(frozen=True)
class Ticket:
    """What a process needs to know of a region, to hold it."""

    door: Door
    slot: int
    number: int


class Guest:
    """A process that has joined a memory. It stays until it ends."""

    def __init__(self, attachment: Attachment, page_size: int, released: Callable[[], object] = lambda: None) -> None:
        self._attachment = attachment
        self._released = released
        self._page_size = page_size
        self._guard = Guard(self._settle, self._derive)
        #: What is held: a ticket, first page and number of pages, by a number of its own.
        self._holding: dict[int, tuple[Ticket, int, int]] = {}
        self._last = 0
        self._held: weakref.WeakValueDictionary[Ticket, ctypes.Array[ctypes.c_char]] = weakref.WeakValueDictionary()

    @classmethod
    def join(cls, door: Door) -> Guest:
        """Join.

        Raises
        ------
        ClosedError
            There is nobody behind that door, or this process is not let in.
        OSError, UnsupportedError
            This process cannot be served.
        """
        try:
            peer = Channel.connect(door.name)
        except DescriptorError as error:
            raise ClosedError("the memory that this array is in is closed, on another machine, or not ours") from error
        answer = None
        with contextlib.suppress(DescriptorError):
            control.send(peer, "join", door.secret)
            answer = control.receive(peer)
        if answer is None or not answer.fds:
            peer.close()
            raise ClosedError("the memory that this array is in lets this process not in: is it of another user?")
        (fd,), (pages, page_size, number) = answer.fds, answer.numbers
        arena, size = Descriptor.opened(fd), pages * page_size
        try:
            space = address_space()
            fence.prepare(space.low, space.high)
            address = space.take(size)
        except BaseException:
            arena.close()
            peer.close()
            raise
        try:
            return cls(Attachment.join(peer, arena, address, size, door=door, number=number), page_size)
        except BaseException:
            space.give(address)
            arena.close()
            raise

    def hold(self, ticket: Ticket) -> ctypes.Array[ctypes.c_char]:
        """Hold a region -> its bytes, for as long as they are referred to.

        Raises
        ------
        ClosedError
            It is gone: the program has freed it before anybody here could hold it.
        """
        held = self._held.get(ticket)
        if held is not None:
            return held
        lease = self._guard.lease(self._hold, ticket)
        if lease is None:
            raise ClosedError("a shared array is gone: keep it until each process that it was sent to has received it")
        _, first, pages = self._holding[value_of(lease)]
        address, size = self._attachment.address + first * self._page_size, pages * self._page_size
        held = leased_bytes(address, size, lease)
        self._held[ticket] = held
        return held

    def _hold(self, ticket: Ticket) -> int | None:
        self._settle()  # so that none is held by this name, should this have to be undone
        known = next((holding for holding in self._holding.values() if holding[0] == ticket), None)
        if known is None:
            self._guard.journal.append((self._attachment.tell, "release", ticket.slot))
            answer = self._attachment.ask("hold", ticket.slot, ticket.number)
            if answer is None:
                return None
            first, pages = answer.numbers
            known = ticket, first, pages
            size = pages * self._page_size
            begin = first * self._page_size
            if not self._attachment.is_program:
                self._guard.journal.append((self._uncover, first, pages))
                self._attachment.mapped.cover(begin, begin + size, self._stop_writers)
            # Another region may have been there before, and left poison here when it was touched too late.
            libc.discard(self._attachment.address + begin, size)
        self._last += 1
        number = self._last
        self._guard.journal.append((self._holding.pop, number, None))
        self._holding[number] = known
        return number

    def _stop_writers(self, begin: int, end: int) -> None:
        """Have the pager stop the writers of what is newly mapped here, as it does elsewhere.

        Raises
        ------
        ClosedError
            The supervisor cannot be reached.
        """
        size = self._page_size
        if self._attachment.ask("cover", begin // size, (end - begin) // size) is None:
            raise ClosedError("the memory that this array is in is closed")

    def _settle(self) -> None:
        """Let go of what is not held any more. To say so twice is nothing: nothing is held by that name meanwhile."""
        released = self._guard.released
        while released:
            number = released[0]
            if number in self._holding:
                ticket, first, pages = self._holding[number]
                if sum([holding[0] == ticket for holding in self._holding.values()]) == 1:
                    self._attachment.tell("release", ticket.slot)
                    self._uncover(first, pages)
                del self._holding[number]
            del released[0]
        self._released()

    def _uncover(self, first: int, pages: int) -> None:
        if not self._attachment.is_program:
            self._attachment.mapped.uncover(first * self._page_size, (first + pages) * self._page_size)

    def _derive(self) -> None:
        if not self._attachment.is_program:
            self._attachment.mapped.settle()

    @property
    def lacks_some(self) -> bool:
        """Whether this is a forked child, which has for itself what was not shared before it was forked."""
        return self._attachment.copies and self._attachment.is_child

    @property
    def holds_any(self) -> bool:
        """Whether any region is held here."""
        return any(True for _ in self._held.values())


_guests: dict[Door, Guest] = {}


def welcome_program(door: Door, program: Attachment, page_size: int, released: Callable[[], object]) -> Guest:
    """Let arrays that come back to the program that made them be found where they are -> the program as a guest.

    ``released`` is called, at any moment, when the program holds one less of them.
    """
    guest = _guests.get(door)
    if guest is None:
        guest = _guests[door] = Guest(program, page_size, released)
    return guest


def forget_program(door: Door) -> None:
    """The program has closed its memory. Should an array come back later, it joins as others do."""
    _guests.pop(door, None)


def guest_of(door: Door, instead_of: Guest | None = None) -> Guest:
    """This process as a guest behind a door: it joins when it is asked for first, or again. See :meth:`Guest.join`."""
    guest = _guests.get(door)
    if guest is instead_of:
        guest = process_guard("joining").run(_join, door, instead_of)
    assert guest is not None
    return guest


def _join(door: Door, instead_of: Guest | None) -> Guest:
    if _guests.get(door) is instead_of:
        _guests[door] = Guest.join(door)
    return _guests[door]


def hold(ticket: Ticket) -> ctypes.Array[ctypes.c_char]:
    """Hold a region by the mapping that this process has, or by another one if it has the region for itself there."""
    guest = guest_of(ticket.door)
    try:
        return guest.hold(ticket)
    except ClosedError:
        if not guest.lacks_some:
            raise
    return guest_of(ticket.door, instead_of=guest).hold(ticket)
