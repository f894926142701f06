"""What the stores cost: microseconds per write and read, and bytes charged, per store and kind of content.

    python benchmarks/stores.py [--page-size BYTES] [--directory DIR] [--fill FRACTION ...]

Medians over many pages. The stores are filled once beforehand, because the first touch of memory or of a disk
block costs several times what later ones do. Then come ratios: what encryption and checksums cost, of the same pages
with and without them, in turn. Last, for compressed memory, pages of random size replace one another at random with
little free: there the pool shows whether it holds its promise, and at what price.
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np

from thermocline.live.buffer import Buffer
from thermocline.live.stores import STORES, Store
from thermocline.live.stores.compressed import CompressedStore
from thermocline.live.stores.file import FileStore
from thermocline.spec import Compressed, File

PAGES = 256


def contents(page_size: int) -> dict[str, bytes]:
    """`PAGES` pages of each kind of content."""
    rng = np.random.default_rng(0)
    size = PAGES * page_size
    library = Path(os.__file__).parent
    text = b"".join(path.read_bytes() for path in sorted(library.rglob("*.py")) if path.stat().st_size < 1 << 20)
    text = text * (size // len(text) + 1)
    sparse = np.where(rng.random(size // 4) < 0.02, rng.random(size // 4), 0)
    return {
        "float32 walk": np.cumsum(rng.normal(size=size // 4)).astype("f4").tobytes(),
        "float64 walk": np.cumsum(rng.normal(size=size // 8)).tobytes(),
        "float32 uniform": rng.random(size // 4).astype("f4").tobytes(),
        "float32 sparse": sparse.astype("f4").tobytes(),
        "int64 sorted": np.sort(rng.integers(0, 10**9, size // 8)).tobytes(),
        "int64 ids": rng.integers(0, 10**6, size // 8).tobytes(),
        "text": text[:size],
        "random": rng.bytes(size),
    }


@contextmanager
def opened(spec: Compressed | File, page_size: int, pages: int) -> Iterator[Store]:
    """The store of a spec, closed with its descriptors afterwards."""
    kind = STORES[type(spec)]
    descriptors = kind.create(spec, page_size, pages)
    store = kind(descriptors, spec, page_size, pages)
    try:
        yield store
    finally:
        store.close()
        for fd in descriptors:
            os.close(fd)


def clocked(samples: list[float], started: float) -> None:
    """Note the microseconds since `started`."""
    samples.append((time.perf_counter() - started) * 1e6)


def measure(store: Store, page_size: int, data: bytes, hint: int) -> str:
    """Write and read every page twice -> the second time's medians."""
    buffer, other = Buffer(len(data)), Buffer(page_size)
    buffer.view[:] = data
    offsets = range(0, len(data), page_size)
    writes: list[float] = []
    reads: list[float] = []
    charged = 0
    for _ in range(2):
        writes.clear()
        slots = [store.reserve() for _ in offsets]
        for slot, offset in zip(slots, offsets, strict=True):
            started = time.perf_counter()
            charged += store.write(slot, buffer, offset, hint)
            clocked(writes, started)
        reads.clear()
        for slot, offset in zip(slots, offsets, strict=True):
            started = time.perf_counter()
            store.read(slot, other, 0)
            clocked(reads, started)
            assert other.view == buffer.view[offset : offset + page_size]
        for slot in slots:
            store.release(slot)
    write, read = statistics.median(writes), statistics.median(reads)
    buffer.close()
    other.close()
    return (
        f"write {write:7.1f} (mean {statistics.mean(writes):7.1f})  read {read:7.1f}"
        f"  ratio {2 * len(data) / charged:6.2f}"
    )


def unchecked(store: Store) -> None:
    """Take its checksums from a store, as if it had never had any."""
    if isinstance(store, CompressedStore):
        store._pool._checksum = lambda data, slot: 0
    elif isinstance(store, FileStore):
        store._seals.write = lambda slot, page, put: put(page)  # type: ignore[method-assign]
        store._seals.read = lambda slot, page, get: get(page)  # type: ignore[method-assign]


