"""What other processes cost: forks, the first writes after one, pools that read, and arrays that are sent.

    python benchmarks/sharing.py [SECTION ...] [--rounds 9]

Sections: forks, writes, pool, handles (all of them unless some are named). Both sides alternate; medians, and the ratio
of medians. Forks and writes have plain memory beside them, where the kernel copies page by page; the pool a memory
whose children share its arrays (``fork="share"``); handles the same arrays sent by value.
"""

from __future__ import annotations

import argparse
import contextlib
import mmap
import os
import pickle
import statistics
import time
from collections.abc import Callable, Iterator
from functools import partial
from multiprocessing import get_context
from multiprocessing.connection import Connection

import numpy as np

import thermocline as tc
from thermocline.live.buffer import address_of
from thermocline.live.userfaultfd import UserFaultFd, open_userfaultfd

MIB = 1 << 20
#: Bytes of the array that is written, and of the one that the pool reads, which has half of that as DRAM.
WRITTEN, READ = 64 * MIB, 256 * MIB
WORKERS, ROWS = 4, 64


def timed(action: Callable[[], object]) -> float:
    """Seconds."""
    begun = time.perf_counter()
    action()
    return time.perf_counter() - begun


def head(what: str, one: str, other: str) -> None:
    """Begin a table of two sides."""
    print(f"\n{what:<40}{f'{one} (ms)':>16}{f'{other} (ms)':>16}{'ratio':>8}")


def row(what: str, one: list[float], other: list[float]) -> None:
    """A line of it."""
    first, second = statistics.median(one) * 1e3, statistics.median(other) * 1e3
    print(f"{what:<40}{first:>16.2f}{second:>16.2f}{second / first:>8.2f}", flush=True)


# -- forks ------------------------------------------------------------------------------------------------------------


def fork_and_end() -> None:
    """A child that does nothing, and its end."""
    child = os.fork()
    if not child:
        os._exit(0)
    os.waitpid(child, 0)


