"""A program that does with a tiered memory what it is told, one line of JSON at a time, and verifies all it reads.

Each line names a method of :class:`Program` and its arguments; the answer is a line, too: what it returned, the pages
that were found lost meanwhile, or what was wrong. The driver can kill its pager, time it and survive it.

It begins without a memory, and one that is told to fork becomes two, each with a line of its own to the driver. So
the first of them starts all others: programs that make a memory, and guests. Where a memory is made for that
(``fork="share"``), a child of its program shares the arrays, and so do that one's children; where it is not, a child is
forked for one step, and has the arrays for itself.

What a program may do with a memory is a method here, and a rule of the same name in ``machine.py``.
"""

import faulthandler
import json
import os
import pickle
import signal
import socket
import sys
import tempfile
import threading
import traceback
from pathlib import Path
from typing import Any

import numpy as np
from twins import Twins, WrongError

from thermocline import Memory
from thermocline.errors import ClosedError, StoreError
from thermocline.live import attachment
from thermocline.live.tables import Tables
from thermocline.shared import SharedArray

#: Looks at the books until what is free must be free in them: a transaction that lost its page gives its slot back when
#: its copy has ended, and the supervisor learns in its own time of arrays that are shared no more, and of processes
#: that have ended.
LOOKS = 2000


def contents(kind: str, size: int, seed: int) -> np.ndarray:
    """Bytes that compress not at all, well, or away."""
    if kind == "noise":
        return np.random.default_rng(seed).integers(0, 256, size, dtype="u1")
    if kind == "ramp":
        return np.arange(seed, seed + size, dtype="u8").astype("u1")
    return np.full(size, 0 if kind == "zeros" else seed % 255 + 1, "u1")


def _scribble(diverging: list[Twins], plain: list[np.ndarray], seed: int) -> bool:
    """Write to arrays and to their copies alike -> whether they are the same."""
    random = np.random.default_rng(seed)
    for _ in range(2):
        for twins, copy in zip(diverging, plain, strict=True):
            if not np.array_equal(twins.tiered, copy):
                return False
            start, step = int(random.integers(0, len(copy))), int(random.integers(1, 5000))
            for array in (twins.tiered, copy):
                array[start::step] += 3
    return all(np.array_equal(twins.tiered, copy) for twins, copy in zip(diverging, plain, strict=True))


