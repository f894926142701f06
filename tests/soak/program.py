"""A program that does with a tiered memory what it is told, one line of JSON at a time, and verifies all it reads.

Each line names a method of :class:`Program` and its arguments; the answer is a line, too: what it returned, the pages
that were found lost meanwhile, or what was wrong. Who tells it can kill its pager, time it and survive it.

What a program may do with a memory is a method here, and a rule of the same name in ``machine.py``. (To fork is not
one of them yet: a child is ended when it touches a tiered array.)
"""

import errno
import faulthandler
import json
import os
import signal
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable
from typing import Any

import numpy as np

from thermocline import Memory
from thermocline.live.tables import Tables

PAGE = 4 << 10
#: What a system call says of a page that is lost: EFAULT, EHWPOISON.
LOST = (errno.EFAULT, 133)
#: Looks at the books until freed slots must be free in them: a transaction that lost its page gives its slot back when
#: its copy has ended.
LOOKS = 2000


class WrongError(Exception):
    """What must not be."""


def contents(kind: str, size: int, seed: int) -> np.ndarray:
    """Bytes that compress not at all, well, or away."""
    if kind == "noise":
        return np.random.default_rng(seed).integers(0, 256, size, dtype="u1")
    if kind == "ramp":
        return np.arange(seed, seed + size, dtype="u8").astype("u1")
    return np.full(size, 0 if kind == "zeros" else seed % 255 + 1, "u1")