def compare(specs: dict[str, Compressed | File], page_size: int, data: bytes, rounds: int = 25) -> None:
    """Write and read the same pages in stores that take turns; print each one's median over that of the first."""
    with ExitStack() as stack:
        stores = {name: stack.enter_context(opened(spec, page_size, 2 * PAGES)) for name, spec in specs.items()}
        unchecked(next(iter(stores.values())))
        buffer = Buffer(len(data))
        buffer.view[:] = data
        offsets = range(0, len(data), page_size)
        slots = {name: [store.reserve() for _ in offsets] for name, store in stores.items()}
        for what in ("write", "read"):
            samples: dict[str, list[float]] = {name: [] for name in stores}
            for turn in range(rounds):
                names = list(stores)
                # Whole passes, and not always the same one first: who comes second finds the page in the cache.
                for name in names[turn % len(names) :] + names[: turn % len(names)]:
                    for slot, offset in zip(slots[name], offsets, strict=True):
                        started = time.perf_counter()
                        if what == "write":
                            stores[name].write(slot, buffer, offset)
                        else:
                            stores[name].read(slot, buffer, offset)
                        if turn:
                            clocked(samples[name], started)
            medians = {name: statistics.median(values) for name, values in samples.items()}
            least = next(iter(medians.values()))
            print(
                f"  {what:6}"
                + "".join(f"  {name} {each / least:.3f} ({each:.1f} us)" for name, each in medians.items())
            )
        buffer.close()


def churn(spec: Compressed, page_size: int, fill: float, rounds: int = 20_000) -> str:
    """Replace pages of random size at random in a pool so full -> what a reservation and a write cost."""
    dice = random.Random(0)
    buffer = Buffer(page_size)
    noise = random.Random(1).randbytes(page_size)
    live: list[int] = []
    used = 0
    samples: list[float] = []
    with opened(spec, page_size, 1 << 20) as store:
        for _ in range(rounds):
            cut = dice.randrange(page_size // 8, page_size // 4 * 3)
            buffer.view[:cut] = noise[:cut]
            buffer.view[cut:] = bytes(page_size - cut)
            started = time.perf_counter()
            while live and (used + cut > spec.capacity * fill or used + store.slot_bytes > spec.capacity):
                at = dice.randrange(len(live))
                live[at], live[-1] = live[-1], live[at]
                slot = live.pop()
                used -= store.size(slot)
                store.release(slot)
                started = time.perf_counter()
            slot = store.reserve()
            used += store.write(slot, buffer, 0)
            clocked(samples, started)
            live.append(slot)
    buffer.close()
    steady = sorted(samples[rounds // 2 :])
    return (
        f"write median {statistics.median(steady):6.1f}  p99 {steady[len(steady) * 99 // 100]:6.1f}"
        f"  max {steady[-1]:7.1f}  used {used / spec.capacity:.4f}"
    )


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--page-size", type=int, default=64 * 1024)
    parser.add_argument("--directory", default="/var/tmp")
    parser.add_argument("--fill", type=float, nargs="*", default=[0.9, 0.97, 0.985])
    arguments = parser.parse_args()
    page_size = arguments.page_size
    capacity = 2 * PAGES * page_size
    pages = contents(page_size)
    for spec in (
        Compressed(capacity, "lz4"),
        Compressed(capacity, "zstd"),
        File(arguments.directory, capacity),
        File(arguments.directory, capacity, encrypt=False),
    ):
        plain = ", encrypt=off" if isinstance(spec, File) and not spec.encrypt else ""
        print(f"{spec.name}{plain}, pages of {page_size} bytes, us:")
        with opened(spec, page_size, 2 * PAGES) as store:
            for hint, (kind, data) in enumerate(pages.items()):
                print(f"  {kind:16} {measure(store, page_size, data, hint)}")
    print("what encryption costs, as ratios to a file without checksums:")
    file = File(arguments.directory, capacity // 2, encrypt=False)
    compare({"none": file, "encrypt=off": file, "encrypt=on": replace(file, encrypt=True)}, page_size, pages["random"])
    for kind in ("float32 walk", "int64 sorted", "random"):
        packed = Compressed(capacity, "lz4")
        print(f"what checksums of {packed.name} cost, {kind}, as ratios to none:")
        compare({"none": packed, "checked": packed}, page_size, pages[kind])
    for fill in arguments.fill:
        print(f"lz4, random sizes, {fill:.1%} full, us: {churn(Compressed(32 << 20, 'lz4'), page_size, fill)}")


if __name__ == "__main__":
    main()
