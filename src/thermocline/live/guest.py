"""Joining a memory from a process that its program did not fork: by name, for who knows the secret.

The name is of an abstract socket (unix(7)): it leaves no file behind, and goes with the memory. Everybody can read such
names, so the supervisor lets nobody in but processes of its own user that know the secret, too.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import socket
import threading
import weakref
from collections.abc import Callable
from dataclasses import dataclass

from thermocline.errors import ClosedError
from thermocline.live import control, fence, libc
from thermocline.live.address_space import address_space
from thermocline.live.attachment import Attachment
from thermocline.live.descriptor import Descriptor


@dataclass(frozen=True)
class Door:
    """Where a memory can be joined."""

    name: str
    secret: int

    @classmethod
    def open(cls, program: Attachment, page_size: int, released: Callable[[], object]) -> Door:
        """Let other processes of this user join the memory of this one.

        Arrays that come back to this one are here already. It is told, at any moment, when it holds one less of them.
        """
        door = cls(f"thermocline-{os.urandom(16).hex()}", int.from_bytes(os.urandom(8)) >> 1)
        with contextlib.closing(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)) as listener:
            listener.bind(door.address)
            listener.listen(64)
            if program.ask("listen", door.secret, fds=[listener.fileno()]) is None:
                raise ClosedError("this memory cannot be shared: its helper processes may not open more files")
        _guests[door] = Guest(program, page_size, released)
        return door

    @property
    def has_received(self) -> bool:
        """Whether arrays have come back to the program, and are held there."""
        return _guests[self].holds_any

    def close(self) -> None:
        """The program has closed its memory. Should an array come back later, it joins as others do."""
        del _guests[self]

    @property
    def address(self) -> str:
        """Of its socket."""
        return "\0" + self.name


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
        (fd,), (pages, page_size) = answer.fds, answer.numbers
        arena = Descriptor.opened(fd)
        space = address_space()
        fence.prepare(space.low, space.high)
        address = space.take(pages * page_size)
        try:
            return cls(Attachment.join(peer, arena, address, pages * page_size), page_size)
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
        # Another region may have been there before, and left poison here when it was touched too late.
        libc.madvise(address, size, libc.MADV_DONTNEED)
        held = (ctypes.c_char * size).from_address(address)
        weakref.finalize(held, self._release, ticket.slot).atexit = False
        self._held[ticket] = held
        return held

    def _release(self, slot: int) -> None:
        self._attachment.tell("release", slot)
        self._released()

    @property
    def holds_any(self) -> bool:
        """Whether any region is held here."""
        return any(True for _ in self._held.values())


_guests: dict[Door, Guest] = {}
_joining = threading.Lock()


def guest_of(door: Door) -> Guest:
    """This process as a guest behind a door: it joins when it is asked for first. See :meth:`Guest.join`."""
    with _joining:
        guest = _guests.get(door)
        if guest is None:
            guest = _guests[door] = Guest.join(door)
        return guest


def _after_fork_in_child() -> None:
    global _joining  # noqa: PLW0603 - whoever held it in the parent is not here
    _joining = threading.Lock()


os.register_at_fork(after_in_child=_after_fork_in_child)
