"""What becomes of a memory under pressure: many regions, many pages, many cycles, many threads.

    python benchmarks/pressure.py [SECTION ...] [--directory DIR] [--scale FRACTION]

Sections: regions, pages, sparse, churn, page-tables, cycles, threads (all of them unless some are named). ``--scale
0.01`` makes all sizes smaller, for a quick look. What a process takes is what the kernel says that it takes (proc(5)).
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import gc
import os
import statistics
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from thermocline import Memory

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30


# -- by the kernel's account ------------------------------------------------------------------------------------------


def memfd(name: str) -> os.stat_result:
    """The status of the memory file of this name that is open here."""
    for fd in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):  # the one that has just listed them
            if name in os.readlink(f"/proc/self/fd/{fd}"):
                return os.stat(f"/proc/self/fd/{fd}")
    raise LookupError(name)


def processes() -> dict[str, int]:
    """The processes of the one memory that is open here, by name: those that hold its arena."""
    arena = memfd("thermocline-arena").st_ino
    found = {"program": os.getpid()}
    while len(found) < 3:  # a helper gets its name only when it has begun
        for pid in filter(str.isdigit, os.listdir("/proc")):
            try:
                name = Path(f"/proc/{pid}/cmdline").read_bytes().rstrip(b"\0").decode()
                if name.startswith("thermocline-") and any(
                    os.stat(f"/proc/{pid}/fd/{fd}").st_ino == arena for fd in os.listdir(f"/proc/{pid}/fd")
                ):
                    found[name.removeprefix("thermocline-")] = int(pid)
            except OSError:  # gone meanwhile
                continue
    return found


def private(pid: int) -> int:
    """Bytes of a process's own memory: its heap, and private mappings."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Anonymous:")) * KIB


