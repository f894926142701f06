"""What a process's limits (getrlimit(2)) must leave for a memory: looked at before anything is made, and said plainly.

The helper processes inherit the program's limits and raise their own as far as they may, so for them the hard limits
count. What the program itself may do is for it to say: what it sets later, it meets as without us.
"""

from __future__ import annotations

import errno
import os
import resource
from collections.abc import Sequence

from thermocline.errors import UnsupportedError, is_ours
from thermocline.sizes import format_size
from thermocline.spec import Compressed, File, NodeSpec

#: Limits that are on the program's account, and not on that of its helpers.
_RAISED = (
    resource.RLIMIT_AS,
    resource.RLIMIT_CPU,
    resource.RLIMIT_DATA,
    resource.RLIMIT_FSIZE,
    resource.RLIMIT_NOFILE,
)
#: Addresses that a pager takes (measured): in any case (an interpreter, libraries, threads), and for each page of the
#: arena (the shared tables, its own, those of stores). What compressed memory holds comes on top.
_PAGER, _PER_PAGE = 320 << 20, 128
#: Descriptors that making a memory takes at once, and those for each store.
_DESCRIPTORS = 16
_DESCRIPTORS_OF: dict[type[object], int] = {Compressed: 1, File: 3}
#: Addresses of an arena, in multiples of what can be committed, or of the addresses that a program may have: holes
#: between arrays are not worth moving for.
SPREAD = 4
#: More than any file has (``loff_t``).
_ENDLESS = 1 << 63
_CAP_SYS_RESOURCE = 1 << 24


def raise_all() -> None:
    """In a helper: have limits as high as may be."""
    for limit in _RAISED:
        _, most = resource.getrlimit(limit)
        try:
            resource.setrlimit(limit, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        except (ValueError, OSError):  # to raise a hard limit takes CAP_SYS_RESOURCE
            resource.setrlimit(limit, (most, most))


def most_pages(page_size: int) -> int | None:
    """The pages that an arena may need addresses for, as far as this process may have addresses; None: no limit."""
    _, most = resource.getrlimit(resource.RLIMIT_AS)
    return None if most == resource.RLIM_INFINITY else max(SPREAD * most // page_size, 1)


def check(nodes: Sequence[NodeSpec], pages: int, page_size: int) -> None:
    """Look whether a memory with so many pages of addresses can be made within the limits of this process.

    Raises
    ------
    UnsupportedError
        It cannot, and this is how much it would take.
    """
    _check_descriptors(nodes)
    files = largest_file()
    if pages * page_size > files:
        raise UnsupportedError(
            f"files may have {format_size(files)} here (ulimit -f), and the file in memory that holds the arrays has"
            f" {format_size(pages * page_size)} of addresses; lift that limit (ulimit -f unlimited), or write smaller"
            " nodes"
        )
    _, addresses = resource.getrlimit(resource.RLIMIT_AS)
    needed = _PAGER + _PER_PAGE * pages + sum(spec.capacity for spec in nodes if isinstance(spec, Compressed))
    if addresses != resource.RLIM_INFINITY and needed > addresses and not _may_raise():
        raise UnsupportedError(
            f"a process may have {format_size(addresses)} of addresses here (ulimit -v), and the pager of this memory"
            f" needs {format_size(needed)}; raise that limit, or write less compressed memory, smaller nodes or a"
            " larger page size"
        )


def _check_descriptors(nodes: Sequence[NodeSpec]) -> None:
    most, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = _DESCRIPTORS + sum(_DESCRIPTORS_OF.get(type(spec), 0) for spec in nodes)
    try:
        opened = len(os.listdir("/proc/self/fd")) - 1
    except OSError as error:
        explanation = explained(error)
        if explanation is error:
            raise
        raise explanation from error
    if opened + needed > most:
        raise UnsupportedError(
            f"a process may have {most} files open here (ulimit -n), and this one has {opened}; to make this memory"
            f" takes {needed} more for a moment: raise that limit"
        )


def explained(error: OSError) -> OSError:
    """An error from making a memory -> the same, in words that say what to do where a limit is the cause.

    What is not ours to explain stays as it is.
    """
    if not is_ours(error):
        return error
    if error.errno in (errno.EMFILE, errno.ENFILE):
        return UnsupportedError(
            f"making a memory takes more open files than this process may have ({error.strerror}); raise the limit"
            " (ulimit -n)"
        )
    if error.errno == errno.EAGAIN:
        return UnsupportedError(
            f"this user may have no more processes, or this process may lock no more memory ({error.strerror}); raise"
            " the limit (ulimit -u, ulimit -l)"
        )
    if error.errno == errno.ENOMEM:
        return UnsupportedError(
            f"this process may have no more memory, or no more addresses ({error.strerror}); raise the limit (ulimit"
            " -v), or write smaller nodes or a larger page size"
        )
    return error


def refused(number: int) -> str:
    """Why there are no addresses for an array, and what to do.

    Parameters
    ----------
    number : int
        EAGAIN, ENOMEM: why the kernel does not map them (mmap(2)). EBADF: there is nothing to map. ENOSPC: all are in
        use.
    """
    if number == errno.EAGAIN:
        locked, _ = resource.getrlimit(resource.RLIMIT_MEMLOCK)
        return (
            f"a process that locks all of its memory (mlockall) may lock {format_size(locked)} here (ulimit -l); raise"
            " that limit, or make arrays before it locks its memory"
        )
    if number == errno.ENOMEM:
        addresses, _ = resource.getrlimit(resource.RLIMIT_AS)
        if addresses != resource.RLIM_INFINITY:
            return (
                f"this process may have {format_size(addresses)} of addresses (ulimit -v); raise that limit, or free"
                " arrays or other memory"
            )
        return "this process may have no more mappings (vm.max_map_count); raise that limit, or free arrays"
    if number == errno.ENOSPC:
        return "no addresses of this memory are free in one piece; free arrays, or give the last node more"
    return (
        "the program has closed descriptors of thermocline's, and the supervisor of this memory cannot be reached; make"
        " the Memory after that, or leave those open"
    )


def largest_file() -> int:
    """Bytes that a file may have that this process makes."""
    size, _ = resource.getrlimit(resource.RLIMIT_FSIZE)
    return _ENDLESS if size == resource.RLIM_INFINITY else size


def _may_raise() -> bool:
    """Whether a helper may raise hard limits (capabilities(7), proc(5))."""
    with open("/proc/self/status", encoding="ascii", errors="replace") as lines:
        found = next((line.split()[1] for line in lines if line.startswith("CapEff:")), "0")
    return bool(int(found, 16) & _CAP_SYS_RESOURCE)
