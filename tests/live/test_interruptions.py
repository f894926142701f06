"""Exceptions from outside change nothing: an operation that one comes into the middle of is done, or not done.

Each public operation is interrupted at every instruction of our files in turn (``sys.settrace``), as by a debugger or a
signal handler; every allocation of Python's in it fails in turn; and signals and other threads interrupt it at random.
After each of these, the books are what they were before the operation, or after it, and the memory goes on.
"""

import contextlib
import ctypes
import errno
import gc
import itertools
import os
import pickle
import random
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import accounts
import numpy as np
import pytest
from families import forked, status_of

import thermocline
from thermocline import Memory, numpy_allocator
from thermocline.budget import auto_spec, default_spec
from thermocline.live.address_space import address_space
from thermocline.live.session import Session
from thermocline.live.tables import Tables
from thermocline.topology import Topology

SOURCES = str(Path(thermocline.__file__).parent)
SIZE = 40_000  # elements of eight bytes: five pages

Operation = Callable[[Memory], object]


class Interruption(
    *(BlockingIOError, ChildProcessError, ConnectionError, FileExistsError, FileNotFoundError, PermissionError),
    *(ProcessLookupError, TimeoutError, KeyError, IndexError, OverflowError, RecursionError, MemoryError, TypeError),
    BufferError,
):
    """What comes from outside. A handler may raise an exception of any type, each that we catch included."""


# -- the books --------------------------------------------------------------------------------------------------------


def books(memory: Memory) -> dict[str, Any]:
    """All that an operation changes, once what was freed is free."""
    gc.collect()
    regions = memory._regions
    regions.bins.give_up(regions.released, everything=True)
    kept = memory.stat()
    regions.session.reap()  # the supervisor has heard all that it was told before
    tables, session = regions._tables, regions.session
    blocks = dict(regions._blocks)
    rows = {name: getattr(tables, f"region_{name}") for name in ("source", "group", "advice", "shared")}
    free = regions._addresses.free
    return {
        "blocks": blocks,
        "free": (sorted(free._length.items()), free._frontier),
        "lengths": sorted((length, sorted(starts)) for length, starts in free._starts.items()),
        "committed": regions.commitment.committed,
        "regions": sorted(tables.regions()),
        "pages": [(page, number) for page, number in tables.written_rows("region") if number],
        "rows": {name: {start: row[start] for start in blocks} for name, row in rows.items()},
        "pins": [(page, pins) for page, pins in tables.written_rows("pins") if pins],
        "pinned": regions.pins.pages,
        "mapped": (list(session.attachment.mapped.bounds), mapped(session)),
        "under way": (len(regions._to_free), len(regions._freeing), len(regions._kept), len(regions.released)),
        "shared": sorted(regions._shared),
        "shares": [slot for slot, held in tables.written_rows("shares") if held],
        "sources": set(range(1, session._sources + 1)) - set(session._free_sources),
        "groups": (regions._groups, tables.group_limits[: 2 * regions._groups].tolist()),
        "activations": len(numpy_allocator._allocator._activations) if numpy_allocator._allocator else 0,
        "addresses": dict(address_space()._taken),
        "supervisor": accounts.descriptors(tables.header[Tables.HEADER_SUPERVISOR]),
        "descriptors": accounts.descriptors("self"),
        "processes": (kept["processes"], kept["pager"]["starts"]),
    }


def mapped(session: Session) -> list[int]:
    """Where the arena is mapped, for the kernel (proc(5), ``maps``): begin and end of each stretch."""
    bounds: list[int] = []
    for line in Path("/proc/self/maps").read_text().splitlines():
        if "memfd:thermocline-arena" in line:
            begin, end = (int(word, 16) - session.address for word in line.split(" ", 1)[0].split("-"))
            if 0 <= begin < session.size:
                if bounds[-1:] == [begin]:
                    bounds.pop()
                    begin = bounds.pop()
                bounds += begin, end
    return bounds