def page_tables(pid: int) -> int:
    """Bytes of a process's page tables."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmPTE:")) * KIB


def descriptors(pid: int) -> int:
    """Open descriptors of a process."""
    return len(os.listdir(f"/proc/{pid}/fd"))


class Overhead:
    """What a memory takes beside the contents of its pages, since this was made."""

    def __init__(self) -> None:
        self._pids = processes()
        self._before = self._now()

    def _now(self) -> dict[str, int]:
        pager = self._pids["pager"]
        shared = {}  # by inode: the same file may be open several times over
        for fd in os.listdir(f"/proc/{pager}/fd"):
            target = os.readlink(f"/proc/{pager}/fd/{fd}")
            if "thermocline-tables" in target or "thermocline-seals" in target:
                status = os.stat(f"/proc/{pager}/fd/{fd}")
                shared[status.st_ino] = status.st_blocks * 512
        return {
            "tables and seals": sum(shared.values()),
            "pager": private(pager),
            "supervisor": private(self._pids["supervisor"]),
            "page tables": sum(map(page_tables, self._pids.values())),
        }

    def grown(self) -> dict[str, int]:
        """What came on top, in bytes."""
        return {name: size - self._before[name] for name, size in self._now().items()}

    def rows(self, managed: int) -> None:
        """Print what came on top, each as a share of the bytes that are managed."""
        grown = self.grown()
        grown["all but page tables"] = sum(grown.values()) - grown["page tables"]
        for name, size in grown.items():
            row(f"  {name}", f"{size / MIB:.1f} MiB", f"{100 * size / managed:.3f} %")


def row(*cells: object) -> None:
    """One line of the table."""
    print("|", " | ".join(map(str, cells)), "|", flush=True)


# -- sections ---------------------------------------------------------------------------------------------------------


def regions(directory: str, scale: float) -> None:
    """Many live arrays at once, each with a value of its own."""
    count = int(100_000 * scale)
    tenth = count // 10
    with Memory("dram=64MiB, zstd=1GiB", page_size="4KiB") as memory:
        first = memory.zeros(1, "u1")
        first[0] = 1
        overhead = Overhead()
        made, seconds = [], []
        for _ in range(10):
            begun = time.perf_counter()
            made += [memory.zeros(8, "i8") for _ in range(tenth)]
            seconds.append(time.perf_counter() - begun)
        ends = [f"{1e6 * taken / tenth:.1f} us" for taken in seconds[::9]]
        row(f"{count:,} regions: an allocation, first and last tenth", *ends)
        for number, array in enumerate(made):
            array[0] = number
        assert all(int(array[0]) == number for number, array in enumerate(made))
        row("  all written and read back", "right", "")
        overhead.rows(count * memory.page_size)
        order = np.random.default_rng(0).permutation(count)
        seconds = []
        for tenths in np.array_split(order, 10):
            begun = time.perf_counter()
            for at in tenths:
                made[at] = first
            memory.stat()  # waits until all of it is free
            seconds.append(time.perf_counter() - begun)
        ends = [f"{1e6 * taken / tenth:.1f} us" for taken in seconds[::9]]
        row("  a free, in random order, first and last tenth", *ends)


def pages(directory: str, scale: float) -> None:
    """A million pages of 4 KiB, filled and read back at random."""
    count = int(1_000_000 * scale)
    words = 4 * KIB // 8
    for below in ("zstd=6GiB", f"zstd=16MiB, file:{directory}=8GiB"):
        with Memory(f"dram=64MiB, {below}", page_size="4KiB") as memory:
            memory.zeros(1, "u1")[0] = 1
            overhead = Overhead()
            array = memory.zeros((count, words), "i8")
            begun = time.perf_counter()
            numbers = np.arange(count)
            for start in range(0, count, 1024):
                part = numbers[start : start + 1024]
                array[part[0] : part[-1] + 1] = part[:, None] * 1_000_003 + np.arange(words)
            filled = time.perf_counter() - begun
            what = f"{count:,} pages over dram=64MiB, {below.split(':')[0]}: filled"
            row(what, f"{1e6 * filled / count:.0f} us a page", "")
            random = np.random.default_rng(1)
            begun = time.perf_counter()
            looks = max(count // 20, 1)
            for _ in range(looks):
                page, word = int(random.integers(count)), int(random.integers(words))
                assert array[page, word] == page * 1_000_003 + word
            read = time.perf_counter() - begun
            row(f"  read at {looks:,} random places", f"{1e6 * read / looks:.0f} us each", "right")
            overhead.rows(count * memory.page_size)
            del array  # what holds an array holds its memory


def sparse(directory: str, scale: float) -> None:
    """64 GiB, a word written in each page of 64 KiB."""
    size = int(64 * GIB * scale) // (64 * KIB) * (64 * KIB)
    with Memory(f"dram=256MiB, zstd=4GiB, file:{directory}={max(size, GIB) // MIB}MiB") as memory:
        memory.zeros(1, "u1")[0] = 1
        overhead = Overhead()
        array = memory.zeros(size, "u1").view("i8")
        step = memory.page_size // 8
        count = len(array) // step
        begun = time.perf_counter()
        array[::step] = np.arange(1, count + 1)
        seconds = time.perf_counter() - begun
        row(f"{size / GIB:.1f} GiB as {count:,} pages of 64 KiB: filled", f"{1e6 * seconds / count:.0f} us a page", "")
        places = np.random.default_rng(2).integers(0, count, max(count // 50, 1))
        assert np.array_equal(array[places * step], places + 1)
        row(f"  read at {len(places):,} random places", "right", "")
        overhead.rows(size)


def churn(directory: str, scale: float) -> None:
    """Pages of random length when packed, written again and again: what holes, shadows and released slots take."""
    count = int(65_536 * scale)
    page = 64 * KIB
    size = count * page
    noise = np.frombuffer(np.random.default_rng(3).bytes(2 * page), "u1")
    below = f"zstd={size // 4 // MIB}MiB, file:{directory}={2 * size // MIB}MiB"
    with Memory(f"dram={max(size // 16 // MIB, 1)}MiB, {below}") as memory:
        memory.zeros(1, "u1")[0] = 1
        overhead = Overhead()
        array = memory.zeros((count, page), "u1")
        random = np.random.default_rng(4)
        begun = time.perf_counter()
        rounds = [np.arange(count), *(random.integers(0, count, count) for _ in range(2))]
        for number in np.concatenate(rounds):
            length, start = random.integers(1, page, 2)
            array[number, :length] = noise[start : start + length]
            array[number, length:] = 0
        for number in random.integers(0, count, count):
            array[number, 0]
        seconds = time.perf_counter() - begun
        what = f"{count:,} pages of random length written 3 times, read once"
        row(what, f"{1e6 * seconds / count / 4:.0f} us each", "")
        overhead.rows(size)
        del array


def tables_of_pages(directory: str, scale: float) -> None:
    """The program's page tables, while pages come, sink and are freed."""
    size = int(8 * GIB * scale)
    with Memory(f"dram=64MiB, zstd={2 * max(size // MIB, 64)}MiB") as memory:
        pid = os.getpid()
        fresh = page_tables(pid)
        array = memory.zeros(size, "u1")
        array[:: 64 * KIB] = 1
        touched = page_tables(pid) - fresh
        del array
        gc.collect()
        memory.stat()
        freed = page_tables(pid) - fresh
        for what, grown in ((f"{size / GIB:.1f} GiB touched", touched), ("and freed", freed)):
            row(f"page tables, {what}", f"{grown / MIB:.2f} MiB", f"{100 * grown / size:.3f} %")


