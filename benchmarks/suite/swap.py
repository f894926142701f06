"""Compressed swap (zram), made for a measurement and taken away after it."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

_CONTROL = Path("/sys/class/zram-control")
_ALGORITHM = "lzo-rle"


@contextlib.contextmanager
def zram_swap(size: int) -> Iterator[None]:
    """Swap to a fresh zram device of so many bytes.

    Raises
    ------
    OSError
        There is none to be had here, or this user may not.
    """
    number = (_CONTROL / "hot_add").read_text().strip()
    device = Path(f"/sys/block/zram{number}")
    try:
        (device / "comp_algorithm").write_text(_ALGORITHM)
        (device / "disksize").write_text(str(size))
        for command in (["mkswap"], ["swapon", "-p", "32000"]):
            subprocess.run([*command, f"/dev/zram{number}"], check=True, capture_output=True)
        try:
            yield
        finally:
            subprocess.run(["swapoff", f"/dev/zram{number}"], check=True)
    finally:
        (device / "reset").write_text("1")
        (_CONTROL / "hot_remove").write_text(number)


def zram_bytes() -> int:
    """Bytes that all zram devices ever took together (``mm_stat``, mem_used_max)."""
    found = 0
    for statistics in Path("/sys/block").glob("zram*/mm_stat"):
        found += int(statistics.read_text().split()[4])
    return found
