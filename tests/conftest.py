"""No test leaves anything behind: no process, no open descriptor, no thread."""

import gc
import os
import resource
import select
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.register_assert_rewrite("comparison")

from comparison import Script  # noqa: E402

# How long a process may take to be gone after the test that needed it: it ends by itself when its program
# has.
GRACE_SECONDS = 20

# Helpers that the standard library and joblib start once and keep until the interpreter ends.
_KEPT = ("resource_tracker", "forkserver", "semaphore_tracker")


def pytest_configure() -> None:
    """Mark this process and all that it will ever start, directly or not.

    A helper that has lost its parent cannot be told by its ancestry, nor one that renamed itself by its
    environment. A resource limit is inherited through fork(2) and execve(2), whatever else changes, and can
    be read from /proc/PID/limits. This one says how long a real-time task may run without a pause
    (getrlimit(2)), which is eleven days here and means nothing to any other task.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_RTTIME)
    resource.setrlimit(resource.RLIMIT_RTTIME, (_mark(), hard))


def _mark() -> int:
    return 10**12 + os.getpid()


def _ours() -> dict[int, str]:
    """Every live process that this test run has started, directly or not: id and command line."""
    found = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit() and int(entry) != os.getpid():
            try:
                with open(f"/proc/{entry}/limits") as limits:
                    marked = any(line.split()[3:4] == [str(_mark())] for line in limits if "realtime timeout" in line)
                if not marked:
                    continue
                with open(f"/proc/{entry}/cmdline", "rb") as arguments:
                    name = arguments.read().replace(b"\0", b" ").decode(errors="replace").strip()
            except OSError:  # gone meanwhile
                continue
            if name and not any(kept in name for kept in _KEPT):  # a zombie has no arguments: it is gone already
                found[int(entry)] = name
    return found


def _survivors(before: dict[int, str]) -> list[str]:
    """Processes that outlive the grace time; they are killed, so that the next test starts clean."""
    left = []
    for pid, name in _ours().items():
        if pid in before:
            continue
        try:
            handle = os.pidfd_open(pid)
        except ProcessLookupError:
            continue
        try:
            if pid in _ours() and not select.select([handle], [], [], GRACE_SECONDS)[0]:
                left.append(f"process {pid} ({name})")
                if not name.startswith("thermocline-supervisor"):  # its end would be ours, if the memory is ours
                    signal.pidfd_send_signal(handle, signal.SIGKILL)
        finally:
            os.close(handle)
    return left


def _descriptors() -> dict[int, str]:
    found = {}
    for entry in os.listdir("/proc/self/fd"):
        try:
            found[int(entry)] = os.readlink(f"/proc/self/fd/{entry}")
        except OSError:  # the one that listed the directory
            continue
    return found


@pytest.fixture(autouse=True)
def nothing_left_behind() -> Iterator[None]:
    """Fail the test if it leaves a process, a descriptor or a thread that was not there before it."""
    processes, descriptors, threads = _ours(), _descriptors(), set(threading.enumerate())
    yield
    gc.collect()
    left = _survivors(processes)
    left += [f"descriptor {n} ({target})" for n, target in _descriptors().items() if descriptors.get(n) != target]
    left += [f"thread {thread.name}" for thread in threading.enumerate() if thread not in threads]
    assert not left, f"left behind: {', '.join(left)}"


@pytest.fixture
def script(tmp_path: Path) -> Script:
    """Writes programs into a directory of the test's own."""
    return Script(tmp_path)