def cycles(directory: str, scale: float) -> None:
    """Memory and descriptors after many allocations and frees, against those after the first tenth."""
    file = Path(directory) / f"pressure-{os.getpid()}"
    file.write_bytes(bytes(range(256)) * 256)
    ways: list[tuple[str, int, Callable[[Memory], object]]] = [
        ("zeros", 1_000_000, lambda memory: memory.zeros(16, "i8")),
        ("numpy()", 1_000_000, lambda memory: np.empty(1 << 16, "u1")),
        ("from_file", 50_000, lambda memory: memory.from_file(file, "u1")),
    ]
    try:
        for name, most, make in ways:
            count = int(most * scale)
            with Memory("dram=16MiB, zstd=64MiB") as memory, memory.numpy(min_array="64KiB"):
                pids = processes()

                def turn(rounds: int, make: Callable[[Memory], object] = make, memory: Memory = memory) -> float:
                    begun = time.perf_counter()
                    for number in range(rounds):
                        made = make(memory)
                        if number % 16 == 0:
                            made[0] = 1  # type: ignore[index]
                        del made
                    memory.stat()
                    return time.perf_counter() - begun

                early = turn(count // 10)
                gc.collect()
                before = {who: (private(pid), descriptors(pid)) for who, pid in pids.items()}
                late = turn(count - count // 10) / 9
                gc.collect()
                row(
                    f"{count:,} cycles of {name}: first tenth, the other tenths in the mean",
                    f"{1e7 * early / count:.1f} us",
                    f"{1e7 * late / count:.1f} us",
                )
                for who, pid in pids.items():
                    memory_then, open_then = before[who]
                    row(
                        f"  {who}: grown meanwhile",
                        f"{(private(pid) - memory_then) / KIB:+,.0f} KiB",
                        f"{descriptors(pid) - open_then:+} descriptors",
                    )
    finally:
        file.unlink()


def threads(directory: str, scale: float) -> None:
    """Many threads fault at random in eight times the DRAM: throughput, fairness, and the longest stall."""
    touches = max(int(2_000 * scale), 10)
    alone = 0.0
    for below in ("zstd=512MiB", f"file:{directory}=1GiB"):
        for count in (1, 2, 32, 128):
            with Memory(f"dram=16MiB, {below}", readahead=0) as memory:
                array = memory.zeros(128 * MIB, "u1").view("i8")
                step = memory.page_size // 8
                places = len(array) // step
                array[::step] = np.arange(places)
                share = max(touches * 32 // count // 4, 10)
                longest = [0.0] * count
                progress = [0] * count
                at_first_end: list[list[int]] = []
                gate = threading.Barrier(count + 1)

                def work(
                    number: int, base: int = array.ctypes.data, size: int = memory.page_size, share: int = share,
                    longest: list[float] = longest, progress: list[int] = progress,
                    at_first_end: list[list[int]] = at_first_end, gate: threading.Barrier = gate, places: int = places,
                ) -> None:  # fmt: skip
                    own = np.random.default_rng(number).integers(0, places, share).tolist()
                    word = ctypes.c_int64()
                    gate.wait()
                    for place in own:
                        begun = time.perf_counter()
                        ctypes.memmove(ctypes.addressof(word), base + place * size, 8)  # a touch without the GIL
                        longest[number] = max(longest[number], time.perf_counter() - begun)
                        assert word.value == place
                        progress[number] += 1
                    at_first_end.append(list(progress))

                workers = [threading.Thread(target=work, args=(number,)) for number in range(count)]
                for worker in workers:
                    worker.start()
                gate.wait()
                begun = time.perf_counter()
                for worker in workers:
                    worker.join()
                rate = count * share / (time.perf_counter() - begun)
                alone = rate if count == 1 else alone
                then = at_first_end[0]
                row(
                    f"{count} threads, {below.split(':')[0]}",
                    f"{rate:,.0f} touches a second ({rate / alone:.2f} of one thread's)",
                    f"slowest {min(then) / max(statistics.median(then), 1):.2f} of the median",
                    f"longest stall {1e3 * max(longest):.0f} ms",
                    f"fault p99 {1e3 * memory.stat()['fault_seconds']['p99']:.0f} ms",
                )
                del array


SECTIONS: dict[str, Callable[[str, float], None]] = {
    "regions": regions,
    "pages": pages,
    "sparse": sparse,
    "churn": churn,
    "page-tables": tables_of_pages,
    "cycles": cycles,
    "threads": threads,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sections", nargs="*", metavar="SECTION", help=", ".join(SECTIONS))
    parser.add_argument("--directory", default="/var/tmp", help="where file nodes are (default /var/tmp)")
    parser.add_argument("--scale", type=float, default=1.0, help="times all sizes")
    options = parser.parse_args()
    for name in options.sections or SECTIONS:
        SECTIONS[name](options.directory, options.scale)


if __name__ == "__main__":
    main()
