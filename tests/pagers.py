"""The helper processes of a program as seen from outside: found, and killed (root may).

    python tests/pagers.py --kills-a-second 1 -- COMMAND...

runs a command such as ``thermocline run`` and kills the pager of its program that often, for as long as it runs. It
ends as the command ends, and says at the end how many pagers were killed.
"""

import argparse
import contextlib
import mmap
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from thermocline.protocol import vmstat


def find_supervisor(program: int) -> int:
    """The supervisor of a program's memory: it has the same arena open, and a pager for a child."""
    arena = inode_of_arena(program)
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            name = Path(f"/proc/{pid}/cmdline").read_bytes().rstrip(b"\0")
            if name == b"thermocline-supervisor" and inode_of_arena(int(pid)) == arena:
                return int(pid)
        except OSError:
            continue
    raise RuntimeError("there is no supervisor")


def open_fault_counter(program: int) -> memoryview:
    """How many faults pagers have begun to answer, in the tables that they share with the program."""
    for fd in os.listdir(f"/proc/{program}/fd"):
        if "thermocline-tables" in _target(program, fd):
            with open(f"/proc/{program}/fd/{fd}", "rb") as tables:
                # The counters are on the page behind the header's.
                counters = mmap.mmap(tables.fileno(), mmap.PAGESIZE, prot=mmap.PROT_READ, offset=mmap.PAGESIZE)
            return memoryview(counters).cast("Q")[vmstat.INDEX["pgfault"] :]
    raise RuntimeError("there are no tables")


def inode_of_arena(pid: int) -> int:
    """The arena that a process has open, -1 if none."""
    for fd in os.listdir(f"/proc/{pid}/fd"):
        if "thermocline-arena" in _target(pid, fd):
            return os.stat(f"/proc/{pid}/fd/{fd}").st_ino
    return -1


def _target(pid: int, fd: str) -> str:
    """What a descriptor is of; nothing when it was closed meanwhile."""
    try:
        return os.readlink(f"/proc/{pid}/fd/{fd}")
    except FileNotFoundError:
        return ""


def children(pid: int) -> list[int]:
    """The children of a process's main thread; none when it is gone."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return []


def wait_for_pager(supervisor: int, last: int, program: subprocess.Popen[str]) -> tuple[int, int] | None:
    """The pager that comes after ``last``, and a pidfd of it; None when the program or the supervisor has ended."""
    while program.poll() is None and os.path.exists(f"/proc/{supervisor}/exe"):
        for pid in children(supervisor):
            if pid != last:
                with contextlib.suppress(ProcessLookupError):
                    return pid, os.pidfd_open(pid)
        os.sched_yield()
    return None


def kill_now_and_then(command: subprocess.Popen[str], seconds: float) -> Iterator[int]:
    """Kill the pager of a command's program every so many seconds, until the command ends -> each pager's id."""
    end = os.pidfd_open(command.pid)
    supervisor = last = -1
    try:
        while not select.select([end], [], [], seconds)[0]:
            if supervisor < 0:
                supervisor = _supervisor_below(command.pid)
                continue
            found = wait_for_pager(supervisor, last, command)
            if found is None:
                break
            last, handle = found
            signal.pidfd_send_signal(handle, signal.SIGKILL)
            os.close(handle)
            yield last
    finally:
        os.close(end)


def _supervisor_below(pid: int) -> int:
    """The supervisor of a process or of a child of it; -1 while there is none."""
    for candidate in (pid, *children(pid)):
        with contextlib.suppress(OSError, RuntimeError):
            if inode_of_arena(candidate) >= 0:
                return find_supervisor(candidate)
    return -1


def main() -> int:
    """Run a command whose program loses its pager again and again -> its exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills-a-second", type=float, default=1.0)
    parser.add_argument("command", nargs="+")
    arguments = parser.parse_args()
    with subprocess.Popen(arguments.command, text=True) as command:
        try:
            kills = sum(1 for _ in kill_now_and_then(command, 1 / arguments.kills_a_second))
        except KeyboardInterrupt:  # the command has it, too
            kills = -1
        status = command.wait()
    if kills >= 0:
        print(f"pagers killed: {kills}", file=sys.stderr, flush=True)
    return status if status >= 0 else 128 - status


if __name__ == "__main__":
    sys.exit(main())
