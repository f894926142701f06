"""A limit (getrlimit(2)) that is lower for a while, and holds for root as it does for others.

What the superuser may do in spite of a limit it may not do meanwhile (capabilities(7)).
"""

from __future__ import annotations

import ctypes
import os
import resource
from typing import Self

from thermocline.errors import ThermoclineError

LIMITS = ("AS", "FSIZE", "MEMLOCK", "NOFILE", "NPROC")
#: How a limit may be felt. A thread that cannot be started is Python's own RuntimeError.
REFUSALS = (MemoryError, OSError, ThermoclineError)

_MIB = 1 << 20
#: Which of them go beyond limits on memory and processes: ``CAP_IPC_LOCK``, ``CAP_SYS_ADMIN``, ``CAP_SYS_RESOURCE``.
_BEYOND = 1 << 14 | 1 << 21 | 1 << 24
#: The kernel counts the processes of users other than root only.
_NOBODY = 65534


class _Capabilities(ctypes.Structure):
    """``struct __user_cap_header_struct``, and two of ``struct __user_cap_data_struct`` (capget(2))."""

    _fields_ = (
        ("version", ctypes.c_uint32),
        ("pid", ctypes.c_int),
        ("sets", ctypes.c_uint32 * 6),
    )


class Lowered:
    """One of them, within a ``with`` statement. What is needed at its end is there before: memory may be short then.

    Parameters
    ----------
    limit : str
        One of :data:`LIMITS`. It is the soft one, which may be raised again.
    room : int
        How much it leaves, from 0 to 63: of addresses, and of memory that is locked, its cube in 256 bytes, for little
        is what matters; MiB of files (one more); numbers of descriptors; processes.
    """

    def __init__(self, limit: str, room: int) -> None:
        self._limit = getattr(resource, f"RLIMIT_{limit}")
        soft, hard = resource.getrlimit(self._limit)
        self._before = soft, hard
        wanted = {
            "AS": _addresses() + (room**3 << 8),
            "MEMLOCK": _addresses() + (room**3 << 8),
            "FSIZE": (1 + room) * _MIB,  # stderr is a file, too
            "NOFILE": room,
            "NPROC": room,
        }[limit]
        self._is_root = os.geteuid() == 0
        self._low = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard), hard
        self._counts_processes = limit == "NPROC" and self._is_root
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._had, self._has = (_Capabilities(0x20080522, 0) for _ in range(2))
        for each in (self._had, self._has):
            self._libc.capget(ctypes.byref(each), ctypes.byref(each.sets))
        self._has.sets[0] &= ~_BEYOND

    def __enter__(self) -> Self:
        if self._counts_processes:
            os.setresuid(_NOBODY, -1, -1)
        resource.setrlimit(self._limit, self._low)
        self._have(self._has)
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def end(self) -> None:
        """All is as it was. Doing it again is nothing."""
        resource.setrlimit(self._limit, self._before)
        self._have(self._had)
        if self._counts_processes:
            os.setresuid(0, -1, -1)

    def _have(self, capabilities: _Capabilities) -> None:
        if self._is_root and self._libc.capset(ctypes.byref(capabilities), ctypes.byref(capabilities.sets)):
            raise OSError(ctypes.get_errno(), "capset")


class Locked:
    """All memory that is there and that will be, within a ``with`` statement, where that may be locked (mlockall(2)).

    What a limit on locked memory is lower than afterwards is in nobody's way; what will be is.
    """

    _CURRENT, _FUTURE = 1, 2

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None)

    def __enter__(self) -> None:
        self._libc.mlockall(self._CURRENT | self._FUTURE)

    def __exit__(self, *_: object) -> None:
        self._libc.munlockall()


def _addresses() -> int:
    """Bytes of addresses that this process has mapped (proc(5))."""
    with open("/proc/self/statm", encoding="ascii") as counts:
        return int(counts.read().split()[0]) * resource.getpagesize()
