"""What the kernel would grant: whether an allocation that our nodes cannot hold would fail without us."""

from __future__ import annotations

import contextlib

from thermocline.live import libc


def grants(size: int) -> bool:
    """Whether the kernel would map so many bytes of memory for this process now.

    It is asked, and so answers by its own rules: ``vm.overcommit_memory``, and the limits of the process (proc(5),
    getrlimit(2)). Nothing is touched, also where all memory is to be locked (mlockall(2)).
    """
    flags = libc.MAP_PRIVATE | libc.MAP_ANONYMOUS
    try:
        address = libc.mmap(None, size, libc.PROT_NONE, flags)
    except OSError:
        return False
    try:
        # What cannot be written to is not accounted for, and what is locked comes up when it can be.
        libc.munlock(address, size)
        libc.mprotect(address, size, libc.PROT_READ | libc.PROT_WRITE)
    except OSError:
        return False
    finally:
        libc.munmap(address, size)
    return True


def machine_bytes() -> int:
    """RAM and swap, in bytes: no single allocation of more is granted (proc(5), ``overcommit_memory`` 0)."""
    total = 0
    with contextlib.suppress(OSError), open("/proc/meminfo", encoding="ascii") as lines:
        for line in lines:
            name, _, rest = line.partition(":")
            if name in ("MemTotal", "SwapTotal"):
                total += int(rest.split()[0]) << 10
    return total
