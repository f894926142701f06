"""A limit on memory for one process: a memory cgroup, of version 1 or 2."""

from __future__ import annotations

import contextlib
import ctypes
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

#: How long the last process of a cgroup may take for its end.
_GRACE_SECONDS = 10
#: By how much a limit is raised for a moment when the kernel found nothing to reclaim.
_BREATH = 1 << 19
_V1, _V2 = Path("/sys/fs/cgroup/memory"), Path("/sys/fs/cgroup")
_MCL_CURRENT, _MCL_FUTURE, _MCL_ONFAULT = 1, 2, 4
_LIBC = ctypes.CDLL(None, use_errno=True)


def may_leave(data: np.ndarray) -> None:
    """Let the kernel reclaim a mapping, although all is locked that is mapped."""
    if _LIBC.munlock(ctypes.c_void_p(data.ctypes.data), ctypes.c_size_t(data.nbytes)):
        raise OSError(ctypes.get_errno(), "munlock: the data cannot be let go of")


class Cgroup:
    """A memory cgroup."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._first = (path / "memory.limit_in_bytes").exists()

    def enter(self) -> None:
        """Put this process in it."""
        (self.path / "cgroup.procs").write_text(str(os.getpid()))

    def processes(self) -> list[int]:
        """Who is in it."""
        return [int(pid) for pid in (self.path / "cgroup.procs").read_text().split()]

    def limit(self, size: int) -> None:
        """The most bytes that its processes may take, what the kernel caches for them included."""
        (self.path / ("memory.limit_in_bytes" if self._first else "memory.max")).write_text(str(size))

    def leave_to_data(self, size: int, *, all_else: bool = False) -> int:
        """Limit what this process takes from now on to so many bytes -> what it had taken before.

        What it has is locked: the interpreter must not be swapped out to make room for the data. So this comes before
        the data is mapped. ``all_else`` is for data that is one mapping, which is given to `may_leave`: all that is
        mapped besides is locked, too. A system call that needs a page of the interpreter's own does not wait where the
        limit is reached, as the program itself would; it fails (EFAULT), and not every caller looks.
        """
        if _LIBC.mlockall(_MCL_CURRENT | _MCL_ONFAULT | (_MCL_FUTURE if all_else else 0)):
            raise OSError(ctypes.get_errno(), "mlockall: the interpreter cannot be kept in memory")
        before = self.used()
        self.limit(before + size)
        return before

    def used(self) -> int:
        """Bytes that they take now."""
        return int((self.path / ("memory.usage_in_bytes" if self._first else "memory.current")).read_text())

    def most(self) -> int:
        """The most that they ever took."""
        return int((self.path / ("memory.max_usage_in_bytes" if self._first else "memory.peak")).read_text())

    @contextlib.contextmanager
    def kept_alive(self) -> Iterator[list[float]]:
        """Nobody in it is killed for want of memory -> when it would have been.

        Reclaim gives up where every page was just touched, although there is swap: then the limit is raised by
        `_BREATH` and put back. Version 1 only; with version 2 the kernel kills.
        """
        times: list[float] = []
        if not self._first:
            yield times
            return
        control = self.path / "memory.oom_control"
        event = os.eventfd(0)
        with control.open("r+") as file:
            (self.path / "cgroup.event_control").write_text(f"{event} {file.fileno()}")
            control.write_text("1")
            over = threading.Event()

            def watch() -> None:
                while os.eventfd_read(event) and not over.is_set():
                    size = int((self.path / "memory.limit_in_bytes").read_text())
                    more = 0
                    while not over.is_set():
                        if "under_oom 1" in control.read_text():
                            times.append(time.monotonic())
                            more += _BREATH
                            self.limit(size + more)
                        try:
                            self.limit(size)
                            break
                        except OSError:  # EBUSY: nothing to reclaim yet
                            time.sleep(0.001)

            watcher = threading.Thread(target=watch, daemon=True)
            watcher.start()
            try:
                yield times
            finally:
                over.set()
                os.eventfd_write(event, 1)
                watcher.join()
                os.close(event)


def anonymous(pid: int) -> int:
    """Bytes of a process's own memory, gone or not: 0 if it has ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) << 10 for line in lines if line.startswith("RssAnon:")), 0)


@contextlib.contextmanager
def cgroup() -> Iterator[Cgroup]:
    """A fresh one, removed afterwards.

    Raises
    ------
    OSError
        This user may not make one.
    """
    parent = _V1 if (_V1 / "memory.limit_in_bytes").exists() else _V2
    path = parent / f"thermocline-bench-{os.getpid()}-{time.monotonic_ns()}"
    path.mkdir()
    try:
        yield Cgroup(path)
    finally:
        until = time.monotonic() + _GRACE_SECONDS
        while True:
            try:
                path.rmdir()
                break
            except OSError:  # helpers of a process that has ended may be on their way out
                if time.monotonic() > until:
                    raise
                time.sleep(0.01)
