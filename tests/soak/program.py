"""A program that does with a tiered memory what it is told, one line of JSON at a time, and verifies all it reads.

Each line names a method of :class:`Program` and its arguments; the answer is a line, too: what it returned, the pages
that were found lost meanwhile, or what was wrong. The driver can kill its pager, time it and survive it.

It begins without a memory, and one that is told to fork becomes two, each with a line of its own to the driver. So
the first of them starts all others: programs that make a memory, and guests. Where a memory is made for that
(``fork="share"``), a child of its program shares the arrays, and so do that one's children; where it is not, a child is
forked for one step, and has the arrays for itself.

What a program may do with a memory is a method here, and a rule of the same name in ``machine.py``.
"""

import contextlib
import faulthandler
import json
import os
import pickle
import resource
import signal
import socket
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from lowered import REFUSALS, Locked, Lowered
from own_files import OwnFiles
from twins import Twins, WrongError

from thermocline import Memory
from thermocline.errors import ClosedError, StoreError, UnsupportedError
from thermocline.live import attachment
from thermocline.live.tables import Tables
from thermocline.shared import SharedArray

#: Looks at the books until what is free must be free in them: a transaction that lost its page gives its slot back when
#: its copy has ended, and the supervisor learns in its own time of arrays that are shared no more.
LOOKS = 2000
#: Seconds in which it learns of any process that has ended, or runs another program: it may have closed what tells so.
PATIENCE = 10.0
#: What is said here of a forked child that has ended as one does whose memory is not served.
UNSERVED = "a forked child was not served"


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


def remains_of_memories() -> list[str]:
    """What this process has mapped, or open, that is a memory's."""
    with open("/proc/self/maps", encoding="utf-8", errors="replace") as lines:
        mapped = [line.rstrip("\n") for line in lines if "memfd:thermocline" in line]
    opened = [os.readlink(entry) for entry in os.scandir("/proc/self/fd") if os.path.lexists(entry)]
    return mapped + [name for name in opened if "memfd:thermocline" in name or "userfaultfd" in name]


def _same(tiered: np.ndarray, plain: np.ndarray) -> None:
    if not np.array_equal(tiered, plain):
        raise WrongError("an array that was made within a limit is not what was written")


class CutOffError(Exception):
    """The documented end of some operations of a process that has closed the descriptors of its memory."""


