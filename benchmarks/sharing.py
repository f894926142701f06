"""What sharing costs: forks with and without a memory, and arrays sent as handles and by value.

    python benchmarks/sharing.py [--rounds 20]

Both sides alternate; medians, and the ratio of medians.
"""

from __future__ import annotations

import argparse
import os
import pickle
import statistics
import time
from collections.abc import Callable
from functools import partial
from multiprocessing import get_context
from multiprocessing.connection import Connection

import numpy as np

import thermocline as tc

MIB = 1 << 20


def timed(action: Callable[[], object]) -> float:
    """Seconds."""
    begun = time.perf_counter()
    action()
    return time.perf_counter() - begun


def fork_and_end() -> None:
    """A child that does nothing, and its end."""
    child = os.fork()
    if not child:
        os._exit(0)
    os.waitpid(child, 0)


def forks(rounds: int) -> None:
    """A fork beside memories with more and more in DRAM."""
    print(f"{'resident':>12}{'plain (ms)':>12}{'tiered (ms)':>13}{'ratio':>8}")
    for resident in (1, 64, 512):
        plain, tiered = [], []
        for _ in range(rounds):
            plain.append(timed(fork_and_end))
            with tc.Memory(f"dram={resident + 16}MiB, zstd=64MiB") as memory:
                array = memory.full(resident * MIB // 8, 1.0)
                fork_and_end()  # the first one makes room for descriptors
                tiered.append(timed(fork_and_end))
                del array
        one, other = statistics.median(plain), statistics.median(tiered)
        print(f"{resident:>8} MiB{one * 1e3:>12.2f}{other * 1e3:>13.2f}{other / one:>8.1f}", flush=True)


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
    print(f"\n{'array':>12}{'by value (ms)':>15}{'by handle (ms)':>16}{'ratio':>8}")
    with tc.Memory("dram=512MiB, zstd=64MiB") as memory:
        for size in (1, 16, 128):
            shared = memory.share(memory.full(size * MIB // 8, 1.0))
            plain = np.ones(size * MIB // 8)

            by_value, by_handle = [], []
            send(ours, shared)  # the first one joins
            for _ in range(rounds):
                by_value.append(timed(partial(send, ours, plain)))
                by_handle.append(timed(partial(send, ours, shared)))
            one, other = statistics.median(by_value), statistics.median(by_handle)
            print(f"{size:>8} MiB{one * 1e3:>15.2f}{other * 1e3:>16.2f}{other / one:>8.2f}", flush=True)
        del shared
        ours.send_bytes(b"end")
        worker.join()


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20)
    arguments = parser.parse_args()
    forks(arguments.rounds)
    handles(arguments.rounds)


if __name__ == "__main__":
    main()
