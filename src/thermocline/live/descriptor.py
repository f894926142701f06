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

import ctypes
import errno
import fcntl
import os
import socket
import stat
from array import array
from collections import deque
from collections.abc import Iterable
from typing import Any, Self, cast

from thermocline.live.guard import Guard, Lease, process_guard
from thermocline.native import library

#: Numbers from which on ours are, where the limit on open files allows it: below are the standard streams, which may be
#: closed, and the ones that programs, and select(2), count with.
_LOWEST = 64
_STANDARD = 3


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


def leased_file(file: str | bytes | os.PathLike[Any], flags: int) -> Lease:
    """A file that is opened now (:func:`os.open`), as a lease of its number: it is closed when that ends."""
    return cast("Lease", _files().lease(os.open, file, flags))


def _files() -> Guard:
    return process_guard("files", _close_files)


def _close_files() -> None:
    released = _files().released
    while released:
        # One step of the interpreter: a number that is off the list is closed, and none is closed twice.
        deque(map(os.close, map(released.pop, (0,))), maxlen=0)


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
        cookie = ctypes.c_uint64()
        _raise(library().tc_socket_cookie(self.number, ctypes.byref(cookie)))
        return cookie.value, *super()._identify()

    def sendmsg(self, buffers: Iterable[bytes], ancdata: Iterable[tuple[int, int, Any]] = (), /) -> int:
        """See :meth:`socket.socket.sendmsg`. Descriptors may go with it. Never a SIGPIPE."""
        data = b"".join(buffers)
        fds = array("i", b"".join(memoryview(each).tobytes() for _, _, each in ancdata))
        given = (ctypes.c_int * len(fds))(*fds)
        send = library().tc_packet_send
        while error := send(self.fileno(), data, ctypes.c_size_t(len(data)), given, ctypes.c_size_t(len(fds))):
            if error != errno.EINTR:
                _raise(error)
        return len(data)

    def recvmsg(self, bufsize: int, ancbufsize: int = 0, /) -> Any:
        """See :meth:`socket.socket.recvmsg`: a packet of ours, and the descriptors that came with it."""
        del bufsize, ancbufsize  # as large as the native library has them
        received = _Received()
        while error := library().tc_packet_receive(self.fileno(), ctypes.byref(received)):
            if error != errno.EINTR:
                _raise(error)
        fds = array("i", received.fds[: received.count])
        ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, fds.tobytes())] if fds else []
        return bytes(received.data[: received.size]), ancillary, received.flags, None


class _Received(ctypes.Structure):
    """``struct tc_received``."""

    _fields_ = (
        ("data", ctypes.c_ubyte * 256),
        ("size", ctypes.c_uint32),
        ("flags", ctypes.c_uint32),
        ("count", ctypes.c_uint32),
        ("fds", ctypes.c_int32 * 3),
    )


def _raise(error: int) -> None:
    """Raise what an errno is, if it is one."""
    if error:
        raise OSError(error, os.strerror(error))
