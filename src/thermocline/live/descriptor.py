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
import os
from collections import deque
from collections.abc import Callable
from typing import Self, cast

from thermocline.live.guard import Guard, Lease, process_guard
from thermocline.native import library

#: Numbers from which on ours are, where the limit on open files allows it: below are the standard streams, which may be
#: closed, and the ones that programs, and select(2), count with.
_LOWEST = 64
_STANDARD = 3


class DescriptorError(OSError):
    """A descriptor of ours cannot be used: the program has closed it, or the other end is closed.

    Only ours: an ``OSError`` that a signal handler raises is none.
    """

    def __init__(self, number: int, text: str = "") -> None:
        super().__init__(number, text or os.strerror(number))


def moved_up(fd: int) -> int:
    """The same open file under a number that stands in for no standard stream; ``fd`` is closed if it is another.

    Raises
    ------
    DescriptorError
        There is none left. ``fd`` is closed.
    """
    if fd >= _LOWEST:
        return fd
    move_up = library().tc_descriptor_move_up
    moved = int(move_up(fd, _LOWEST))
    if moved < 0 and fd >= _STANDARD:
        return fd
    if moved < 0:
        moved = int(move_up(fd, _STANDARD))
    if moved < 0:
        close(fd)
        raise DescriptorError(-moved)
    return moved


def close(fd: int) -> None:
    """Close a number, if it is open (close(2)); other processes have the file as well."""
    library().tc_descriptor_close(fd)


def leased(opening: Callable[..., int], *arguments: object) -> Lease:
    """What is opened now, as a lease of its number: it is closed when that ends."""
    return cast("Lease", _files().lease(opening, *arguments))


def _files() -> Guard:
    return process_guard("files", _close_files)


def _close_files() -> None:
    released = _files().released
    while released:
        # One step of the interpreter: a number that is off the list is closed, and none is closed twice.
        deque(map(library().tc_descriptor_close, map(released.pop, (0,))), maxlen=0)


class Identity(ctypes.Structure):
    """``struct tc_identity``: what no other open file has."""

    _fields_ = (
        *((name, ctypes.c_uint64) for name in ("device", "inode", "cookie")),
        ("type", ctypes.c_uint32),
    )


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

    def _identify(self) -> bytes:
        identity = Identity()
        error = library().tc_descriptor_identify(self.number, ctypes.byref(identity))
        if error:
            raise DescriptorError(error)
        return bytes(identity)

    @property
    def is_ours(self) -> bool:
        """Whether the number still is of the file that it was of."""
        try:
            return self.number >= 0 and self._identify() == self._identity
        except DescriptorError:
            return False

    def fileno(self) -> int:
        """Its number, if it is ours.

        Raises
        ------
        DescriptorError
            EBADF: the program has closed it, or has another file there.
        """
        if not self.is_ours:
            raise DescriptorError(
                errno.EBADF, "the program has closed this descriptor of thermocline's, or put another there"
            )
        return self.number

    def replace(self, fd: int) -> None:
        """Go on with another number of the same file: the program has closed ours."""
        self.close()
        self.number = moved_up(fd)
        self._identity = self._identify()

    def close(self) -> None:
        """Close it, if it is ours. Doing it again is nothing."""
        if self.is_ours:
            close(self.number)
        self.number = -1
