"""Connected Unix sockets of ours: packets, and the descriptors that go with them (unix(7))."""

from __future__ import annotations

import ctypes
import errno
import socket
from collections.abc import Sequence
from typing import NamedTuple, Self

from thermocline.live.descriptor import Descriptor, DescriptorError, leased
from thermocline.live.guard import Lease
from thermocline.native import library


class Received(NamedTuple):
    """A packet. ``is_cut``: there was more of it, which is lost."""

    data: bytes
    fds: tuple[int, ...]
    is_cut: bool


class Channel(Descriptor):
    """An end of a connected socket."""

    @classmethod
    def pair(cls, kind: socket.SocketKind) -> tuple[Self, Self]:
        """Two ends of a new connection."""
        return tuple(cls.opened(end.detach()) for end in socket.socketpair(socket.AF_UNIX, kind))  # type: ignore[return-value]

    @classmethod
    def connect(cls, name: str) -> Self:
        """A connection to the socket that listens under an abstract name.

        Raises
        ------
        DescriptorError
            None does, or this process may not open more.
        """
        return cls.opened(_connected(name))

    def send(self, data: bytes, fds: Sequence[int] = ()) -> None:
        """Send a packet. Never a SIGPIPE.

        Raises
        ------
        DescriptorError
            The other end is closed, or this one is not ours any more.
        """
        given = (ctypes.c_int * len(fds))(*fds)
        send = library().tc_packet_send
        while error := send(self.fileno(), data, ctypes.c_size_t(len(data)), given, ctypes.c_size_t(len(fds))):
            if error != errno.EINTR:  # the handler of a signal may raise
                raise DescriptorError(error)

    def receive(self) -> Received | None:
        """Wait for a packet -> None when the other end has hung up.

        Raises
        ------
        DescriptorError
            This end is not ours any more.
        """
        received = _Received()
        while error := library().tc_packet_receive(self.fileno(), ctypes.byref(received)):
            if error != errno.EINTR:
                raise DescriptorError(error)
        if received.is_over:
            return None
        fds = tuple(received.fds[: received.count])
        return Received(bytes(received.data[: received.size]), fds, bool(received.is_cut))


class _Received(ctypes.Structure):
    """``struct tc_received``."""

    _fields_ = (
        ("data", ctypes.c_ubyte * 256),
        *((name, ctypes.c_uint32) for name in ("size", "is_cut", "is_over", "count")),
        ("fds", ctypes.c_int32 * 3),
    )


def leased_connection(name: str) -> Lease:
    """A connection as :meth:`Channel.connect` makes, as a lease of its number: it is closed when that ends."""
    return leased(_connected, name)


def _connected(name: str) -> int:
    encoded = name.encode()
    while (fd := int(library().tc_descriptor_connect(encoded, ctypes.c_size_t(len(encoded))))) == -errno.EINTR:
        pass  # the handler of a signal may raise
    if fd < 0:
        raise DescriptorError(-fd)
    return fd
