"""Forks of this process: the native library attaches each child to the memories of its parent (``native/fork.c``).

The child is attached before fork(2) returns in it, whoever calls fork(2): Python, or a C library behind its back. What
Python knows of a memory is brought up to date by its attachment (:mod:`thermocline.live.attachment`), in children that
Python forks.
"""

from __future__ import annotations

import ctypes
from array import array

from thermocline.errors import ThermoclineError
from thermocline.native import library


class _Served(ctypes.Structure):
    """``struct tc_served``."""

    _fields_ = (
        ("address", ctypes.c_uint64),
        ("features", ctypes.c_uint64),
        ("name", ctypes.c_char_p),
        ("secret", ctypes.c_uint64),
        ("number", ctypes.c_uint32),
        ("copies", ctypes.c_uint32),
    )


class Attached(ctypes.Structure):
    """``struct tc_attached``: what a forked child has of a memory.

    Attributes
    ----------
    peer, uffd, lifeline : int
        Descriptors.
    number : int
        Its, among the processes that use the memory.
    """

    _fields_ = (
        ("peer", ctypes.c_int32),
        ("uffd", ctypes.c_int32),
        ("lifeline", ctypes.c_int32),
        ("number", ctypes.c_uint32),
        ("is_attached", ctypes.c_uint32),
        ("serves_system_calls", ctypes.c_uint32),
    )


class Forks:
    """The forks of one process, for one memory.

    Parameters
    ----------
    address : int
        Where the arena's addresses begin.
    features : int
        Of its userfaultfd.
    name, secret : str, int
        Where its supervisor listens, and what it wants to hear.
    number : int
        Of this process, among those that use the memory.
    copies : bool
        Whether a child sees the arrays as they were when it was forked, or shares them.

    Raises
    ------
    ThermoclineError
        There is no memory for it.
    """

    def __init__(self, address: int, *, features: int, name: str, secret: int, number: int, copies: bool) -> None:
        self._library = library()
        self._library.tc_fork_serve.restype = ctypes.c_void_p
        self._library.tc_fork_attached.restype = Attached
        served = _Served(address, features, name.encode(), secret, number, copies)
        memory = self._library.tc_fork_serve(ctypes.byref(served))
        if not memory:
            raise ThermoclineError("no memory is left to look after forks")
        self._memory = ctypes.c_void_p(memory)
        self._library.tc_fork_over.restype = ctypes.c_void_p
        #: Where the library counts the forks that are over.
        self.over_address = int(self._library.tc_fork_over(self._memory))
        self._over = ctypes.c_uint64.from_address(self.over_address)

    @property
    def over(self) -> int:
        """How many forks came before what is allocated now: a fork that is under way may have it, too."""
        return self._over.value

    def attached(self) -> Attached | None:
        """In a child that was just forked: what it has; None if it could not be attached."""
        found: Attached = self._library.tc_fork_attached(self._memory)
        return found if found.is_attached else None

    def map(self, bounds: array[int]) -> None:
        """Children are given these ranges of the arena from now on (see :class:`thermocline.live.mapped.Mapped`).

        Raises
        ------
        MemoryError
            There is no memory for it.
        """
        if self._library.tc_fork_map(
            self._memory, ctypes.c_void_p(bounds.buffer_info()[0]), ctypes.c_size_t(len(bounds) // 2)
        ):
            raise MemoryError("no memory is left to look after forks")

    def mapped(self) -> array[int]:
        """In a child: the ranges of the arena that it was given."""
        count = 0
        while True:
            bounds = array("Q", bytes(16 * count))
            found = self._library.tc_fork_mapped(
                self._memory, ctypes.c_void_p(bounds.buffer_info()[0]), ctypes.c_size_t(count)
            )
            if found == count:
                return bounds
            count = found

    def share(self, address: int, size: int, since: int, forks: int) -> int:
        """Let children share a range: the word at ``since`` becomes the first fork whose child does -> 0, or -1."""
        failed: int = self._library.tc_fork_share(
            self._memory,
            ctypes.c_uint64(address),
            ctypes.c_uint64(size),
            ctypes.c_void_p(since),
            ctypes.c_void_p(forks),
        )
        return failed

    def unshare(self, address: int) -> None:
        """The range is free: it is another array's next."""
        self._library.tc_fork_unshare(self._memory, ctypes.c_uint64(address))

    def forget(self) -> None:
        """The memory is closed here. Doing it again is nothing."""
        self._library.tc_fork_forget(ctypes.byref(self._memory))
