"""Joining a memory from a process that its program did not fork: through its door, with the secret."""

from __future__ import annotations

import ctypes
import os
import socket
import threading
import weakref
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from thermocline.errors import ClosedError
from thermocline.live import control, fence, libc
from thermocline.live.address_space import address_space
from thermocline.live.attachment import Attachment, Door
from thermocline.live.descriptor import Descriptor


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
        #: What is not held any more, and may be unmapped: first page, and the one behind the last.
        self._let_go: deque[tuple[int, int]] = deque()
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
        peer = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            peer.connect(door.address)
            control.send(peer, "join", door.secret)
        except OSError as error:
            peer.close()
            raise ClosedError("the memory that this array is in is closed, on another machine, or not ours") from error
        answer = control.receive(peer)
        if answer is None or not answer.fds:
            peer.close()
            raise ClosedError("the memory that this array is in lets this process not in: is it of another user?")
        (fd,), (pages, page_size, number) = answer.fds, answer.numbers
        arena = Descriptor.opened(fd)
        space = address_space()
        fence.prepare(space.low, space.high)
        address = space.take(pages * page_size)
        try:
            size = pages * page_size
            return cls(Attachment.join(peer, arena, address, size, door=door, number=number), page_size)
        except BaseException:
            space.give(address, pages * page_size)
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
        answer = self._attachment.ask("hold", ticket.slot, ticket.number)
        if answer is None:
            raise ClosedError("a shared array is gone: keep it until whoever was sent it has received it")
        first, pages = answer.numbers
        address, size = self._attachment.address + first * self._page_size, pages * self._page_size
        if not self._attachment.is_program:
            with _joining:
                self._cover(first, pages)
        # Another region may have been there before, and left poison here when it was touched too late.
        libc.discard(address, size)
        held = (ctypes.c_char * size).from_address(address)
        weakref.finalize(held, self._release, ticket.slot, first, pages).atexit = False
        self._held[ticket] = held
        return held

    def _cover(self, first: int, pages: int) -> None:
        """Map pages, if they are not mapped, and have the pager stop their writers here as it does elsewhere.

        Raises
        ------
        ClosedError
            The supervisor cannot be reached.
        OSError
            ENOMEM: the limit on addresses has no room for them (setrlimit(2), ``RLIMIT_AS``).
        """
        size, mapped = self._page_size, self._attachment.mapped
        while self._let_go:
            begin, end = self._let_go.popleft()
            mapped.uncover(begin * size, end * size)
        for begin, end in mapped.cover(first * size, (first + pages) * size):
            if self._attachment.ask("cover", begin // size, (end - begin) // size) is None:
                mapped.uncover(begin, end)
                raise ClosedError("the memory that this array is in is closed")

    def _release(self, slot: int, first: int, pages: int) -> None:
        self._attachment.tell("release", slot)
        self._let_go.append((first, first + pages))
        self._released()

    @property
    def lacks_some(self) -> bool:
        """Whether this is a forked child, which has for itself what was not shared before it was forked."""
        return self._attachment.copies and self._attachment.is_child

    @property
    def holds_any(self) -> bool:
        """Whether any region is held here."""
        return any(True for _ in self._held.values())


_guests: dict[Door, Guest] = {}
_joining = threading.Lock()


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


def guest_of(door: Door) -> Guest:
    """This process as a guest behind a door: it joins when it is asked for first. See :meth:`Guest.join`."""
    with _joining:
        guest = _guests.get(door)
        if guest is None:
            guest = _guests[door] = Guest.join(door)
        return guest


def hold(ticket: Ticket) -> ctypes.Array[ctypes.c_char]:
    """Hold a region by the mapping that this process has, or by another one if it has the region for itself there."""
    guest = guest_of(ticket.door)
    try:
        return guest.hold(ticket)
    except ClosedError:
        if not guest.lacks_some:
            raise
    with _joining:
        if _guests.get(ticket.door) is guest:
            _guests[ticket.door] = Guest.join(ticket.door)
        guest = _guests[ticket.door]
    return guest.hold(ticket)


def _after_fork_in_child() -> None:
    global _joining  # noqa: PLW0603 - whoever held it in the parent is not here
    _joining = threading.Lock()


os.register_at_fork(after_in_child=_after_fork_in_child)