class Twins:
    """A tiered array and a plain one that shows what is right.

    Where pages may get lost, the tiered one is touched by system calls only, page by page: those get an error where the
    program would be ended. A page that was lost once stays so.
    """

    def __init__(self, tiered: np.ndarray, plain: np.ndarray, first: int, *, lossy: bool) -> None:
        self.tiered = tiered
        self.plain = plain
        self.lossy = lossy
        self.first = first
        self.lost: set[int] = set()
        self.found_lost: list[int] = []

    def __len__(self) -> int:
        return len(self.plain)

    def compare(self, start: int = 0, stop: int | None = None, step: int = 1) -> None:
        """See that what is read is what was last written."""
        if not self.lossy:
            differ = np.flatnonzero(self.tiered[start:stop:step] != self.plain[start:stop:step])
            if len(differ):
                at = start + step * int(differ[0])
                raise WrongError(f"{len(differ)} bytes of page {self.first + at // PAGE} and others, first byte {at}")
            return

        def read(file: int, begin: int, end: int) -> None:
            size = os.pwrite(file, self.tiered[begin:end].data, 0)
            got = os.pread(file, end - begin, 0)
            if size != end - begin or got != self.plain[begin:end].tobytes():
                raise WrongError(f"page {self.first + begin // PAGE}, of which {size} bytes were read")

        self._page_by_page(read, start, stop, step)

    def write(self, start: int, stop: int, change: Callable[[np.ndarray], Any], step: int = 1) -> None:
        """Change both alike."""
        if not self.lossy:
            for array in (self.tiered, self.plain):
                array[start:stop:step] = change(array[start:stop:step])
            return
        self.compare(start, stop, step)
        self.plain[start:stop:step] = change(self.plain[start:stop:step])

        def write(file: int, begin: int, end: int) -> None:
            os.pwrite(file, self.plain[begin:end].data, 0)
            size = os.preadv(file, [self.tiered[begin:end].data], 0)
            if size != end - begin:
                raise WrongError(f"page {self.first + begin // PAGE}, of which {size} bytes were written")

        self._page_by_page(write, start, stop, step)

    def _page_by_page(
        self, touch: Callable[[int, int, int], None], start: int, stop: int | None, step: int = 1
    ) -> None:
        end = len(self) if stop is None else stop
        file = os.memfd_create("scratch")
        try:
            for page in sorted({at // PAGE for at in range(start, end, step)}):
                begin = max(start, page * PAGE)
                try:
                    touch(file, begin, min(end, (page + 1) * PAGE))
                except OSError as error:
                    if error.errno not in LOST:
                        raise
                    if page not in self.lost:
                        self.lost.add(page)
                        self.found_lost.append(self.first + page)
                else:
                    if page in self.lost:
                        raise WrongError(f"page {self.first + page} was lost and can be read again")
        finally:
            os.close(file)


class Program:
    """One memory after the other."""

    def __init__(self) -> None:
        self.twins: dict[int, Twins] = {}
        #: Arrays that there was no room for. What is to be done with one of these is nothing: whether there is room may
        #: depend on the instant of a node's death, and what is asked for next must not.
        self.refused: set[int] = set()

    def open(self, inject: str, lossy: bool, **settings: Any) -> None:
        """Make a memory, under injection."""
        os.environ["THERMOCLINE_INJECT"] = inject
        self.lossy = lossy
        self.directory = tempfile.TemporaryDirectory(dir="/var/tmp")
        spec = settings.pop("spec").format(directory=self.directory.name)
        self.memory = Memory(spec, page_size=PAGE, **settings)
        self.groups = [
            self.memory,
            self.memory.group("dram", dram=16 * PAGE),
            self.memory.group("total", memory=24 * PAGE),
        ]

    def allocate(self, key: int, pages: int, group: int, kind: str, seed: int) -> None:
        """An array, written or left as it is."""
        size = pages * PAGE - seed % PAGE
        try:
            tiered = self.groups[group].empty(size, "u1")
        except MemoryError:
            regions = self.memory._regions
            failed = regions.session.tables.header[Tables.HEADER_FAILED_NODES]
            if not failed and regions.commitment.committed + pages <= regions.commitment.limit:
                raise WrongError(f"no room for {pages} pages, which would not be the last") from None
            self.refused.add(key)
            return
        twins = self._keep(key, tiered, np.zeros(size, "u1"))
        twins.compare()
        if seed % 3:
            twins.write(0, size, lambda _: contents(kind, size, seed))

    def make_from_file(self, key: int, pages: int, seed: int, left: int) -> None:
        """An array of a file, of which then only ``left`` pages are left."""
        plain = contents("ramp" if seed % 2 else "noise", pages * PAGE - seed % 100, seed)
        with tempfile.NamedTemporaryFile(dir=self.directory.name) as file:
            file.write(plain.tobytes())
            file.flush()
            try:
                tiered = self.memory.from_file(file.name, "u1")
            except MemoryError:
                self.refused.add(key)
                return
            file.truncate(min(left * PAGE, len(plain)))
        self._keep(key, tiered, plain)

    def _keep(self, key: int, tiered: np.ndarray, plain: np.ndarray) -> Twins:
        first, _ = self.memory._regions.pages_of(tiered.ctypes.data, 1)
        self.twins[key] = Twins(tiered, plain, first, lossy=self.lossy)
        return self.twins[key]

    def write(self, key: int, start: int, stop: int, kind: str) -> None:
        """Write a part of an array."""
        self.twins[key].write(start, stop, lambda _: contents(kind, stop - start, start))

    def read(self, key: int, start: int, step: int) -> None:
        """Read a part of an array."""
        self.twins[key].compare(start, step=step)

    def read_modify_write(self, key: int) -> None:
        """Two bytes of each page."""
        twins = self.twins[key]
        twins.write(0, len(twins), lambda old: old + 1, PAGE // 2)

    def free(self, key: int) -> None:
        """Give an array back."""
        del self.twins[key]

    def advise(self, key: int, start: int, advice: str) -> None:
        """Say how an array will be used."""
        self.memory.advise(self.twins[key].tiered[start:], advice)

    def pin_and_write(self, key: int) -> None:
        """Change what is pinned."""
        twins = self.twins[key]
        try:
            with self.memory.pin(twins.tiered[: 4 * PAGE]):
                twins.write(0, min(4 * PAGE, len(twins)), lambda old: old ^ 255)
        except MemoryError:
            twins.compare(0, min(4 * PAGE, len(twins)))
            if not twins.lost:
                raise WrongError("pages that are not lost cannot be pinned") from None

    def many_threads(self) -> None:
        """A thread for each of some arrays, at the same time."""
        wrong: list[BaseException] = []

        def work(twins: Twins) -> None:
            try:
                twins.write(0, len(twins), lambda old: old + 3, PAGE)
                twins.compare()
            except BaseException as error:
                wrong.append(error)

        threads = [threading.Thread(target=work, args=(twins,)) for twins in list(self.twins.values())[:6]]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if wrong:
            raise wrong[0]

    def books(self) -> dict[str, Any]:
        """What is counted, and how much was disturbed."""
        books = self.memory.stat()
        injected = int(self.memory._regions.session.tables.header[Tables.HEADER_DISTURBED])
        return {**{name: books[name] for name in ("nodes", "arena", "pager")}, "injected": injected}

    def forge(self, key: int, at: int) -> None:
        """Change what is held to be right."""
        self.twins[key].plain[at] ^= 1

    def verify(self) -> None:
        """Read everything."""
        for twins in self.twins.values():
            twins.compare()

    def close(self) -> None:
        """Free everything: then nothing is used, and the memory can go."""
        self.twins.clear()
        self.refused.clear()
        for _ in range(LOOKS):
            used = {name: node["used"] for name, node in self.memory.stat()["nodes"].items() if node["used"]}
            if not used:
                break
        resident = self.memory._regions.session.resident()
        self.memory.close()
        self.directory.cleanup()
        if used or resident or not self.memory._regions.session.closed:
            raise WrongError(f"all arrays are gone; used: {used}, resident: {resident} bytes")

    def found_lost(self) -> list[tuple[int, int]]:
        """The pages that were found lost since this was last asked, each with the array it is of."""
        found = [(key, page) for key, twins in self.twins.items() for page in twins.found_lost]
        for twins in self.twins.values():
            twins.found_lost.clear()
        return found


def main() -> None:
    """Do what standard input says, until it ends."""
    faulthandler.enable()
    faulthandler.register(signal.SIGUSR1)  # for whoever has waited too long
    program = Program()
    for line in sys.stdin:
        what, arguments = json.loads(line)
        try:
            said = None if arguments.get("key") in program.refused else getattr(program, what)(**arguments)
            answer = {"said": said, "lost": program.found_lost()}
        except WrongError as error:
            answer = {"wrong": str(error)}
        except BaseException:
            answer = {"wrong": traceback.format_exc()}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
