"""A program that verifies every byte it reads, for as long as pagers have to die: ``workload.py PAGERS STEPS [PAGE]``.

Threads write, read, allocate, free, pin and send away tiered arrays, each beside a plain one that shows what is right;
each page carries a counter of its writes. One more thread keeps losing a page, on purpose, and must be told each time;
another forks children that must see an array as it was.
It ends when that many pagers were started, when no new one was for that many steps, or, with STEPS 0, when
standard input does. It prints what came of it as JSON.
"""

import contextlib
import errno
import json
import os
import sys
import threading
from collections.abc import Callable

import numpy as np

from thermocline import Memory, OutOfMemory
from thermocline.live.tables import Tables

#: What a system call says of a page that is lost: EFAULT, EHWPOISON.
LOST = (errno.EFAULT, 133)
#: Bytes of a page. Larger ones than this come up in parts.
PAGE = int(sys.argv[3]) if len(sys.argv) > 3 else 4 << 10
WORDS = PAGE // 8
#: Words of a part.
PART = 512
THREADS = 3
#: Pages of the array that children see as it was.
FORKED_PAGES = 24
SPEC = f"dram={64 * PAGE}, lz4={32 * PAGE};incompressible=demote, file:{{directory}}={4096 * PAGE}"


class Workload:
    """Arrays, their plain twins, and what was found wrong."""

    def __init__(self, memory: Memory, directory: str, pagers: int, patience: int) -> None:
        self.memory = memory
        self.directory = directory
        self.pagers = pagers
        self.patience = patience
        self.header = memory._regions.session.tables.header
        self.groups = [memory, memory.group("tight", dram=16 * PAGE), memory.group("total", memory=40 * PAGE)]
        self.stop = threading.Event()
        self.steps = [0] * (THREADS + 2)
        self.wrong: list[str] = []

    @property
    def starts(self) -> int:
        """Pagers that were started."""
        return int(self.header[Tables.HEADER_PAGER_STARTS])

    def go_on(self, thread: int) -> bool:
        """Count a step -> whether there is to be another."""
        self.steps[thread] += 1
        return not self.stop.is_set() and not self.wrong

    def watch(self, thread: int) -> None:
        """One thread decides for all when it is over."""
        seen, since = self.starts, 0
        while self.patience and self.go_on(thread):
            self.churn_once(np.random.default_rng(self.steps[thread]))
            if self.starts != seen:
                seen, since = self.starts, self.steps[thread]
            if seen >= self.pagers or self.steps[thread] - since > self.patience:
                self.stop.set()

    def churn_once(self, random: np.random.Generator) -> None:
        """An array's whole life."""
        plain = random.integers(0, 1 << 60, 8 * WORDS, dtype="u8")
        with contextlib.suppress(OutOfMemory):
            tiered = self.memory.array(plain)
            self.compare(tiered, plain, "a short-lived array")

    def compare(self, tiered: np.ndarray, plain: np.ndarray, what: str) -> None:
        """Say what differs."""
        differ = np.flatnonzero(tiered != plain)
        if len(differ):
            self.wrong.append(f"{what}: {len(differ)} words, the first at {differ[0]}")

    def work(self, thread: int) -> None:
        """Counters in pages."""
        random = np.random.default_rng(thread)
        group = self.groups[thread % len(self.groups)]
        kept: list[tuple[np.ndarray, np.ndarray]] = []
        while self.go_on(thread):
            choice = random.integers(0, 100)
            if choice < 4 or not kept:
                pages = int(random.integers(1, 48))
                with contextlib.suppress(OutOfMemory):
                    kept.append((group.zeros(pages * WORDS, "u8"), np.zeros(pages * WORDS, "u8")))
            elif choice < 6 and len(kept) > 3:
                self.compare(*kept.pop(int(random.integers(0, len(kept)))), "before it is freed")
            if not kept:
                continue
            tiered, plain = kept[int(random.integers(0, len(kept)))]
            page = int(random.integers(0, len(plain) // WORDS)) * WORDS
            if choice < 70:
                noise = random.integers(0, 1 << 60, WORDS - 1, dtype="u8") if choice % 2 else choice
                tiered[page] += 1
                plain[page] += 1
                tiered[page + 1 : page + WORDS] = noise
                plain[page + 1 : page + WORDS] = noise
                if PAGE > 8 * PART:
                    self.scatter(tiered, plain, random)
            elif choice < 73:
                self.memory.advise(tiered, "cold")
            elif choice < 75:
                self.memory.advise(tiered, "willneed")
            elif choice < 76:
                with contextlib.suppress(OutOfMemory), self.memory.pin(tiered[page : page + WORDS]):
                    self.compare(tiered[page : page + WORDS], plain[page : page + WORDS], "pinned")
            self.compare(tiered[page : page + WORDS], plain[page : page + WORDS], "just written or read")
        for tiered, plain in kept:
            self.compare(tiered, plain, "at the end")

    def scatter(self, tiered: np.ndarray, plain: np.ndarray, random: np.random.Generator) -> None:
        """Read and write words here and there, each of a page that is mostly left alone."""
        for at in random.integers(0, len(plain) // PART, 6) * PART:
            if at & PART:
                tiered[at + 7] += 1
                plain[at + 7] += 1
            self.compare(tiered[at : at + PART], plain[at : at + PART], "a part")

    def fork(self, thread: int) -> None:
        """Fork children that have an array as it was, and write to it; the program writes on meanwhile."""
        random = np.random.default_rng(thread)
        tiered, plain = self.memory.zeros(FORKED_PAGES * WORDS, "u8"), np.zeros(FORKED_PAGES * WORDS, "u8")
        while self.go_on(thread):
            before = plain.copy()
            child = os.fork()
            if not child:
                os._exit(_look(tiered, before, grandchild=bool(random.integers(0, 2))))
            for word in random.integers(0, len(plain), FORKED_PAGES):
                tiered[word] += 1
                plain[word] += 1
            status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            if status:
                self.wrong.append(f"a forked child ended with status {status}")
            self.compare(tiered, plain, "of a program that has forked")

    def lose(self, thread: int) -> None:
        """Lose the second page of a file's array: a system call that reads it fails, and never gets other bytes."""
        reader, writer = os.pipe()
        path = os.path.join(self.directory, "lost")
        while self.go_on(thread):
            with open(path, "wb") as file:
                file.write(b"x" * (4 * PAGE))
            with contextlib.suppress(OutOfMemory):
                tiered = self.memory.from_file(path, "u1")
                self.compare(tiered[:PAGE], np.full(PAGE, ord("x"), "u1"), "of a file")
                os.truncate(path, PAGE)
                self._read_lost(tiered[2 * PAGE :], reader, writer)
        os.close(reader)
        os.close(writer)

    def _read_lost(self, lost: np.ndarray, reader: int, writer: int) -> None:
        try:
            got = os.read(reader, os.write(writer, lost[:8].data))
            if got != b"x" * 8:  # it was read ahead before the file lost it
                self.wrong.append(f"a lost page: {got!r}")
        except OSError as error:
            if error.errno not in LOST:
                raise

    def run(self) -> dict[str, object]:
        """All threads, until it is over."""

        def safely(role: Callable[[int], None], index: int) -> None:
            try:
                role(index)
            except BaseException as error:
                self.wrong.append(repr(error))

        roles = [(self.work, index) for index in range(THREADS)]
        roles += [(self.lose, THREADS), (self.fork, THREADS + 1)]
        threads = [threading.Thread(target=safely, args=role) for role in roles]
        for thread in threads:
            thread.start()
        self.steps.append(0)
        if self.patience:
            self.watch(len(self.steps) - 1)
        else:
            sys.stdin.read()
            self.stop.set()
        for thread in threads:
            thread.join()
        return {"wrong": self.wrong, "steps": sum(self.steps), **self.memory.stat()["pager"]}


def _look(tiered: np.ndarray, plain: np.ndarray, *, grandchild: bool) -> int:
    """See in a forked child, or in a child of one, that an array is as it was, and stays what is made of it."""
    try:
        if grandchild:
            child = os.fork()
            if child:
                return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        same = np.array_equal(tiered, plain)
        for array in (tiered, plain):
            array[::700] += 1
        return 0 if same and np.array_equal(tiered, plain) else 1
    except BaseException:
        return 3


def main() -> None:
    """Run the workload in a directory that is there."""
    pagers, patience, directory = int(sys.argv[1]), int(sys.argv[2]), sys.argv[4]
    memory = Memory(SPEC.format(directory=directory), page_size=PAGE, readahead=8)
    memory.zeros(1)[0] = 1  # from here on there are a supervisor and a pager
    print("ready", flush=True)
    print(json.dumps(Workload(memory, directory, pagers, patience).run()), flush=True)


if __name__ == "__main__":
    main()
