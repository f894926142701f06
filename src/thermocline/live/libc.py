"""The system calls that Python's ``os`` module does not wrap, through ctypes.

Each function raises ``OSError`` with the call's own errno. ctypes releases the GIL around a foreign call, so a slow
punch never holds up another thread of the caller.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
from collections.abc import Iterator

from thermocline.native import library

_libc = ctypes.CDLL(None, use_errno=True)

_libc.fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = (
    ctypes.c_void_p,
    ctypes.c_size_t,
    ctypes.c_int,
    ctypes.c_int,
    ctypes.c_int,
    ctypes.c_int64,
)
_libc.munmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
_libc.mprotect.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
_libc.mlock.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
_libc.munlock.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
_libc.madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)

_SYS_USERFAULTFD = {"x86_64": 323, "aarch64": 282, "riscv64": 282, "ppc64le": 364, "s390x": 355}

PROT_NONE, PROT_READ, PROT_WRITE = 0, 1, 2
MAP_SHARED, MAP_PRIVATE, MAP_FIXED, MAP_ANONYMOUS, MAP_NORESERVE = 0x01, 0x02, 0x10, 0x20, 0x4000
MADV_POPULATE_READ, MADV_POPULATE_WRITE = 22, 23
_FALLOC_FL_KEEP_SIZE, _FALLOC_FL_PUNCH_HOLE = 1, 2
# fcntl(2); Python's fcntl module has them only where it was built against headers that do.
_F_ADD_SEALS, _F_SEAL_SEAL, _F_SEAL_SHRINK, _F_SEAL_GROW = 1033, 1, 2, 4
_MAP_FAILED = ctypes.c_void_p(-1).value


def _error(call: str, number: int | None = None) -> OSError:
    number = ctypes.get_errno() if number is None else number
    return OSError(number, f"{call}: {os.strerror(number)}")


def punch_hole(fd: int, offset: int, length: int) -> None:
    """Free ``length`` bytes of a file at ``offset`` and unmap them everywhere (fallocate(2), PUNCH_HOLE)."""
    if _libc.fallocate(fd, _FALLOC_FL_KEEP_SIZE | _FALLOC_FL_PUNCH_HOLE, offset, length) != 0:
        raise _error("fallocate(PUNCH_HOLE)")


def data_extents(fd: int, begin: int, end: int) -> Iterator[tuple[int, int]]:
    """Where a sparse file has data, between two offsets: begin and end of each stretch (lseek(2), ``SEEK_DATA``)."""
    while begin < end and (data := next_data(fd, begin)) is not None:
        begin = min(os.lseek(fd, data, os.SEEK_HOLE), end)
        if data < begin:
            yield data, begin


def next_data(fd: int, offset: int) -> int | None:
    """Where the first data of a sparse file is from an offset on (lseek(2), ``SEEK_DATA``); None: there is none."""
    try:
        return os.lseek(fd, offset, os.SEEK_DATA)
    except OSError as error:
        if error.errno != errno.ENXIO:
            raise
        return None


def fixed_memory(name: str, size: int) -> int:
    """A memfd of that size which nobody can resize (memfd_create(2), fcntl(2) ``F_ADD_SEALS``) -> its descriptor."""
    fd = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        os.fchmod(fd, 0o600)
        os.ftruncate(fd, size)
        fcntl.fcntl(fd, _F_ADD_SEALS, _F_SEAL_SEAL | _F_SEAL_SHRINK | _F_SEAL_GROW)
    except OSError:
        os.close(fd)
        raise
    return fd


def mmap(address: int | None, length: int, protection: int, flags: int, fd: int = -1, offset: int = 0) -> int:
    """Map memory and return its address (mmap(2)); unlike ``mmap.mmap`` the caller may choose the address."""
    result = _libc.mmap(address, length, protection, flags, fd, offset)
    if result is None or result == _MAP_FAILED:
        raise _error("mmap")
    return int(result)


def mprotect(address: int, length: int, protection: int) -> None:
    """Change what may be done to a mapping (mprotect(2))."""
    if _libc.mprotect(address, length, protection) != 0:
        raise _error("mprotect")


def mlock(address: int, length: int) -> None:
    """Lock memory (mlock(2))."""
    if _libc.mlock(address, length) != 0:
        raise _error("mlock")


def munlock(address: int, length: int) -> None:
    """Unlock memory (munlock(2))."""
    if _libc.munlock(address, length) != 0:
        raise _error("munlock")


def munmap(address: int, length: int) -> None:
    """Unmap memory (munmap(2))."""
    if _libc.munmap(address, length) != 0:
        raise _error("munmap")


def munmap_once(address: ctypes.c_uint64, length: int) -> None:
    """Unmap memory whose address is in a place of its own, which is 0 afterwards. Doing it again is nothing."""
    number = library().tc_unmap(ctypes.byref(address), ctypes.c_uint64(length))
    if number:
        raise _error("munmap", number)


def madvise(address: int, length: int, advice: int) -> None:
    """Advise the kernel about a mapping (madvise(2))."""
    if _libc.madvise(address, length, advice) != 0:
        raise _error("madvise")


def discard(address: int, length: int) -> None:
    """Empty the page tables of a shared mapping, poison and all, also where it is locked (mlock(2); Linux 5.18)."""
    number = library().tc_discard(ctypes.c_uint64(address), ctypes.c_uint64(length))
    if number:
        raise _error("madvise", number)


def map_sparse(fd: int, length: int) -> int:
    """Map a sparse file, shared and writable -> its address. It stays sparse where all memory is locked.

    (mlockall(2), ``MCL_FUTURE``: what is mapped and can be read is brought up at once.)
    """
    address = mmap(None, length, PROT_NONE, MAP_SHARED, fd)
    try:
        munlock(address, length)
        mprotect(address, length, PROT_READ | PROT_WRITE)
    except OSError:
        munmap(address, length)
        raise
    return address


def userfaultfd(flags: int) -> int:
    """Create a userfaultfd (userfaultfd(2)); glibc has no wrapper for it."""
    number = _SYS_USERFAULTFD.get(os.uname().machine)
    if number is None:
        raise OSError(38, f"userfaultfd: unknown system call number on {os.uname().machine}")
    fd = _libc.syscall(ctypes.c_long(number), ctypes.c_int(flags))
    if fd < 0:
        raise _error("userfaultfd")
    return int(fd)


_PR_SET_DUMPABLE, _PR_GET_CHILD_SUBREAPER = 4, 37


def hide_process() -> None:
    """Keep this process and its children from being dumped, traced or looked into by its user (prctl(2)).

    Unlike a limit on the size of core files, it also holds where the kernel pipes them to a program (core(5)).
    """
    if _libc.prctl(_PR_SET_DUMPABLE, ctypes.c_ulong(0), ctypes.c_ulong(0), ctypes.c_ulong(0), ctypes.c_ulong(0)) != 0:
        raise _error("prctl(PR_SET_DUMPABLE)")


def is_subreaper() -> bool:
    """Whether this process adopts the orphans among its descendants (prctl(2))."""
    is_one = ctypes.c_int()
    if _libc.prctl(_PR_GET_CHILD_SUBREAPER, ctypes.byref(is_one)) != 0:
        raise _error("prctl(PR_GET_CHILD_SUBREAPER)")
    return bool(is_one.value)


_libc.memcmp.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)


def is_zero(address: int, length: int) -> bool:
    """Whether memory holds zeros only: it equals itself one byte on, and begins with a zero (memcmp(3))."""
    return ctypes.c_ubyte.from_address(address).value == 0 and _libc.memcmp(address, address + 1, length - 1) == 0
