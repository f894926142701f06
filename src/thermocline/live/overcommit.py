"""What the kernel would grant: whether an allocation that our nodes cannot hold would fail without us."""

from __future__ import annotations

import ctypes
from pathlib import Path

from thermocline.cgroup import text_of
from thermocline.native import library


def grants(size: int) -> bool:
    """Whether the kernel would map so many bytes of memory for this process now.

    It is asked, and so answers by its own rules: ``vm.overcommit_memory``, and the limits of the process (proc(5),
    getrlimit(2)). Nothing is touched, also where all memory is to be locked (mlockall(2)).
    """
    is_granted = library().tc_is_granted
    is_granted.restype = ctypes.c_bool
    return bool(is_granted(ctypes.c_uint64(size)))


def machine_bytes() -> int:
    """RAM and swap, in bytes: no single allocation of more is granted (proc(5), ``overcommit_memory`` 0)."""
    total = 0
    for line in text_of(Path("/proc/meminfo")).splitlines():
        name, _, rest = line.partition(":")
        if name in ("MemTotal", "SwapTotal"):
            total += int(rest.split()[0]) << 10
    return total