class Program:
    """One memory after the other."""

    def __init__(self, address: str) -> None:
        self._address = address
        self.twins: dict[int, Twins] = {}
        #: Arrays that there was no room for. What is to be done with one of these is nothing: whether there is room may
        #: depend on the instant of a node's death, and what is asked for next must not.
        self.refused: set[int] = set()
        #: Whether this process has closed the descriptors of its memory, and what it has opened in their place.
        self._is_cut_off = False
        self._own_files = OwnFiles()
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
                if wrong := self._own_files.what_is_wrong():
                    raise WrongError(wrong)
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
            self._is_cut_off = False  # a fork makes descriptors of its own
            # Nobody waits for this one's children, and its memories must not mind.
            signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        return pid or os.getpid()

    def execute(self) -> None:
        """Run this program anew, in its own place: nothing of it is there then, but its process and its streams."""
        os.execv(sys.executable, [sys.executable, __file__, self._address])

    def find_remains(self) -> None:
        """See that nothing of a memory is here: none was made since this program was run."""
        remains = remains_of_memories()
        if remains:
            raise WrongError(f"a program that was run in the place of another finds {remains}")

    def lose_descriptors(self, how: str) -> None:
        """Close all descriptors that this process does not know, or have files of its own there."""
        self._own_files.take_over(self._line.fileno(), self._twins_in, how)
        self._is_cut_off = True

    @contextlib.contextmanager
    def _expecting_to_be_cut_off(self, *, always: bool) -> Iterator[None]:
        """Expect the documented error, now or always, of what cannot be done any more, and raise CutOff then."""
        try:
            yield
        except ClosedError as error:
            if not self._is_cut_off or "os.closerange" not in str(error):
                raise
            raise CutOffError from None
        if self._is_cut_off and always:
            raise WrongError("without its descriptors, a memory does what it cannot")

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
                with self._expecting_to_be_cut_off(always=True):
                    tiered = self.memory.from_file(file.name, "u1")
            except (MemoryError, CutOffError):
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

    def share(self, key: int) -> tuple[int, str] | None:
        """An array as a handle -> its first page, and the handle; None if the supervisor cannot be told of it."""
        twins = self.twins[key]
        if not isinstance(twins.tiered, SharedArray):
            try:
                with self._expecting_to_be_cut_off(always=True):
                    twins.tiered = self.memory.share(twins.tiered)
            except CutOffError:
                return None
        return twins.first, pickle.dumps(twins.tiered).hex()

    def receive(self, key: int, first: int, handle: str) -> None:
        """Take an array by its handle, and keep it, if the supervisor can be asked for it."""
        try:
            with self._expecting_to_be_cut_off(always=False):
                tiered = pickle.loads(bytes.fromhex(handle))
        except CutOffError:  # what it may have of that array it cannot send
            self.refused.add(key)
            self.twins.pop(key, None)
        else:
            self._keep_at(key, tiered, first)

    def receive_within(self, limit: str, room: int, key: int, first: int, handle: str) -> list[str]:
        """Take an array by its handle within a limit; if that is too narrow, without one -> what was refused."""
        refused = []
        sent = bytes.fromhex(handle)
        with Lowered(limit, room) as lowered:
            try:
                pickle.loads(sent)
            except REFUSALS as error:
                lowered.end()
                refused.append(f"receive: {error!r}")
        self.receive(key, first, handle)
        return refused

    def refuse(self, key: int) -> None:
        """There was no room for an array, or nobody to be asked for it."""
        if key not in self.twins:
            self.refused.add(key)

    def glance(self, key: int, first: int, handle: str) -> None:
        """Take an array by its handle, and look at it, unless it is gone."""
        try:
            self.receive(key, first, handle)
        except ClosedError:
            return
        if key in self.twins:
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

    # -- within limits ------------------------------------------------------------------------------------------------

    def within(self, limit: str, room: int, does: list[str], pages: int, seed: int) -> list[str]:
        """Do things within a limit that is lower for so long -> what was refused, and how.

        What is not refused is right, and what is leaves nothing behind.
        """
        refused = []
        plain = contents("noise", pages * self.page, seed)
        with tempfile.NamedTemporaryFile(dir=self._twins_in) as file:
            file.write(plain.tobytes())
            file.flush()
            before = len(os.listdir("/proc/self/fd"))
            for each in does:
                do = getattr(self, f"_{each}_within")
                locked = Locked() if limit == "MEMLOCK" else contextlib.nullcontext()
                with locked, Lowered(limit, room) as lowered:
                    try:
                        do(lowered, plain, file.name)
                    except REFUSALS as error:
                        lowered.end()
                        refused.append(f"{each}: {error!r}")
            # What was closed is asked for when addresses are mapped, and stays then.
            if len(os.listdir("/proc/self/fd")) != before and not self._is_cut_off:
                raise WrongError(f"{does} within a limit on {limit} leave descriptors behind; refused: {refused}")
        return refused

    def _allocate_within(self, _: Lowered, plain: np.ndarray, __: str) -> None:
        try:
            tiered = self.memory.empty(len(plain), "u1")
        except MemoryError:
            raise
        except REFUSALS as error:
            raise WrongError(f"an array that cannot be made is no MemoryError: {error!r}") from None
        if not self.lossy:
            tiered[:] = plain
            _same(tiered, plain)

    def _map_file_within(self, _: Lowered, plain: np.ndarray, file: str) -> None:
        tiered = self.memory.from_file(file, "u1")
        if not self.lossy:
            _same(tiered, plain)

    def _share_within(self, *_: Any) -> None:
        for key in list(self.twins)[:1]:
            self.share(key)

    def _pin_within(self, *_: Any) -> None:
        for twins in list(self.twins.values())[:1]:
            with self.memory.pin(twins.tiered[: self.page]):
                pass

    def _demote_within(self, *_: Any) -> None:
        for twins in self.twins.values():
            self.memory.advise(twins.tiered, "cold")

    def _count_within(self, *_: Any) -> None:
        self.memory.stat()

    def _verify_within(self, *_: Any) -> None:
        if not self.lossy:
            self.verify()

    def _start_thread_within(self, *_: Any) -> None:
        """A thread that has met an exception has its own words for that, which are no answer."""
        found: list[BaseException] = []

        def verify() -> None:
            try:
                self._verify_within()
            except BaseException as error:
                found.append(error)

        thread = threading.Thread(target=verify)
        try:
            thread.start()
        except RuntimeError as error:
            raise OSError(*error.args) from None
        thread.join()
        if found:
            raise found[0]

    def _fork_within(self, lowered: Lowered, *_: Any) -> None:
        """A child that cannot be served says so, and ends by SIGSEGV when it looks at its arrays."""
        if self.lossy:
            return
        before = signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        try:
            child = os.fork()
            if not child:
                status = 1
                try:
                    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
                    lowered.end()
                    self.verify()
                    status = 0
                except BaseException:
                    traceback.print_exc()
                finally:
                    sys.stderr.flush()
                    os._exit(status)
            status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        finally:
            signal.signal(signal.SIGCHLD, before)
        if status == -signal.SIGSEGV:
            raise UnsupportedError(UNSERVED)
        if status:
            raise WrongError(f"a child that was forked within a limit has ended with status {status}")

    def _make_memory_within(self, _: Lowered, plain: np.ndarray, __: str) -> None:
        """As any process may: a child, too."""
        inject = os.environ.pop("THERMOCLINE_INJECT", "")
        try:
            with Memory(f"dram={16 * self.page}, lz4={64 * self.page}", page_size=self.page) as memory:
                _same(memory.array(plain), plain)
        finally:
            os.environ["THERMOCLINE_INJECT"] = inject

    def books(self) -> dict[str, Any]:
        """What is counted, and how much was disturbed."""
        books = self.memory.stat()
        injected = int(self.memory._regions.session.tables.header[Tables.HEADER_DISTURBED])
        return {**{name: books[name] for name in ("nodes", "arena", "pager")}, "injected": injected}

    def await_processes(self, count: int) -> None:
        """See that so many use the memory, when the supervisor has learned of those that are gone."""
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
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
        resident = 0 if self._is_cut_off else session.resident()
        if self._is_cut_off:  # nobody can be told that these are shared no more
            committed -= sum(self.memory._regions._blocks[start] for start in self.memory._regions._shared)
            used = used if not committed and not self.memory._regions._shared else {}
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
