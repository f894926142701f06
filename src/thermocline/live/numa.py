"""The system calls of memory nodes: mbind(2), move_pages(2) and process_madvise(2), which glibc does not wrap.

Node numbers are the kernel's. A page is a base page here, and an address one of the process's that is named.
"""

from __future__ import annotations

import ctypes
import errno
import os
from array import array
from collections.abc import Iterable, Sequence

from thermocline.errors import is_ours

_libc = ctypes.CDLL(None, use_errno=True)

#: By machine: mbind, move_pages.
_NUMBERS = {
    "x86_64": (237, 279),
    "aarch64": (235, 239),
    "riscv64": (235, 239),
    "ppc64le": (259, 301),
    "s390x": (268, 310),
}
_MBIND, _MOVE_PAGES = range(2)
#: The same on all of them.
_PROCESS_MADVISE = 440

#: Prefer these nodes, and fall back to others rather than fail (Linux 5.15).
MPOL_PREFERRED_MANY = 5
_MPOL_MF_MOVE, _MPOL_MF_MOVE_ALL = 2, 4
_MADV_PAGEOUT = 21
#: Bits of a nodemask that we pass: no kernel has more nodes (``MAX_NUMNODES``).
_MASK_BITS = 1024
#: What a status says of a page that the kernel has not come to.
UNTRIED = -errno.EAGAIN


def _call(name: str, number: int, *arguments: object) -> int:
    result = _libc.syscall(ctypes.c_long(number), *arguments)
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{name}: {os.strerror(code)}")
    return int(result)


def _number(call: int, name: str) -> int:
    numbers = _NUMBERS.get(os.uname().machine)
    if numbers is None:
        raise OSError(errno.ENOSYS, f"{name}: unknown system call number on {os.uname().machine}")
    return numbers[call]


def prefer(address: int, length: int, nodes: Iterable[int]) -> None:
    """Let pages that appear in a mapping come from these nodes, if they have any free (mbind(2)).

    Of a shared mapping it is the file that has the policy: it holds for whoever makes a page of it appear, in whichever
    process.
    """
    mask = (ctypes.c_ulong * (_MASK_BITS // 64))()
    for node in nodes:
        mask[node // 64] |= 1 << node % 64
    _call(
        "mbind",
        _number(_MBIND, "mbind"),
        ctypes.c_void_p(address),
        ctypes.c_ulong(length),
        ctypes.c_int(MPOL_PREFERRED_MANY),
        mask,
        ctypes.c_ulong(_MASK_BITS),
        ctypes.c_uint(0),
    )


def _pointer(column: array[int]) -> ctypes.c_void_p:
    return ctypes.c_void_p(column.buffer_info()[0])


def move(pid: int, addresses: Sequence[int], node: int, *, shared: bool) -> list[int]:
    """Move pages of a process to a node (move_pages(2)) -> of each, the node that it is on now, or a negative errno.

    ``-ENOENT``: it is not mapped in that process. ``-EACCES``: others have it mapped, too, and only with ``shared``,
    which takes CAP_SYS_NICE, may it be moved. :data:`UNTRIED`: the kernel gave up before it, and it may be tried again.

    Raises
    ------
    OSError
        ENODEV: there is no such node (any more). EACCES: the process may not use it. EPERM: not allowed, for want of a
        capability or by a seccomp filter. ESRCH: the process is gone.
    """
    return _move_pages(pid, addresses, node, _MPOL_MF_MOVE_ALL if shared else _MPOL_MF_MOVE)


def locate(pid: int, addresses: Sequence[int]) -> list[int]:
    """On which nodes pages of a process are -> of each, the node, or a negative errno as of :func:`move`."""
    return _move_pages(pid, addresses, None, 0)


def _move_pages(pid: int, addresses: Sequence[int], node: int | None, flags: int) -> list[int]:
    """move_pages(2); without a node it moves nothing, and says where pages are."""
    count = len(addresses)
    # Held by name: the kernel reads them by address.
    places, nodes, statuses = array("Q", addresses), array("i", [node or 0] * count), array("i", [UNTRIED] * count)
    try:
        _call(
            "move_pages",
            _number(_MOVE_PAGES, "move_pages"),
            ctypes.c_int(pid),
            ctypes.c_ulong(count),
            _pointer(places),
            ctypes.c_void_p(None) if node is None else _pointer(nodes),
            _pointer(statuses),
            ctypes.c_int(flags),
        )
    except OSError as error:
        if not is_ours(error):
            raise
        if (
            error.errno == errno.EINVAL
        ):  # its flags are right, so it has no address space: it has ended, and is a zombie
            raise ProcessLookupError(errno.ESRCH, "move_pages: the process has ended") from None
        if error.errno != errno.ENOENT:  # older kernels: nothing had to be moved, and the statuses say why
            raise
    # What is not mapped at all is not mapped, either.
    return [-errno.ENOENT if status == -errno.EFAULT else status for status in statuses]


def page_out(process: int, ranges: Sequence[tuple[int, int]]) -> None:
    """Let the kernel reclaim ranges (address, bytes) of a process, by its pidfd (process_madvise(2), MADV_PAGEOUT).

    Where there is no swap, what a shared mapping of memory has cannot leave: it is unmapped, and no more.

    Raises
    ------
    OSError
        EPERM: it takes CAP_SYS_NICE. ESRCH: the process is gone.
    """
    vector = (ctypes.c_size_t * (2 * len(ranges)))(*(word for pair in ranges for word in pair))
    _call(
        "process_madvise",
        _PROCESS_MADVISE,
        ctypes.c_int(process),
        vector,
        ctypes.c_ulong(len(ranges)),
        ctypes.c_int(_MADV_PAGEOUT),
        ctypes.c_uint(0),
    )
