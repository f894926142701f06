"""Compressed swap (zram), made for a measurement and taken away after it."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

_CONTROL = Path("/sys/class/zram-control")
_ALGORITHM = "lzo-rle"


class Zram:
    """A zram device, by its books (``mm_stat``)."""

    def __init__(self, device: Path) -> None:
        self.device = device

    def _books(self) -> list[int]:
        return [int(number) for number in (self.device / "mm_stat").read_text().split()]

    def held(self) -> int:
        """Bytes of pages that it holds now."""
        return self._books()[0]

    def used(self) -> int:
        """Bytes of DRAM that it takes now."""
        return self._books()[2]

    def most(self) -> int:
        """The most bytes of DRAM that it ever took."""
        return self._books()[4]


@contextlib.contextmanager
def zram_swap(size: int) -> Iterator[Zram]:
    """Swap to a fresh zram device of so many bytes.

    Raises
    ------
    OSError
        There is none to be had here, or this user may not.
    """
    with _alone():
        number = (_CONTROL / "hot_add").read_text().strip()
        device = Path(f"/sys/block/zram{number}")
        try:
            (device / "comp_algorithm").write_text(_ALGORITHM)
            (device / "disksize").write_text(str(size))
            for command in (["mkswap"], ["swapon", "-p", "32000"]):
                subprocess.run([*command, f"/dev/zram{number}"], check=True, capture_output=True)
            try:
                yield Zram(device)
            finally:
                with _undisturbed():
                    subprocess.run(["swapoff", f"/dev/zram{number}"], check=True)
        finally:
            with _undisturbed():
                (device / "reset").write_text("1")
                (_CONTROL / "hot_remove").write_text(number)


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    """One suite at a time: the kernel would spread what two of them swap over both devices."""
    directory = os.open(_CONTROL, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(directory, fcntl.LOCK_EX)
        yield
    finally:
        os.close(directory)


@contextlib.contextmanager
def _undisturbed() -> Iterator[None]:
    """A second Ctrl-C while one is answered must not leave the machine with swap that nobody knows of."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
