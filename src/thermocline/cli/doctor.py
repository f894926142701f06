"""`thermocline doctor`: what this machine offers to tiered memory, and what to do where it does not.

Exit status 0: a memory can be made here. 1: it cannot, and the line that says so says what to change. 2: called
wrongly.
"""

import contextlib
import mmap
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import thermocline
from thermocline.cgroup import memory_limit
from thermocline.cli.parser import Parser
from thermocline.errors import SpecError, UnsupportedError
from thermocline.sizes import format_size
from thermocline.topology import Topology

_CAP_SYS_NICE = 1 << 23


class Finding(NamedTuple):
    """One line.

    Attributes
    ----------
    mark : str
        ``"ok"``; ``"note"``: it works, with a restriction; ``"MISSING"``: no memory can be made.
    """

    mark: str
    about: str
    says: str


def main(argv: Sequence[str]) -> int:
    """Print what was found, and return the exit status."""
    parser = Parser(
        "thermocline doctor", "Say what this machine offers to tiered memory, and what to do about the rest."
    )
    parser.parse(argv)
    print(f"thermocline {thermocline.__version__}, Linux {os.uname().release}, {os.uname().machine}\n")
    machine = Topology.read()
    findings = [*_faults(), *_memory(), *_slow_memory(machine)]
    for finding in findings:
        print(f"{finding.mark:8} {finding.about:16} {finding.says}")
    print("\nmemory nodes, and where each demotes to:")
    for line in tree(machine):
        print(f"  {line}")
    print(f"\n{_auto()}")
    return int(any(finding.mark == "MISSING" for finding in findings))


def _faults() -> Iterator[Finding]:
    from thermocline.live import system_calls
    from thermocline.live.userfaultfd import FEATURE_POISON, open_userfaultfd

    try:
        opened = open_userfaultfd()
    except UnsupportedError as error:
        yield Finding("MISSING", "userfaultfd", str(error))
        return
    os.close(opened.fd)
    if opened.serves_system_calls:
        yield Finding("ok", "userfaultfd", "full mode: system calls may touch what is not in DRAM")
    else:
        yield Finding(
            "note",
            "userfaultfd",
            "user mode only: a system call that touches what is not in DRAM fails with EFAULT; run with CAP_SYS_PTRACE,"
            " allow /dev/userfaultfd, or set vm.unprivileged_userfaultfd=1",
        )
        if system_calls.cover():
            yield Finding("ok", "system calls", "those of the C library are wrapped, and work; direct ones fail")
        else:
            yield Finding("note", "system calls", f"not wrapped: {system_calls.why_missing()}")
    if opened.features & FEATURE_POISON:
        yield Finding("ok", "lost pages", "a thread that touches one gets SIGBUS")
    else:
        yield Finding("note", "lost pages", "a process that touches one is ended; Linux 6.6 can poison the page alone")


def _memory() -> Iterator[Finding]:
    limit = memory_limit()
    if limit is None:
        yield Finding("ok", "container", "no control group sets a memory limit")
    else:
        yield Finding("ok", "container", f"memory limit of {format_size(limit)}")
    huge = _chosen("/sys/kernel/mm/transparent_hugepage/shmem_enabled")
    if huge in ("always", "force", "within_size"):
        yield Finding(
            "note",
            "huge pages",
            f"shared memory gets them ({huge}): a page that sinks may keep its frame; write never to"
            " /sys/kernel/mm/transparent_hugepage/shmem_enabled",
        )
    else:
        yield Finding("ok", "huge pages", "the arena gets none")


def _slow_memory(machine: Topology) -> Iterator[Finding]:
    from thermocline.live import libc, numa
    from thermocline.live.sampling import swap

    order = machine.demotion_order()
    if not order:
        yield Finding(
            "ok", "slow memory", "this machine has no node of it; compressed memory and files are there for all"
        )
        return
    yield Finding("ok", "slow memory", ", ".join(f"numa:{index}" for index in order))
    privileged = _capabilities() & _CAP_SYS_NICE
    address = libc.mmap(None, mmap.PAGESIZE, libc.PROT_READ | libc.PROT_WRITE, libc.MAP_PRIVATE | libc.MAP_ANONYMOUS)
    try:
        libc.madvise(address, mmap.PAGESIZE, libc.MADV_POPULATE_WRITE)
        (status,) = numa.move(os.getpid(), [address], order[0], shared=False)
        moves = status == order[0] or os.strerror(-status)
    except OSError as error:
        moves = error.strerror or str(error)
    finally:
        libc.munmap(address, mmap.PAGESIZE)
    if moves is not True:
        yield Finding(
            "note",
            "move_pages",
            f"{moves}: numa:NODE cannot be used; allow move_pages and mbind in the seccomp profile (CAP_SYS_NICE does"
            " in Docker), and the node in cpuset.mems",
        )
    elif privileged:
        yield Finding("ok", "move_pages", "moves what several processes share, too (CAP_SYS_NICE)")
    else:
        yield Finding("note", "move_pages", "not what several processes share; run with CAP_SYS_NICE")
    if swap():
        yield Finding("note", "promotion", "hot pages of slow memory stay there while there is swap; swapoff -a")
    elif not privileged:
        yield Finding("note", "promotion", "hot pages of slow memory stay there; run with CAP_SYS_NICE")
    else:
        yield Finding("ok", "promotion", "the pager can see which pages of slow memory are used")


def _capabilities() -> int:
    with contextlib.suppress(OSError), open("/proc/self/status") as status:
        for line in status:
            if line.startswith("CapEff:"):
                return int(line.split()[1], 16)
    return 0


def _chosen(path: str) -> str:
    """The word in brackets of a file in sysfs."""
    with contextlib.suppress(OSError):
        return Path(path).read_text().partition("[")[2].partition("]")[0]
    return ""


def tree(machine: Topology) -> Iterator[str]:
    """The memory nodes, a line each, and what each demotes to."""
    if not machine.nodes:
        yield "this kernel tells of none (no CONFIG_NUMA)"
    for node in machine.nodes.values():
        what = format_size(node.size) if node.size else "no memory"
        with_processors = "with processors" if node.processors else "without processors"
        tier = f"tier {node.tier}" if machine.tiers_known else "its tier is not known"
        forbidden = "" if machine.usable(node.index) or not node.size else ", forbidden to this process"
        line = f"node {node.index}: {what}, {with_processors}, {tier}{forbidden}"
        targets = machine.targets(node.index) if machine.usable(node.index) else []
        for target in targets:
            line += f" -> node {target} (distance {node.distance.get(target, 255)})"
        yield line


def _auto() -> str:
    from thermocline.budget import auto_spec
    from thermocline.spec import format_spec

    try:
        return f'Memory("auto") is "{format_spec(auto_spec())}"'
    except SpecError as error:
        return f'Memory("auto"): {error}'
