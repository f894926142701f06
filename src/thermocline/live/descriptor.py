"""Descriptors of ours in a program's process: it may close each of them, or put another file in its place.

Daemons close all descriptors that they do not know, and the next file that they open gets a number that was ours. So
nothing is written to a number, asked of it, or closed, before the kernel has said that it is still the file that it
was: by its device and inode, which for memory files, sockets and userfaultfds (Linux 5.12) no other file has at the
same time, and for sockets by their cookie (socket(7), ``SO_COOKIE``), which none ever has again. Another thread may
close a number between the question and the use; whoever cannot bear that had better hold no descriptor (see
:mod:`thermocline.live.doorbell`).

What Python would close by itself when an object is collected (:class:`socket.socket`) is therefore not kept.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import socket
import stat
from collections.abc import Iterable, Iterator
from typing import Any, Self

#: Numbers from which on ours are, where the limit on open files allows it: below are the standard streams, which may be
#: closed, and the ones that programs, and select(2), count with.
_LOWEST = 64
_STANDARD = 3
#: socket(7); Python's module has no name for it.
_SO_COOKIE = 57
_COOKIE_BYTES = 8


def moved_up(fd: int) -> int:
    """The same open file under a number that stands in for no standard stream; ``fd`` is closed if it is another.

    Raises
    ------
    OSError
        There is none left. ``fd`` is closed.
    """
    if fd >= _LOWEST:
        return fd
    try:
        moved = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, _LOWEST)
    except OSError:
        if fd >= _STANDARD:
            return fd
        try:
            moved = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, _STANDARD)
        except OSError:
            os.close(fd)
            raise
    os.close(fd)
    return moved


class Descriptor:
    """An open file of ours, known by more than its number.

    Parameters
    ----------
    fd : int
        Its number. It belongs to this object from now on.

    Attributes
    ----------
    number : int
        -1 once it is closed here.
    """

    def __init__(self, fd: int) -> None:
        self.number = fd
        self._identity = self._identify()

    @classmethod
    def opened(cls, fd: int) -> Self:
        """A descriptor that was just opened, moved to a number where it is in nobody's way."""
        return cls(moved_up(fd))

    def _identify(self) -> tuple[object, ...]:
        status = os.fstat(self.number)
        return status.st_dev, status.st_ino, stat.S_IFMT(status.st_mode)

    @property
    def is_ours(self) -> bool:
        """Whether the number still is of the file that it was of."""
        try:
            return self.number >= 0 and self._identify() == self._identity
        except OSError:
            return False

    def fileno(self) -> int:
        """Its number, if it is ours.

        Raises
        ------
        OSError
            EBADF: the program has closed it, or has another file there.
        """
        if not self.is_ours:
            raise OSError(errno.EBADF, "the program has closed this descriptor of thermocline's, or put another there")
        return self.number

    def replace(self, fd: int) -> None:
        """Go on with another number of the same file: the program has closed ours."""
        self.close()
        self.number = moved_up(fd)
        self._identity = self._identify()

    def close(self) -> None:
        """Close it, if it is ours. Doing it again is nothing."""
        if self.is_ours:
            os.close(self.number)
        self.number = -1


class Channel(Descriptor):
    """An end of a connected Unix socket, with those methods of :class:`socket.socket` that are used of it.

    Each raises ``OSError`` (EBADF) when the socket is not ours any more.
    """

    @classmethod
    def pair(cls, kind: socket.SocketKind) -> tuple[Self, Self]:
        """Two ends of a new connection."""
        return tuple(cls.opened(end.detach()) for end in socket.socketpair(socket.AF_UNIX, kind))  # type: ignore[return-value]

    def _identify(self) -> tuple[object, ...]:
        with self._socket(self.number) as opened:
            return opened.getsockopt(socket.SOL_SOCKET, _SO_COOKIE, _COOKIE_BYTES), *super()._identify()

    @staticmethod
    @contextlib.contextmanager
    def _socket(number: int) -> Iterator[socket.socket]:
        """The socket as Python's object, which does not close it."""
        opened = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, 0, number)  # the kernel knows its type
        try:
            yield opened
        finally:
            opened.detach()

    def sendmsg(self, buffers: Iterable[bytes], ancdata: Any = (), flags: int = 0, /) -> int:
        """See :meth:`socket.socket.sendmsg`. Never a SIGPIPE."""
        with self._socket(self.fileno()) as opened:
            return opened.sendmsg(buffers, ancdata, flags | socket.MSG_NOSIGNAL)

    def recvmsg(self, bufsize: int, ancbufsize: int = 0, flags: int = 0, /) -> Any:
        """See :meth:`socket.socket.recvmsg`."""
        with self._socket(self.fileno()) as opened:
            return opened.recvmsg(bufsize, ancbufsize, flags | socket.MSG_CMSG_CLOEXEC)