def goes_on(memory: Memory, file: Path) -> None:
    """The memory works: zeros are zeros, bytes are kept, and a file's are the file's."""
    fresh = memory.zeros(SIZE)
    assert not fresh.any()
    fresh[:] = np.arange(SIZE)
    memory.advise(fresh, "cold")
    with memory.numpy("64KiB"):
        other = np.ones(SIZE)
    from_file = memory.from_file(file)
    with memory.pin(from_file):
        assert from_file.sum() == 3 * SIZE
    assert (fresh.sum(), other.sum()) == (SIZE * (SIZE - 1) / 2, SIZE)


# -- the operations ---------------------------------------------------------------------------------------------------


class Subject:
    """A memory, and what is done to it. What an operation makes is dropped at once."""

    def __init__(self, memory: Memory, directory: Path) -> None:
        self.memory = memory
        self.file = directory / "threes"
        np.full(SIZE, 3.0).tofile(self.file)
        self.kept = memory.array(np.arange(float(SIZE)))
        self.group = memory.group("limited", dram="1MiB")
        self.going: list[Any] = []

    def prepare(self, name: str) -> None:
        """What an operation needs and is not part of it."""
        if name == "drop":
            self.going = [self.memory.zeros(SIZE)]
        elif name == "drop_shared":
            self.going = [self.memory.share(self.memory.zeros(SIZE))]

    def zeros(self) -> None:
        self.memory.zeros(SIZE)

    def full(self) -> None:
        self.group.full(SIZE, 7.0)

    def large(self) -> None:
        """More addresses than were mapped."""
        self.memory.zeros((4, 1 << 17))

    def array(self) -> None:
        self.memory.array(self.kept)

    def from_file(self) -> None:
        self.memory.from_file(self.file, shape=(-1, 2))

    def drop(self) -> None:
        self.going.clear()

    drop_shared = drop

    def cold(self) -> None:
        self.memory.advise(self.kept, "cold")

    def willneed(self) -> None:
        self.memory.advise(self.kept, "willneed")

    def pin(self) -> None:
        with self.memory.pin(self.kept[: SIZE // 2]), self.memory.pin(self.kept[SIZE // 4 :]):
            pass

    def numpy(self) -> None:
        with self.memory.numpy("64KiB"):
            np.empty(SIZE)

    def resize(self) -> None:
        with self.group.numpy("64KiB"):
            np.ones(SIZE).resize(4 * SIZE, refcheck=False)

    def share(self) -> None:
        shared = self.memory.share(self.memory.zeros(SIZE))
        pickle.loads(pickle.dumps(shared))

    def stat(self) -> None:
        self.memory.stat()
        self.memory.times()


OPERATIONS = [name for name, made in vars(Subject).items() if callable(made) and name not in ("__init__", "prepare")]


@pytest.fixture
def subject(memory: Memory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Subject]:
    monkeypatch.setattr("thermocline.live.addresses.KEPT", 0)  # what is free is unmapped
    gc.freeze()  # what was there before makes collections slow
    made = Subject(memory, tmp_path)
    for name in OPERATIONS:  # whatever is made once is made now
        made.prepare(name)
        getattr(made, name)()
    yield made
    vars(made).clear()  # pytest keeps it longer than the memory is open
    gc.unfreeze()


# -- at every instruction ---------------------------------------------------------------------------------------------


def do_nothing() -> None:
    """Let what came up where nobody could be told be raised."""
    for _ in range(100):
        pass


@contextlib.contextmanager
def interrupted_at(point: int, *, once: bool = False) -> Iterator[list[int]]:
    """Raise an exception before the ``point``-th instruction of our files -> how many were met.

    With ``once``, one that is met again (in a loop) does not count again.
    """
    met = [0]
    seen: set[tuple[CodeType, int]] = set()

    def trace(frame: FrameType, event: str, _: object) -> Any:
        if not frame.f_code.co_filename.startswith(SOURCES):
            return None
        frame.f_trace_opcodes = True
        if event == "opcode" and (frame.f_code, frame.f_lasti) not in seen:
            met[0] += 1
            if once:
                seen.add((frame.f_code, frame.f_lasti))
            if met[0] == point:
                raise Interruption(errno.EAGAIN, "from outside")
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        yield met
    finally:
        sys.settrace(before)


def attempt(point: int, operation: Callable[[], object], *, once: bool = False) -> bool:
    """Interrupt an operation -> whether it was long enough for that. The exception must reach us: it is not ours."""
    arrived = False
    try:
        with interrupted_at(point, once=once) as met:
            operation()
    except Interruption:
        arrived = True
    try:
        do_nothing()
    except Interruption:
        arrived = True
    assert arrived == (met[0] >= point), f"the exception at instruction {point} was lost"
    return arrived


#: Every so many instructions, in `make test`. It has no factor in common with the lengths of loops.
STRIDE = 17
#: Memories whose making is interrupted in one process.
AT_ONCE = 8
#: What a process ends with that was not interrupted any more.
OVER = 3


@pytest.mark.timeout(600)
@pytest.mark.parametrize("stride", [STRIDE, pytest.param(1, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", OPERATIONS)
def test_an_operation_that_is_interrupted_anywhere_is_done_or_not_done(
    subject: Subject, name: str, stride: int
) -> None:
    before = books(subject.memory)
    once = name == "stat"  # it only reads, and some of that in long loops
    for point in itertools.count(1, stride):
        subject.prepare(name)
        interrupted = attempt(point, getattr(subject, name), once=once)
        subject.going.clear()
        assert books(subject.memory) == before, f"{name} interrupted at instruction {point}"
        if point % 50 == 1 or not interrupted:
            goes_on(subject.memory, subject.file)
        if not interrupted:
            break
    assert point > 20
    assert subject.kept.sum() == SIZE * (SIZE - 1) / 2


# -- making -----------------------------------------------------------------------------------------------------------


def spec_of(directory: Path) -> str:
    """The nodes of a memory whose making asks the kernel for all there is to ask."""
    dram = "dram@0" if Topology.read().usable(0) else "dram"
    return f"{dram}=2MiB, zstd=4MiB, file:{directory}=16MiB"


def make(directory: Path) -> Memory:
    return Memory(spec_of(directory), commit="heuristic")


def look_up(_: Path) -> None:
    """What is found out for ``Memory("auto")``, and for ``thermocline run``."""
    auto_spec()
    default_spec("8MiB")


#: Every so many instructions, each of which counts once, and how many at least there are.
MAKING = [(make, 97, 3000), (look_up, 11, 800)]


@pytest.mark.timeout(3600)
@pytest.mark.parametrize(
    ("what", "stride", "most"),
    [*MAKING, *(pytest.param(what, stride // 10, most, marks=pytest.mark.slow) for what, stride, most in MAKING)],
)
def test_what_comes_while_a_memory_is_made_arrives(
    tmp_path: Path, what: Callable[[Path], Memory | None], stride: int, most: int
) -> None:
    """As it is: no error of ours is made of it, and it is not taken for one.

    What an interrupted making may leave behind ends with the process that it was in.
    """
    for memory in filter(None, [what(tmp_path)]):  # whatever is made once is made now
        memory.close()

    def attempts(first: int) -> int:
        """As many as a process may have leavings of -> 0 if each was interrupted."""
        for point in range(first, first + AT_ONCE * stride, stride):
            made: list[Memory | None] = []
            interrupted = attempt(point, lambda made=made: made.append(what(tmp_path)), once=True)
            for memory in filter(None, made):
                memory.close()
            if not interrupted:
                return OVER
        return 0

    for first in itertools.count(1, AT_ONCE * stride):
        status = status_of(forked(lambda first=first: os._exit(attempts(first))))
        assert status in (0, OVER), f"{what.__name__} interrupted between {first} and {first + AT_ONCE * stride}"
        if status == OVER:
            break
    assert first > most


# -- closing ----------------------------------------------------------------------------------------------------------


def closing(directory: Path, point: int) -> bool:
    """Interrupt the closing of a memory -> whether it took that long."""
    memory = Memory(f"dram=2MiB, zstd=4MiB, file:{directory}=16MiB")
    with memory.numpy("64KiB"):
        array = np.ones(SIZE)
    shared = memory.share(memory.array(np.arange(SIZE)))

    def close() -> None:
        nonlocal array, shared
        memory.close()
        array = shared = None  # type: ignore[assignment] # the last of them closes it

    interrupted = attempt(point, close)
    array = shared = None  # type: ignore[assignment]
    memory.close()
    session = memory._regions.session
    assert (session.closed, session.teardown._steps) == (True, [])
    return interrupted


def test_a_memory_whose_closing_is_interrupted_anywhere_is_closed(tmp_path: Path) -> None:
    """Every so often: each of them needs a memory of its own. What it had open is looked for by our fixture."""
    taken = dict(address_space()._taken)
    closing(tmp_path, 1 << 40)
    for point in itertools.count(1, 37):
        if not closing(tmp_path, point):
            break
    assert point > 400
    assert dict(address_space()._taken) == taken


# -- without memory ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["zeros", "drop"])  # NumPy itself does not bear this everywhere
def test_an_operation_that_finds_no_memory_is_done_or_not_done(subject: Subject, name: str) -> None:
    """Each allocation of Python's fails in turn, and so those of our native library."""
    testcapi = pytest.importorskip("_testcapi")
    before = books(subject.memory)
    for point in itertools.count(0):
        subject.prepare(name)
        failed = False
        operation = getattr(subject, name)
        try:
            testcapi.set_nomemory(point, point + 1)
            operation()
        except Exception:  # MemoryError mostly; ctypes makes an ArgumentError of it
            failed = True
        finally:
            testcapi.remove_mem_hooks()
        subject.going.clear()
        with contextlib.suppress(Exception):
            do_nothing()
        assert books(subject.memory) == before, f"{name} without memory at allocation {point}"
        if not failed and point > 200:
            break
    goes_on(subject.memory, subject.file)


# -- at random --------------------------------------------------------------------------------------------------------


@pytest.fixture
def quiet_generators() -> Iterator[None]:
    """What comes while Python ends a generator (a context manager that is left) is ignored by it, and told of."""
    hook, sys.unraisablehook = sys.unraisablehook, lambda *_: None
    yield
    sys.unraisablehook = hook


def stop_after(seconds: float, work: Callable[[], object]) -> None:
    """Let work begin, and one signal end it. Its exception may be lost, as in a generator that ends."""
    stopped: list[bool] = []

    def interrupt(*_: object) -> None:
        stopped.append(True)
        raise Interruption

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        signal.setitimer(signal.ITIMER_REAL, seconds)
        while not stopped:
            work()
    except Interruption:
        pass
    finally:
        signal.signal(signal.SIGALRM, before)


@pytest.mark.timeout(600, method="thread")  # the other method has the timer
@pytest.mark.usefixtures("quiet_generators")
@pytest.mark.parametrize("name", OPERATIONS)
def test_an_operation_that_signals_stop_again_and_again_changes_nothing(subject: Subject, name: str) -> None:
    before = books(subject.memory)
    choose = random.Random(name)

    def work() -> None:
        subject.prepare(name)
        getattr(subject, name)()

    for number in range(100):
        with contextlib.suppress(Interruption):
            stop_after(choose.uniform(1e-4, 5e-3), work)
        with contextlib.suppress(Interruption):
            do_nothing()
        if number % 20 == 0:
            subject.going.clear()
            assert books(subject.memory) == before
    subject.going.clear()
    assert books(subject.memory) == before
    goes_on(subject.memory, subject.file)


@pytest.mark.timeout(600)
@pytest.mark.usefixtures("quiet_generators")
@pytest.mark.parametrize("name", OPERATIONS)
def test_an_operation_that_another_thread_stops_changes_nothing(subject: Subject, name: str) -> None:
    """As debuggers and timeouts do (``PyThreadState_SetAsyncExc``)."""
    before = books(subject.memory)
    stop = ctypes.pythonapi.PyThreadState_SetAsyncExc
    over: list[bool] = []

    def work() -> None:
        while not over:
            subject.prepare(name)
            getattr(subject, name)()

    def work_to_the_end() -> None:
        while not over:
            with contextlib.suppress(Interruption):
                work()

    thread = threading.Thread(target=work_to_the_end)
    thread.start()
    choose = random.Random(name)
    for _ in range(100):
        for _ in range(choose.randrange(30_000)):
            pass
        stop(ctypes.c_ulong(thread.ident or 0), ctypes.py_object(Interruption))
    over.append(True)
    thread.join()
    subject.going.clear()
    assert books(subject.memory) == before
    goes_on(subject.memory, subject.file)