def protected(size: int) -> float:
    """Seconds that the kernel takes to write-protect so many bytes that are there and writable, in 4 KiB pages."""
    with mmap.mmap(-1, size, mmap.MAP_SHARED) as kept:
        kept[:: mmap.PAGESIZE] = b"\1" * (size // mmap.PAGESIZE)
        address = address_of(memoryview(kept))
        uffd = UserFaultFd(open_userfaultfd().fd)
        uffd.register(address, size)
        taken = timed(lambda: uffd.write_protect(address, size))
        os.close(uffd.fd)
        return taken


def forks(rounds: int) -> None:
    """A fork beside arrays that are in DRAM: all of them written since the last fork, or none.

    Plain memory of NumPy's is in huge pages, where the kernel gives them. A fork of as much in pages of 4 KiB, and the
    write protection alone, are there to tell what of the first fork is ours.
    """
    head("a fork", "plain", "tiered")
    for resident in (1, 64, 512):
        plain, written, unwritten, small, protecting = [], [], [], [], []
        for _ in range(rounds):
            kept = np.ones(resident * MIB // 8)
            plain.append(timed(fork_and_end))
            del kept
            with mmap.mmap(-1, resident * MIB, mmap.MAP_PRIVATE) as pages:
                pages.madvise(mmap.MADV_NOHUGEPAGE)
                pages[:: mmap.PAGESIZE] = b"\1" * (resident * MIB // mmap.PAGESIZE)
                small.append(timed(fork_and_end))
            with tc.Memory(f"dram={resident + 16}MiB, zstd=64MiB") as memory:
                array = memory.full(resident * MIB // 8, 1.0)
                written.append(timed(fork_and_end))
                unwritten.append(timed(fork_and_end))
                del array
            protecting.append(protected(resident * MIB))
        row(f"{resident} MiB in DRAM, written", plain, written)
        row(f"{resident} MiB in DRAM, not written since", plain, unwritten)
        row("... plain in 4 KiB pages", plain, small)
        row("... write protection alone", plain, protecting)


# -- copy on write ----------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def forked(look: Callable[[], object]) -> Iterator[None]:
    """While a child is there, which has looked at something first."""
    ready, end = os.pipe(), os.pipe()
    child = os.fork()
    if not child:
        look()
        os.write(ready[1], b".")
        os.close(end[1])
        os.read(end[0], 1)
        os._exit(0)
    os.read(ready[0], 1)
    yield
    os.close(end[1])
    os.waitpid(child, 0)
    for fd in (*ready, end[0]):
        os.close(fd)


def write(array: np.ndarray, *, reads: bool) -> float:
    """Seconds that a program takes to write to each page of an array after a fork."""
    with forked(array.sum if reads else lambda: None):
        begun = time.perf_counter()
        array[:: 4096 // array.itemsize] += 1
        return time.perf_counter() - begun


def writes(rounds: int) -> None:
    """The first writes after a fork, with a child that has read the array, and with one that has not."""
    head("first write of 64 MiB after a fork", "plain", "tiered")
    with tc.Memory("dram=256MiB, zstd=64MiB") as memory:
        plain, tiered = np.ones(WRITTEN // 8), memory.full(WRITTEN // 8, 1.0)
        for reads in (False, True):
            one, other = [], []
            for _ in range(rounds):
                one.append(write(plain, reads=reads))
                other.append(write(tiered, reads=reads))
            row("the child has read it" if reads else "the child has not touched it", one, other)
        del tiered


_array: list[np.ndarray] = []


def _sum(row: int) -> float:
    return float(_array[0][row].sum())


def read(fork: str) -> float:
    """Seconds that a pool takes to sum up the rows of an array, three times over."""
    with tc.Memory(f"dram={READ // 2}, zstd={READ}", fork=fork) as memory:
        _array[:] = [memory.empty((ROWS, READ // ROWS // 8))]
        _array[0][:] = np.arange(READ // ROWS // 8)
        with get_context("fork").Pool(WORKERS) as pool:
            begun = time.perf_counter()
            for _ in range(3):
                pool.map(_sum, range(ROWS), chunksize=1)
            taken = time.perf_counter() - begun
        _array.clear()
        return taken


def pool(rounds: int) -> None:
    """Four workers that read, and an array twice the size of DRAM."""
    head("a pool of 4 that reads, 256 MiB in 128", "share", "copy")
    share, copy = [], []
    for _ in range(rounds):
        share.append(read("share"))
        copy.append(read("copy"))
    row("three times over", share, copy)


# -- arrays that are sent ---------------------------------------------------------------------------------------------


def sum_up(pipe: Connection) -> None:
    """A worker: it receives arrays, and sends back their sums."""
    while (data := pipe.recv_bytes()) != b"end":
        pipe.send(float(pickle.loads(data).sum()))


def send(pipe: Connection, array: np.ndarray) -> None:
    """Let the worker sum an array up."""
    pipe.send_bytes(pickle.dumps(array))
    if pipe.recv() != array.size:
        raise SystemExit("a wrong sum")


def handles(rounds: int) -> None:
    """An array that another process sums up: sent by value, and as a handle."""
    ours, theirs = get_context("spawn").Pipe()
    worker = get_context("spawn").Process(target=sum_up, args=(theirs,))
    worker.start()
    head("an array that another process sums up", "value", "handle")
    with tc.Memory("dram=512MiB, zstd=64MiB") as memory:
        for size in (1, 16, 128):
            shared = memory.share(memory.full(size * MIB // 8, 1.0))
            plain = np.ones(size * MIB // 8)

            by_value, by_handle = [], []
            send(ours, shared)  # the first one joins
            for _ in range(rounds):
                by_value.append(timed(partial(send, ours, plain)))
                by_handle.append(timed(partial(send, ours, shared)))
            row(f"{size} MiB", by_value, by_handle)
        del shared
        ours.send_bytes(b"end")
        worker.join()


SECTIONS = {"forks": forks, "writes": writes, "pool": pool, "handles": handles}


def main() -> None:
    """Print the tables that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sections", nargs="*", choices=[*SECTIONS, []], metavar="SECTION")
    parser.add_argument("--rounds", type=int, default=9)
    arguments = parser.parse_args()
    for section in arguments.sections or SECTIONS:
        SECTIONS[section](arguments.rounds)


if __name__ == "__main__":
    main()
