"""A limit on memory for one process: a memory cgroup, of version 1 or 2."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

#: How long the last process of a cgroup may take for its end.
_GRACE_SECONDS = 10
_V1, _V2 = Path("/sys/fs/cgroup/memory"), Path("/sys/fs/cgroup")


class Cgroup:
    """A memory cgroup."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._first = (path / "memory.limit_in_bytes").exists()

    def enter(self) -> None:
        """Put this process in it."""
        (self.path / "cgroup.procs").write_text(str(os.getpid()))

    def limit(self, size: int) -> None:
        """The most bytes that its processes may take, what the kernel caches for them included."""
        (self.path / ("memory.limit_in_bytes" if self._first else "memory.max")).write_text(str(size))

    def used(self) -> int:
        """Bytes that they take now."""
        return int((self.path / ("memory.usage_in_bytes" if self._first else "memory.current")).read_text())

    def most(self) -> int:
        """The most that they ever took."""
        return int((self.path / ("memory.max_usage_in_bytes" if self._first else "memory.peak")).read_text())


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
