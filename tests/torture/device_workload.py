"""A program that verifies what it reads while a store fails: ``device_workload.py RULE DESIGN FIRST STEP``.

It runs once for each store call, or each STEP-th of them, in a memory of its own that fails at that call, and prints a
line of JSON for each; it ends when its runs come to their end before their call. It has every kind of store: lz4, zstd,
a file, and a file that an array was made from. RULE is what THERMOCLINE_INJECT is set to, with ``{call}`` for the
number of the call.

All accesses are system calls, because one that cannot be served then says so and does not end the program. There is one
thread, and nothing is read ahead unasked, so that a call is much the same from one run to the next.
"""

import contextlib
import errno
import json
import os
import sys
from collections.abc import Callable, Iterator

import numpy as np

from thermocline import Memory, OutOfMemory
from thermocline.live.tables import Tables

#: What a system call says of a page that cannot be had: EFAULT, EHWPOISON.
LOST = (errno.EFAULT, 133)
PAGE = 4 << 10
WORDS = PAGE // 8
SPEC = "dram=64KiB, lz4=64KiB;incompressible=demote, zstd=64KiB, file:{directory}=1MiB"
#: Calls in a row that runs never come to, after which there are none of those numbers: runs differ by a few calls.
MISSES = 3
#: How often the books are asked for while bytes are charged for that no array has.
LOOKS = 2000
#: Pages of the arrays: written by the program, and made from a file.
OWN, FROM_FILE, LATER = 40, 8, 8


class Verified:
    """A tiered array, and what may be in it.

    A write that was refused may have been done in part, if its page came and went meanwhile: then old and new words are
    right.
    """

    def __init__(self, tiered: np.ndarray, right: np.ndarray, scratch: int) -> None:
        self.tiered = tiered
        self._right = [right, right.copy()]
        self._scratch = scratch
        self.pages = len(tiered) // WORDS
        self.refused: set[int] = set()
        self.wrong = 0

    def write(self, page: int, words: np.ndarray) -> None:
        """Write a page."""
        place = slice(page * WORDS, (page + 1) * WORDS)
        os.pwrite(self._scratch, words.tobytes(), 0)
        self._right[1][place] = words
        with self._unless_refused(page):
            os.preadv(self._scratch, [self.tiered[place].data], 0)
            self._right[0][place] = words

    def verify(self) -> None:
        """Read every page, and count the words that are wrong."""
        for page in range(self.pages):
            place = slice(page * WORDS, (page + 1) * WORDS)
            with self._unless_refused(page):
                os.pwrite(self._scratch, self.tiered[place].data, 0)
                found = np.frombuffer(os.pread(self._scratch, PAGE, 0), "u8")
                self.wrong += int(np.count_nonzero(~np.logical_or(*(found == right[place] for right in self._right))))

    @contextlib.contextmanager
    def _unless_refused(self, page: int) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if error.errno not in LOST:
                raise
            self.refused.add(page)


def content(random: np.random.Generator, page: int) -> np.ndarray:
    """A page: every third one does not compress, every fifth is zeros."""
    if page % 5 == 4:
        return np.zeros(WORDS, "u8")
    return random.integers(0, 1 << 63 if page % 3 == 0 else 4, WORDS, dtype="u8") + np.uint64(page % 3)


class Work:
    """What is done with a memory: write, send away, bring back, read, free and allocate."""

    def __init__(self, memory: Memory, path: str, scratch: int) -> None:
        self.memory = memory
        self.scratch = scratch
        self.random = np.random.default_rng(0)
        self.no_memory = 0
        self.arrays: list[Verified] = []
        own = self.allocate(OWN)
        self.advise(own, "cold")
        source = self.keep(lambda: memory.from_file(path, "u8"), np.fromfile(path, "u8"))
        if source is not None:
            source.verify()
        self.advise(own, "willneed")
        self.verify()
        self.advise(source, "cold")
        if source is not None:
            for page in (1, 4):
                source.write(page, content(self.random, page))
        self.allocate(LATER)
        self.advise(own, "cold")
        self.verify()

    def keep(self, make: Callable[[], np.ndarray], right: np.ndarray) -> Verified | None:
        """Make an array, if there is memory for it."""
        try:
            self.arrays.append(Verified(make(), right, self.scratch))
        except OutOfMemory:
            self.no_memory += 1
            return None
        return self.arrays[-1]

    def allocate(self, pages: int) -> Verified | None:
        """An array that is written, if there is memory for it."""
        array = self.keep(lambda: self.memory.zeros(pages * WORDS, "u8"), np.zeros(pages * WORDS, "u8"))
        if array is not None:
            for page in range(pages):
                array.write(page, content(self.random, page))
        return array

    def advise(self, array: Verified | None, advice: str) -> None:
        """Let an array go down, or come up."""
        if array is not None:
            self.memory.advise(array.tiered, advice)

    def verify(self) -> None:
        """Read all arrays, the last first."""
        for array in reversed(self.arrays):
            array.verify()


def left_over(memory: Memory) -> int:
    """Bytes that are charged for without an array. Reclaim that was at it gives its slots back when it is done."""
    for _ in range(LOOKS):
        left = sum(node["used"] for node in memory.stat()["nodes"].values())
        if not left:
            break
    return left


def run(directory: str, path: str, design: str, scratch: int) -> dict[str, object]:
    """One memory from its beginning to its end -> what came of it."""
    memory = Memory(SPEC.format(directory=directory), page_size=PAGE, readahead=0, design=design)
    header = memory._regions.session.tables.header
    work = Work(memory, path, scratch)
    outcome = {
        "wrong": sum(array.wrong for array in work.arrays),
        "refused": sum(len(array.refused) for array in work.arrays),
        "no_memory": work.no_memory,
        "reached": bool(header[Tables.HEADER_DISTURBED]),
        "starts": memory.stat()["pager"]["starts"],
    }
    del work
    outcome["left"] = left_over(memory)
    memory.close()
    return outcome


def saying(run: Callable[[], dict[str, object]]) -> dict[str, object]:
    """Run something -> what came of it, and what it and its helpers said on stderr."""
    said, stderr = os.memfd_create("stderr"), os.dup(2)
    os.dup2(said, 2)
    try:
        outcome = run()
    except Exception as error:
        outcome = {"error": repr(error)}
    finally:
        os.dup2(stderr, 2)
        outcome["said"] = os.pread(said, 1 << 20, 0).decode()
        os.close(said)
        os.close(stderr)
    return outcome


def main() -> None:
    """Run the workload once for each call."""
    rule, design = sys.argv[1:3]
    call, step = map(int, sys.argv[3:5])
    directory = sys.argv[5]
    misses = 0
    scratch = os.memfd_create("scratch")
    path = os.path.join(directory, "source")
    np.random.default_rng(7).integers(0, 1 << 60, FROM_FILE * WORDS, dtype="u8").tofile(path)
    while misses * step < MISSES:
        os.environ["THERMOCLINE_INJECT"] = rule.format(call=call)
        outcome = saying(lambda: run(directory, path, design, scratch))
        print(json.dumps({"call": call, **outcome}), flush=True)
        misses = 0 if outcome.get("reached", True) else misses + 1
        call += step


if __name__ == "__main__":
    main()