class Program:
    """One memory after the other."""

    def __init__(self, address: str) -> None:
        self._address = address
        self.twins: dict[int, Twins] = {}
        #: Arrays that there was no room for. What is to be done with one of these is nothing: whether there is room may
        #: depend on the instant of a node's death, and what is asked for next must not.
        self.refused: set[int] = set()
        self._connect()

    def _connect(self) -> None:
        """Get a line to whoever tells this process what to do."""
        self._line = socket.socket(socket.AF_UNIX)
        self._line.connect("\0" + self._address)
        self._said = self._line.makefile("r")

    def serve(self) -> None:
        """Do what is said on the line, until it ends."""
        while said := self._said.readline():
            what, arguments = json.loads(said)
            try:
                answer = None if arguments.get("key") in self.refused else getattr(self, what)(**arguments)
                told = {"said": answer, "lost": self._found_lost()}
            except SystemExit:
                raise
            except WrongError as error:
                told = {"wrong": str(error)}
            except BaseException:
                told = {"wrong": traceback.format_exc()}
            self._line.sendall(json.dumps(told).encode() + b"\n")

    # -- processes ----------------------------------------------------------------------------------------------------

    def fork(self) -> int:
        """Become two -> the process id of the new one, which answers, too."""
        pid = os.fork()
        if not pid:
            self._said.close()
            self._line.close()
            self._connect()
            # Nobody waits for this one's children, and its memories must not mind.
            signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        return pid or os.getpid()

    def diverge(self, seed: int) -> None:
        """Fork a child that writes at random, beside copies in plain memory that are forked along, and write on.

        What either of them writes is nothing to the other. Pagers die meanwhile, as planned.
        """
        diverging = [twins for twins in self.twins.values() if not isinstance(twins.tiered, SharedArray)]
        plain = [twins.plain.copy() for twins in diverging]
        read, write = os.pipe()  # who ignores SIGCHLD cannot ask how a child has ended
        if not os.fork():
            try:
                os.write(write, b"same" if _scribble(diverging, plain, seed) else b"other bytes")
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stderr.flush()
                os._exit(0)
        os.close(write)
        for twins in diverging:
            twins.write(0, len(twins), lambda old: old + 5, self.page // 2)
            twins.compare()
        with open(read, encoding="utf-8") as line:
            found = line.read()
        if found != "same":
            raise WrongError(f"a child that has its arrays for itself finds {found or 'nothing, and has ended'}")

    def status(self, pid: int) -> int | None:
        """How a process has ended; None when this one has not started it."""
        try:
            return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        except ChildProcessError:
            return None

    def meet(self, directory: str, lossy: bool, page: int) -> None:
        """Learn where the plain twins are, whether pages may get lost, and how many bytes they have."""
        self._twins_in = Path(directory)
        self.lossy = lossy
        self.page = page

    def attachments(self) -> int:
        """How often this process uses a memory: a forked child that joins it by name, too, has it twice."""
        return len(attachment._attachments)

    def end(self) -> None:
        """As programs end, with everything still in use."""
        sys.exit()

    def vanish(self) -> None:
        """Without a word to anybody."""
        os._exit(0)

    # -- memories -----------------------------------------------------------------------------------------------------

    def open(self, inject: str, directory: str, **settings: Any) -> None:
        """Make a memory, under injection."""
        os.environ["THERMOCLINE_INJECT"] = inject
        self.directory = directory
        spec = settings.pop("spec").format(directory=directory)
        self.memory = Memory(spec, page_size=self.page, **settings)
        self.groups = [
            self.memory,
            self.memory.group("dram", dram=16 * self.page),
            self.memory.group("total", memory=24 * self.page),
        ]

    def allocate(self, key: int, pages: int, group: int, kind: str, seed: int) -> None:
        """An array, written or left as it is."""
        size = pages * self.page - seed % self.page
        try:
            tiered = self.groups[group].empty(size, "u1")
        except MemoryError:
            regions = self.memory._regions
            failed = regions.session.tables.header[Tables.HEADER_FAILED_NODES]
            if not failed and regions.commitment.committed + pages <= regions.commitment.limit:
                raise WrongError(f"no room for {pages} pages, which would not be the last") from None
            self.refused.add(key)
            return
        twins = self._keep(key, tiered)
        twins.compare()
        if seed % 3:
            twins.write(0, size, lambda _: contents(kind, size, seed))

    def make_from_file(self, key: int, pages: int, seed: int, left: int) -> None:
        """An array of a file, of which then only ``left`` pages are left."""
        plain = contents("ramp" if seed % 2 else "noise", pages * self.page - seed % 100, seed)
        with tempfile.NamedTemporaryFile(dir=self.directory) as file:
            file.write(plain.tobytes())
            file.flush()
            try:
                tiered = self.memory.from_file(file.name, "u1")
            except MemoryError:
                self.refused.add(key)
                return
            file.truncate(min(left * self.page, len(plain)))
        self._keep(key, tiered).plain[:] = plain

    def _keep(self, key: int, tiered: np.ndarray) -> Twins:
        first, _ = self.memory._regions.pages_of(tiered.ctypes.data, 1)
        return self._keep_at(key, tiered, first)

    def _keep_at(self, key: int, tiered: np.ndarray, first: int) -> Twins:
        self.twins[key] = Twins(tiered, self._twins_in / str(key), first, self.page, lossy=self.lossy)
        return self.twins[key]

    # -- arrays -------------------------------------------------------------------------------------------------------

    def write(self, key: int, start: int, stop: int, kind: str) -> None:
        """Write a part of an array."""
        self.twins[key].write(start, stop, lambda _: contents(kind, stop - start, start))

    def read(self, key: int, start: int, step: int) -> None:
        """Read a part of an array."""
        self.twins[key].compare(start, step=step)

    def read_modify_write(self, key: int) -> None:
        """Two bytes of each page."""
        twins = self.twins[key]
        twins.write(0, len(twins), lambda old: old + 1, self.page // 2)

    def add(self, key: int, lane: int) -> None:
        """Change what no other process changes meanwhile."""
        self.twins[key].add(lane)

    def adopt(self, key: int, start: int, stop: int, kind: str) -> None:
        """Whoever wrote this was killed at it."""
        self.twins[key].adopt(start, contents(kind, stop - start, start))

    def free(self, key: int) -> None:
        """Give an array back; in a child, stop looking at it."""
        del self.twins[key]

    def share(self, key: int) -> tuple[int, str]:
        """An array as a handle -> its first page, and the handle."""
        twins = self.twins[key]
        if not isinstance(twins.tiered, SharedArray):
            twins.tiered = self.memory.share(twins.tiered)
        return twins.first, pickle.dumps(twins.tiered).hex()

    def receive(self, key: int, first: int, handle: str) -> None:
        """Take an array by its handle, and keep it."""
        self._keep_at(key, pickle.loads(bytes.fromhex(handle)), first)

    def refuse(self, key: int) -> None:
        """There was no room for an array."""
        self.refused.add(key)

    def glance(self, key: int, first: int, handle: str) -> None:
        """Take an array by its handle, and look at it, unless it is gone."""
        try:
            self.receive(key, first, handle)
        except ClosedError:
            return
        self.twins.pop(key).compare()

    def advise(self, key: int, start: int, advice: str) -> None:
        """Say how an array will be used."""
        self.memory.advise(self.twins[key].tiered[start:], advice)

    def pin_and_write(self, key: int) -> None:
        """Change what is pinned."""
        twins = self.twins[key]
        try:
            with self.memory.pin(twins.tiered[: 4 * self.page]):
                twins.write(0, min(4 * self.page, len(twins)), lambda old: old ^ 255)
        except (MemoryError, StoreError):
            twins.compare(0, min(4 * self.page, len(twins)))
            if not twins.lost.any():
                raise WrongError("pages that are not lost cannot be pinned") from None

    def many_threads(self) -> None:
        """A thread for each of some arrays, at the same time."""
        wrong: list[BaseException] = []

        def work(twins: Twins) -> None:
            try:
                twins.write(0, len(twins), lambda old: old + 3, self.page)
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

    def await_processes(self, count: int) -> None:
        """See that so many use the memory, when the supervisor has learned of those that are gone."""
        for _ in range(LOOKS):
            processes = self.memory.stat()["processes"]
            if processes == count:
                self.memory.stat()  # what they held is given back now
                return
        raise WrongError(f"the memory is used {processes} times, not {count} times")

    def forge(self, key: int, at: int) -> None:
        """Change what is held to be right."""
        self.twins[key].plain[at] ^= 1

    def verify(self) -> None:
        """Read everything."""
        for twins in self.twins.values():
            twins.compare()

    def close(self) -> None:
        """Free everything: then nothing is used, and the memory can go."""
        self._free_all()
        session = self.memory._regions.session
        for _ in range(LOOKS):
            used = {name: node["used"] for name, node in self.memory.stat()["nodes"].items() if node["used"]}
            committed = session.commitment.committed
            if not used and not committed:
                break
        resident = session.resident()
        self.memory.close()
        if used or resident or committed or not session.closed:
            raise WrongError(f"all arrays are gone; used: {used}, resident: {resident} bytes, {committed} pages")

    def leave(self) -> None:
        """Free everything, and give the memory up, which others go on with."""
        self._free_all()
        self.memory.close()
        if not self.memory._regions.session.closed:
            raise WrongError("a memory waits for others to be closed")

    def _free_all(self) -> None:
        self.twins.clear()
        self.refused.clear()

    def _found_lost(self) -> list[tuple[int, int]]:
        """The pages that were found lost since this was last asked, each with the array it is of."""
        found = [(key, page) for key, twins in self.twins.items() for page in twins.found_lost]
        for twins in self.twins.values():
            twins.found_lost.clear()
        return found


def main() -> None:
    """Do what is said by whoever listens at the address that is given."""
    faulthandler.enable()
    faulthandler.register(signal.SIGUSR1)  # for whoever has waited too long
    Program(sys.argv[1]).serve()


if __name__ == "__main__":
    main()
