"""A program that verifies what it reads while a store rots: ``rot_workload.py STORE DAMAGE FINDER FIRST POINTS SEED``.

At each point it makes arrays, sends them to the store, damages what that holds, and reads all pages. It prints a line
of JSON for each, with what came of it. FINDER is what meets the damage first: a reader, the successor of a killed
pager, or reclaim, on the way down to the next node.

It looks into the helpers' descriptors, which only root may. All accesses are system calls, because one that cannot be
served then says so and does not end the program.
"""

from __future__ import annotations

import json
import os
import random
import re
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from damage import DAMAGES, Victim
from device_workload import PAGE, WORDS, Verified, left_over
from layout import Field, Images, Page, file_fields, pool_fields

from thermocline import Memory
from thermocline.protocol.page import SHADOWED, SLOTTED, PageTable

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from pagers import children, find_supervisor

#: Bytes of a pool: room for both arrays, and for what a batch may take at worst. Nothing then leaves it unasked.
CAPACITY = 192 << 10
POOL = "dram=64KiB, {store}=192KiB, file:{{directory}}=1MiB"
FILE = "dram=64KiB, file:{{directory}}=1MiB;encrypt={encrypt}"
SPECS = {
    "lz4": POOL.format(store="lz4"),
    "zstd": POOL.format(store="zstd"),
    "file": FILE.format(encrypt="on"),
    "plain file": FILE.format(encrypt="off"),
}
#: Pages of the two arrays; of one that is written afterwards; of one that leaves no room in DRAM and the pool.
PAGES, LATER, MORE = 16, 6, 80
#: Words of a page that do not compress: of what a pool takes little room for, of all sorts, and of what fills it.
SMALL, MIXED, BULKY = (WORDS // 16,), (WORDS, WORDS, WORDS // 2, WORDS // 4), (WORDS * 3 // 4,)
#: How often the store may be looked at until it has come to rest.
LOOKS = 2000
ROTTEN = re.compile(r"thermocline: page \d+ \(page (\d+) of (\d+) of the array at (0x\w+), .*\) cannot be read from ")


def content(dice: np.random.Generator, noise: Sequence[int]) -> np.ndarray:
    """A page that is no other's, and does not compress below one of these numbers of words."""
    random_words = int(dice.choice(noise))
    words = np.full(WORDS, dice.integers(1, 1 << 63, dtype="u8"))
    words[:random_words] = dice.integers(0, 1 << 63, random_words, dtype="u8")
    return words


class Bench:
    """A memory, and the bytes of one of its stores, behind the memory's back."""

    def __init__(self, store: str, directory: str, stderr: int) -> None:
        self.pool = store in ("lz4", "zstd")
        self.encrypted = store == "file"
        self.memory = Memory(SPECS[store].format(directory=directory), page_size=PAGE, readahead=0)
        self.memory.stat()  # who answers is there
        self.node = store if self.pool else f"file:{directory}"
        session = self.memory._regions.session
        self.table = PageTable(session.pages, session.tables.page_columns)
        self.address = session.address
        self.supervisor = find_supervisor(os.getpid())
        self.files = {"store": self._open(f"memfd:thermocline-{store}" if self.pool else directory)}
        if not self.pool:
            self.files["seals"] = self._open("memfd:thermocline-seals")
        self.scratch = os.memfd_create("scratch")
        self.kills = 0
        self._stderr, self._heard = stderr, 0

    def _open(self, name: str) -> int:
        folder = f"/proc/{self.supervisor}/fd"
        fd = next(fd for fd in os.listdir(folder) if name in os.readlink(f"{folder}/{fd}"))
        return os.open(f"{folder}/{fd}", os.O_RDWR)

    def load(self) -> Images:
        """Everything that the store holds."""
        return {name: bytearray(os.pread(fd, os.fstat(fd).st_size, 0)) for name, fd in self.files.items()}

    def save(self, before: Images, after: Images) -> None:
        """Write what has been changed, and nothing else."""
        for name, fd in self.files.items():
            old, new = before[name], after[name]
            for at in range(0, len(new), 8):
                if new[at : at + 8] != old[at : at + 8]:
                    os.pwrite(fd, new[at : at + 8], at)
            if len(new) != len(old):
                os.ftruncate(fd, len(new))
            if name == "store" and not self.pool:
                os.fsync(fd)  # the store reads from the device, past the page cache

    def number(self, array: Verified, page: int) -> int:
        """A page as the page table counts."""
        return (array.tiered.ctypes.data - self.address) // PAGE + page

    def slots(self, arrays: list[Verified]) -> dict[Page, int]:
        """The pages that the store holds."""
        found = {}
        for index, array in enumerate(arrays):
            for page in range(array.pages):
                entry = self.table.read(self.number(array, page))
                if entry.node == 1 and entry.state == SLOTTED:
                    found[index, page] = entry.slot
        return found

    def at_rest(self, arrays: list[Verified]) -> tuple[dict[Page, int], Images]:
        """What the store holds, once reclaim has nothing more to do."""
        seen = self.slots(arrays), self.load()
        for _ in range(LOOKS):
            self.memory.stat()
            before, seen = seen, (self.slots(arrays), self.load())
            if before == seen and not any(
                self.table.state(self.number(array, page)) == SHADOWED
                for array in arrays
                for page in range(array.pages)
            ):
                break
        return seen

    def fields(self, slots: dict[Page, int], images: Images) -> list[Field]:
        """What is what."""
        if self.pool:
            return list(pool_fields(slots, PAGE, CAPACITY, images))
        return list(file_fields(slots, PAGE, encrypted=self.encrypted))

    def kill_pager(self) -> None:
        """Leave what follows to a successor."""
        (pager,) = children(self.supervisor)
        handle = os.pidfd_open(pager)
        signal.pidfd_send_signal(handle, signal.SIGKILL)
        os.close(handle)
        self.kills += 1

    def heard(self) -> str:
        """What has been said on stderr since the last time."""
        said = os.pread(self._stderr, 1 << 20, self._heard)
        self._heard += len(said)
        return said.decode()


class Point:
    """Arrays whose pages rot once."""

    def __init__(self, bench: Bench, number: int, seed: int) -> None:
        self.bench = bench
        self.number = number
        self.dice = random.Random(seed << 32 | number)
        self.words = np.random.default_rng([seed, number])

    def run(self, damage: str, finder: str) -> dict[str, object]:
        """Damage the store once -> what came of it."""
        bench = self.bench
        arrays = [self.array(PAGES) for _ in range(2)]
        self.rewrite(arrays, PAGES // 3)  # so that what is of one array does not lie together
        slots, past = bench.at_rest(arrays)
        past_fields = bench.fields(slots, past)
        if damage == "a stale version":
            self.rewrite(arrays, 3)
        slots, before = bench.at_rest(arrays)
        fields = bench.fields(slots, before)
        after = {name: bytearray(image) for name, image in before.items()}
        DAMAGES[damage](Victim(self.number, self.dice, after, fields, past, past_fields))
        bench.save(before, after)
        unmoved = bench.slots(arrays) == slots
        hit = [field for field in fields if field.of(before) != field.of(after)]
        if finder == "successor":
            bench.kill_pager()
        more = [self.array(MORE, BULKY)] if finder == "reclaim" else []
        early = bench.heard()
        for array in arrays:
            array.verify()
        later = [*more, self.array(LATER)]
        for array in later:
            array.verify()
        said = early + bench.heard()
        outcome = self.outcome(arrays, later, hit, said)
        del arrays, more, later, array
        outcome["left"] = left_over(bench.memory)
        outcome["starts"] = bench.memory.stat()["pager"]["starts"] - bench.kills
        return {"reached": unmoved and bool(slots), "early": len(early.splitlines()), "said": said, **outcome}

    def array(self, pages: int, noise: Sequence[int] = SMALL) -> Verified:
        """An array that is written, and sent to the store."""
        zeros = np.zeros(pages * WORDS, "u8")
        array = Verified(self.bench.memory.zeros(pages * WORDS, "u8"), zeros, self.bench.scratch)
        for page in range(pages):
            array.write(page, content(self.words, noise))
        self.bench.memory.advise(array.tiered, "cold")
        return array

    def rewrite(self, arrays: list[Verified], pages: int) -> None:
        """Write some pages once more."""
        for _ in range(pages):
            array = self.dice.choice(arrays)
            array.write(self.dice.randrange(array.pages), content(self.words, MIXED))
        for array in arrays:
            self.bench.memory.advise(array.tiered, "cold")

    def outcome(self, arrays: list[Verified], later: list[Verified], hit: list[Field], said: str) -> dict[str, object]:
        """Hold what was read, and said, against what was done."""
        refused = {(index, page) for index, array in enumerate(arrays) for page in array.refused}
        touched = {page for field in hit for page in field.pages}
        must = {page for field in hit if field.counts for page in field.pages}
        explained = set()
        for line in said.splitlines():
            match = ROTTEN.match(line)
            if match is None or not line[match.end() :].startswith(f"{self.bench.node}: "):
                continue
            for index, array in enumerate(arrays):
                if int(match[3], 16) == array.tiered.ctypes.data and int(match[2]) == array.pages:
                    explained.add((index, int(match[1])))
        return {
            "fields": sorted({field.name for field in hit}),
            "refused": len(refused),
            "right": len(touched - refused),
            "wrong": sum(array.wrong for array in (*arrays, *later)),
            "bystanders": len(refused - touched) + sum(len(array.refused) for array in later),
            "unnoticed": len(must - refused),
            "unexplained": len(refused ^ explained) if refused else len(said.splitlines()),
        }


def main() -> None:
    """Run points, until there are no more."""
    store, damage, finder = sys.argv[1:4]
    first, points, seed = map(int, sys.argv[4:7])
    directory = sys.argv[7]
    stderr = os.memfd_create("stderr")
    complaints = os.dup(2)
    os.dup2(stderr, 2)
    try:
        bench = Bench(store, directory, stderr)
        for number in range(first, points):
            print(json.dumps({"point": number, **Point(bench, number, seed).run(damage, finder)}), flush=True)
        bench.memory.close()
    finally:
        os.dup2(complaints, 2)
        if sys.exc_info()[0]:
            sys.stderr.write(os.pread(stderr, 1 << 20, 0).decode())


if __name__ == "__main__":
    main()
