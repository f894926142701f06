"""A trace on plain memory, in a machine whose kernel demotes: what the kernel counted, and where each page ended.

    python benchmarks/kernel/plain.py ROOM ROUNDS BALANCING FILE TRACE...

Needs root and a slow node (``tests/numa/emulator.py`` has one). For each trace: its processes are forked and lock in
memory all that they have already, so that reclaim finds the pages of the trace and hardly any others; this process
takes as much of node 0 as leaves ROOM pages above the low watermark; then they run, all at once. Pages of 4 KiB, of
node 0 alone (``MPOL_BIND``): what it has no room for must be demoted, and cannot be allocated elsewhere. BALANCING is
``kernel.numa_balancing``: 0, or 2, and then pages that are used in the slow node come back.

Three settings make a node of this size like a large one. The watermarks are set (``min_free_kbytes``): whether huge
pages raise them here is a matter of chance. They stay where they are (``watermark_boost_factor``): at times the kernel
raises them to have whole blocks. And the first 16 MiB are kept from programs (``lowmem_reserve_ratio``): they would be
a fifth of the room, and kswapd would go to sleep as soon as they alone are in balance.

What comes out are, for each trace, as many objects of JSON as there are ROUNDS: ``counted`` (differences of
/proc/vmstat), ``zones`` (/proc/zoneinfo of node 0 before it), ``nodes`` (for each process the node of each page, -1 for
those never touched), ``seconds``, ``times`` (what steps take there).
"""

from __future__ import annotations

import ctypes
import gc
import json
import mmap
import os
import re
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from traces import PIECE, TRACES, Process

_LIBC = ctypes.CDLL(None, use_errno=True)
_SYS_SET_MEMPOLICY, _SYS_MOVE_PAGES = 238, 279  # x86-64, which the emulated machine is
_MPOL_BIND, _MPOL_F_NUMA_BALANCING, _MPOL_MF_MOVE = 2, 1 << 13, 2
_MCL_CURRENT, _MCL_FUTURE = 1, 2
#: Pages of the ballast that are taken in one go.
_STEP = 256


def checked(result: int) -> None:
    """Raise what libc refused."""
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def bind_to_node_0() -> None:
    """Let this process, and its children, have memory of node 0 only."""
    mask = ctypes.c_ulong(1)
    mode = _MPOL_BIND | _MPOL_F_NUMA_BALANCING  # the latter says that what is elsewhere may come back
    checked(_LIBC.syscall(_SYS_SET_MEMPOLICY, mode, ctypes.byref(mask), ctypes.c_ulong(64)))


def vmstat() -> dict[str, int]:
    """The kernel's counters."""
    return {name: int(value) for name, value in (row.split() for row in Path("/proc/vmstat").read_text().splitlines())}


def zones() -> dict[str, dict[str, int]]:
    """The zones of node 0 that programs may have pages of.

    Of each: ``free`` pages, those on the lists of the processors included; the watermarks; ``reserve``, which is kept
    from programs (``lowmem_reserve``); and ``others``, pages that are on the LRU lists already: reclaim may take them.
    """
    found = {}
    for part in re.split(r"^(?=Node)", Path("/proc/zoneinfo").read_text(), flags=re.MULTILINE):
        head = re.match(r"Node 0, zone +(\w+)", part)
        protection = re.search(r"protection: \((.*)\)", part)
        if head is None or protection is None or not re.search(r"managed +[1-9]", part):
            continue
        names = {"free": "pages free", "min": "min", "low": "low", "high": "high"}
        found[head[1]] = {key: int(re.search(rf"{name} +(\d+)", part)[1]) for key, name in names.items()}  # type: ignore[index]
        found[head[1]]["free"] += sum(int(count) for count in re.findall(r"^ +count: +(\d+)", part, re.MULTILINE))
        found[head[1]]["reserve"] = int(protection[1].split(",")[-1])
        found[head[1]]["others"] = sum(int(count) for count in re.findall(r"nr_zone_(?:in)?active_\w+ +(\d+)", part))
        if found[head[1]]["reserve"] >= found[head[1]]["free"]:
            del found[head[1]]
    return found


def room() -> int:
    """Pages that programs can have of node 0 before its kswapd wakes up."""
    return sum(max(zone["free"] - zone["low"] - zone["reserve"], 0) for zone in zones().values())


