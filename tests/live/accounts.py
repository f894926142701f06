"""What a process takes, by the kernel's account (proc(5))."""

import os
from pathlib import Path


def private(pid: int) -> int:
    """Bytes of a process's own memory: its heap, and private mappings."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("Anonymous:"))


def page_tables(pid: int) -> int:
    """Bytes of a process's page tables."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("VmPTE:"))


def descriptors(pid: int | str) -> int:
    """Open descriptors of a process."""
    return len(os.listdir(f"/proc/{pid}/fd"))


def memory_files(pid: int, *names: str) -> int:
    """Bytes of the memory files (memfd_create(2)) of these names that a process has open, each once."""
    found = {}
    for fd in os.listdir(f"/proc/{pid}/fd"):
        if any(f"memfd:{name} " in os.readlink(f"/proc/{pid}/fd/{fd}") for name in names):
            status = os.stat(f"/proc/{pid}/fd/{fd}")
            found[status.st_ino] = status.st_blocks * 512
    return sum(found.values())