def anonymous(pages: int) -> mmap.mmap:
    """Memory of single pages."""
    made = mmap.mmap(-1, pages * mmap.PAGESIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    made.madvise(mmap.MADV_NOHUGEPAGE)
    return made


def ballast(wanted: int) -> list[mmap.mmap]:
    """Take of node 0 what is more than the room that is wanted, and lock it."""
    taken = []
    while (excess := room() - wanted) > 0:
        block = anonymous(min(excess, _STEP))
        address = ctypes.addressof(ctypes.c_char.from_buffer(block))
        checked(_LIBC.mlock(ctypes.c_void_p(address), ctypes.c_size_t(len(block))))
        taken.append(block)
    return taken


class Child:
    """A process of a trace, forked: it goes on when it is told to, twice."""

    def __init__(self, process: Process) -> None:
        self._orders, orders = os.pipe()
        answers, self._answers = os.pipe()
        self.pid = os.fork()
        if not self.pid:
            status = 1
            try:
                self._run(process)
                status = 0
            finally:
                os._exit(status)
        os.close(self._orders)
        os.close(self._answers)
        self._order, self._answer = os.fdopen(orders, "wb", 0), os.fdopen(answers, "rb", 0)
        self.hear()

    def tell(self) -> None:
        """Let it go on."""
        self._order.write(b".")

    def hear(self) -> None:
        """Wait until it has got there."""
        if not self._answer.read(1):
            raise SystemExit("a process of the trace has died; see its message above")

    def nodes(self) -> list[int]:
        """Where its pages are; then it ends."""
        self.tell()
        said = bytearray()
        while more := self._answer.read(1 << 16):
            said += more
        os.waitpid(self.pid, 0)
        self._order.close()
        self._answer.close()
        return np.frombuffer(bytes(said), np.int8).tolist()

    # -- in the child -------------------------------------------------------------------------------------------------

    def _run(self, process: Process) -> None:
        pieces = [(write, pages * mmap.PAGESIZE) for write, pages in process.pieces()]
        found, places = np.zeros(PIECE, np.uint8), np.zeros(process.pages, np.uint64)
        status = np.full(process.pages, -1, np.int32)
        bind_to_node_0()
        checked(_LIBC.mlockall(_MCL_CURRENT))
        memory = np.frombuffer(anonymous(process.pages), np.uint8)
        self._pause()
        for write, offsets in pieces:
            if write:
                memory[offsets] = 1
            else:
                np.take(memory, offsets, out=found[: len(offsets)], mode="clip")
        self._pause()
        places[:] = memory.ctypes.data + np.arange(process.pages, dtype=np.uint64) * mmap.PAGESIZE
        pointers = [ctypes.c_void_p(array.ctypes.data) for array in (places, status)]
        checked(_LIBC.syscall(_SYS_MOVE_PAGES, 0, ctypes.c_ulong(process.pages), pointers[0], None, pointers[1], 0))
        with os.fdopen(self._answers, "wb") as answer:
            answer.write(np.maximum(status, -1).astype(np.int8).tobytes())

    def _pause(self) -> None:
        os.write(self._answers, b".")
        os.read(self._orders, 1)


def times() -> dict[str, float]:
    """Nanoseconds that this machine takes where nothing is short: a touch, a fault on a fresh page, to move a page."""
    generator, count = np.random.default_rng(0), 4096
    block = anonymous(count)
    memory, found = np.frombuffer(block, np.uint8), np.zeros(PIECE, np.uint8)
    begun = time.perf_counter_ns()
    for start in range(0, count, PIECE):
        memory[np.arange(start, start + PIECE) * mmap.PAGESIZE] = 1
    faulted = time.perf_counter_ns()
    rounds = 64
    for _ in range(rounds):
        np.take(memory, generator.integers(0, count, PIECE) * mmap.PAGESIZE, out=found, mode="clip")
    hit = time.perf_counter_ns()
    places = memory.ctypes.data + np.arange(count, dtype=np.uint64) * mmap.PAGESIZE
    nodes, status = np.ones(count, np.int32), np.zeros(count, np.int32)
    pointers = [ctypes.c_void_p(array.ctypes.data) for array in (places, nodes, status)]
    before = time.perf_counter_ns()
    checked(_LIBC.syscall(_SYS_MOVE_PAGES, 0, ctypes.c_ulong(count), *pointers, _MPOL_MF_MOVE))
    moved = time.perf_counter_ns()
    return {
        "fault": (faulted - begun) / count,
        "hit": (hit - faulted) / rounds / PIECE,
        "move": (moved - before) / count,
    }


def settled() -> dict[str, int]:
    """The counters, once kswapd has nothing to do any more."""
    daemon = next(
        path for path in Path("/proc").glob("[0-9]*/comm") if path.exists() and path.read_text() == "kswapd0\n"
    ).with_name("stat")
    quiet, before = 0, vmstat()
    while quiet < 20:
        os.sched_yield()
        asleep = daemon.read_text().rpartition(")")[2].split()[0] == "S"
        now = vmstat()
        quiet = quiet + 1 if asleep and now["pgdemote_kswapd"] == before["pgdemote_kswapd"] else 0
        before = now
    return before


def run(name: str, wanted: int) -> dict[str, Any]:
    """Run a trace with so much room."""
    gc.collect()
    Path("/proc/sys/vm/drop_caches").write_text("3")
    children = [Child(process) for process in TRACES[name](wanted)]
    Path("/proc/sys/vm/drop_caches").write_text("3")
    weight = ballast(wanted)
    there, before, begun = zones(), settled(), time.monotonic()
    for child in children:
        child.tell()
    for child in children:
        child.hear()
    seconds, after = time.monotonic() - begun, settled()
    left = zones()
    nodes = [child.nodes() for child in children]
    del weight
    counted = {
        key: after[key] - before[key] for key in after if after[key] != before[key] and not key.startswith("nr_")
    }
    return {"counted": counted, "zones": there, "zones_after": left, "nodes": nodes, "seconds": seconds}


def main() -> None:
    """Run the traces of the command line."""
    wanted, rounds, balancing = map(int, sys.argv[1:4])
    file, names = Path(sys.argv[4]), sys.argv[5:]
    bind_to_node_0()
    for name, value in (
        ("vm/min_free_kbytes", "2048"),
        ("vm/watermark_boost_factor", "0"),
        ("vm/lowmem_reserve_ratio", "1 1 1 1 1"),
        ("kernel/numa_balancing", str(balancing)),
    ):
        (Path("/proc/sys") / name).write_text(value)
    taken = times()
    checked(_LIBC.mlockall(_MCL_CURRENT | _MCL_FUTURE))
    results: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    for _ in range(rounds):
        for name in names:
            results[name].append(run(name, wanted) | {"times": taken})
            print(f"{name}, the kernel: {results[name][-1]['seconds']:.0f} s", file=sys.stderr, flush=True)
            file.write_text(json.dumps(results))


if __name__ == "__main__":
    main()
