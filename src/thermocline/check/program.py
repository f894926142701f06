"""The program: threads that read and write tiered memory and know nothing of it.

An access succeeds at once where the mapping allows it. Otherwise the kernel queues a fault and the thread waits until
it is woken for the part that it touches, as the kernel wakes by address; then it tries again, and faults again if it
must. Every read is compared with what was written last. A thread of a forked child touches the child's own mapping: it
must read what was there at the fork, or what the child has written since.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

from thermocline.check.arena import describe_version
from thermocline.check.family import PROGRAM, End, Family, Fork
from thermocline.check.machine import Machine
from thermocline.check.private import PrivateMapping
from thermocline.check.store import PARTS
from thermocline.check.violation import Violation
from thermocline.protocol.fault import fault
from thermocline.protocol.page import EMPTY, PARTIAL, RESIDENT, Entry


class Access(NamedTuple):
    """A read or a write of a whole page, one part after the other, or of ``only`` one of its parts."""

    page: int
    write: bool
    only: int | None = None

    @property
    def parts(self) -> range:
        """The parts that are accessed, in order."""
        return range(PARTS) if self.only is None else range(self.only, self.only + 1)

    def __str__(self) -> str:
        return f"{'writes' if self.write else 'reads'} page {self.page}"


class FreeLazily(NamedTuple):
    """The block that starts at a page is freed, and kept for the next one of its size (``native/bins.c``).

    If it is not fit to be kept, it is freed in earnest, and the thread has no more to do.
    """

    start: int

    def __str__(self) -> str:
        return f"frees the block at page {self.start} lazily"


class TakeAgain(NamedTuple):
    """A block is asked for, and it is one that was kept."""

    start: int

    def __str__(self) -> str:
        return f"takes the block at page {self.start} again"


class Clear(NamedTuple):
    """A page of such a block has to be zeros: it is written, unless its entry says that there is nothing of it."""

    page: int

    def __str__(self) -> str:
        return f"clears page {self.page}"


#: What a thread does, action by action; at each it may have a choice, and the search tries them all.
Script = tuple[tuple[Access | Fork | End | FreeLazily | TakeAgain | Clear, ...], ...]


#: Entries of the pages of a block that is kept.
_FIT = (Entry(EMPTY, 0, 0), Entry(PARTIAL, 0, 0), Entry(RESIDENT, 0, 0))


class Thread:
    """A thread of the program.

    Attributes
    ----------
    position, part : int
        How many accesses it has done, and how many parts of the next one.
    current : Access or None
        The one under way.
    waiting : bool
        In a fault, or for an answer.
    killed : bool
        By SIGBUS, or with its process.
    mapping : int
        The forked child that it belongs to; 0: the program itself.
    born, forks : bool
        Whether its process is there and may run; whether it is in the middle of a fork.
    """

    __slots__ = ("born", "current", "forks", "killed", "mapping", "name", "part", "position", "script", "waiting")

    def __init__(self, name: str, script: Script, mapping: int = PROGRAM) -> None:
        self.name = name
        self.mapping = mapping
        self.born = mapping == PROGRAM
        self.forks = False
        self.script = script
        self.position = 0
        self.part = 0
        self.current: Access | None = None
        self.waiting = False
        self.killed = False

    @property
    def finished(self) -> bool:
        """Whether it has nothing more to do. (A child that is not born may never be.)"""
        return self.killed or self.position == len(self.script) or not self.born

    @property
    def choices(self) -> int:
        """How many ways it can go on."""
        return 1 if self.current is not None else len(self.script[self.position])


class Program:
    """All threads, and the kernel's side of their faults."""

    def __init__(self, machine: Machine, scripts: dict[str, Script], children: dict[str, Script] | None = None) -> None:
        self.machine = machine
        self.family = Family(machine, self, list(children or ()))
        self.threads = {name: Thread(name, script) for name, script in scripts.items()}
        for name, script in (children or {}).items():
            self.threads[name] = Thread(name, script, self.family.numbers[name])
        #: False while no pager reads the queue of faults: they are answered when the pager is back.
        self.pager_listens = True
        machine.wake_threads = self._wake

    def may_step(self, thread: Thread) -> bool:
        """Whether a thread can run. One that is to fork waits for the fork before it to end."""
        if thread.waiting or thread.finished:
            return False
        if thread.forks or thread.current is not None or not self.family.under_way:
            return True
        return not isinstance(thread.script[thread.position][0], Fork)

    def step(self, thread: Thread, choice: int = 0) -> str:
        """Let a thread that can run go on by one part of an access -> what it did, in words.

        Raises
        ------
        Violation
            It read something else than what was written last.
        """
        if thread.current is None:
            action = thread.script[thread.position][choice]
            if isinstance(action, Fork | End):
                return self.family.step(thread, action)
            if isinstance(action, FreeLazily | TakeAgain | Clear):
                return self._step_block(thread, action)
            thread.current = action
            thread.part = thread.current.parts.start
        access, part = thread.current, thread.part
        arena, footprint = self.machine.arena, self.machine.footprint
        if thread.mapping != PROGRAM:
            return self._step_child(thread, access, part, self.machine.family[thread.mapping])
        footprint.read("arena", access.page)
        if arena.hinted[access.page]:
            footprint.write("arena", access.page)
            arena.hinted[access.page] = False
        if not arena.allows(access.page, part, access.write):
            if arena.poisoned[access.page][part] and arena.versions[access.page][part] is None:
                thread.killed = True
                return f"{access}, part {part}: SIGBUS"
            return self._fault(thread, access, part)
        found = arena.versions[access.page][part]
        truth = arena.truth[access.page][part]
        if access.write:
            footprint.write("arena", access.page)
            arena.write(access.page, part)
        elif found != truth and not arena.undefined[access.page][part]:
            raise Violation(
                "stale",
                f"{thread.name} reads {describe_version(found)} in part {part} of page {access.page}, "
                f"and {describe_version(truth)} came last",
            )
        return self._done(thread, access, part)

    def _step_block(self, thread: Thread, action: FreeLazily | TakeAgain | Clear) -> str:
        machine = self.machine
        table, blocks = machine.table, machine.lazyfree_blocks
        if isinstance(action, Clear):
            if table.state(action.page) != EMPTY:
                thread.current = Access(action.page, True)
                thread.part = 0
                return str(action)
            machine.footprint.write("arena", action.page)
            machine.arena.define_zeros(action.page)
            thread.position += 1
            return f"{action}, of which there is nothing"
        region = machine.regions[action.start + 1]
        pages = range(region.start, region.end)
        thread.position += 1
        if isinstance(action, TakeAgain):
            table.lazyfree[action.start] = 0
            blocks[0] = 0
        elif all(table.read(page) in _FIT and not table.pins[page] for page in pages):
            for page in pages:
                machine.footprint.write("arena", page)
                machine.arena.discard(page)
            table.lazyfree[action.start] = 1
            blocks[0] = region.index
        else:
            thread.position = len(thread.script)
        return str(action)

    def _step_child(self, thread: Thread, access: Access, part: int, child: PrivateMapping) -> str:
        arena, page = self.machine.arena, access.page
        self.machine.footprint.read("arena", page)
        if not child.allows(arena, page, part):
            if child.poisoned[page][part]:
                thread.killed = True
                return f"{access}, part {part}: SIGBUS"
            return self._fault(thread, access, part)
        found = child.version(arena, page, part)
        assert child.truth is not None
        truth = child.truth[page][part]
        if found != truth:
            raise Violation(
                "stale",
                f"{thread.name} finds {describe_version(found)} in part {part} of page {page}, "
                f"and {describe_version(truth)} is what it was forked with, or wrote",
            )
        if access.write:
            self.machine.footprint.write("arena", page)
            child.write(page, part)
        elif child.own[page][part] is None and not child.mapped[page][part]:
            self.machine.footprint.write("arena", page)
            child.mapped[page][part] = True
        return self._done(thread, access, part)

    def _fault(self, thread: Thread, access: Access, part: int) -> str:
        machine = self.machine
        thread.waiting = True
        if self.pager_listens:
            protocol = fault(machine.mm, access.page, access.write, part % machine.mm.parts, thread.mapping)
            machine.spawn(f"fault of {thread.name}", protocol, thread=thread.name)
        return f"{access}, part {part}: faults"

    def _done(self, thread: Thread, access: Access, part: int) -> str:
        thread.part += 1
        if thread.part == access.parts.stop:
            thread.part = 0
            thread.current = None
            thread.position += 1
        return f"{access}, part {part}"

    def _wake(self, page: int, mapping: int | None = None, parts: Collection[int] = range(PARTS)) -> None:
        """Wake those that wait for parts of a page: in one mapping, or in all."""
        for thread in self.threads.values():
            if thread.waiting and thread.current is not None and thread.current.page == page:
                thread.waiting = mapping not in (None, thread.mapping) or thread.part not in parts

    def wake_all(self) -> None:
        """Make every waiter fault again (UFFDIO_WAKE over the whole arena)."""
        for page in range(self.machine.layout.pages):
            self._wake(page)

    # -- for deterministic runs ---------------------------------------------------------------------------------------

    def settle(self) -> None:
        """Run threads and tasks in turn until nothing can run."""
        moved = True
        while moved:
            moved = False
            self.machine.settle()
            for thread in self.threads.values():
                while self.may_step(thread):
                    self.step(thread)
                    moved = True


def touch(machine: Machine, page: int, *, write: bool) -> Thread:
    """Let a thread of a program access a page, and everything run that this sets off -> the thread.

    Raises
    ------
    Violation
        It waits for ever, or read something wrong.
    """
    program = Program(machine, {"program": ((Access(page, write),),)})
    program.settle()
    thread = program.threads["program"]
    if not thread.finished:
        raise Violation("wakeup", f"the {'write' if write else 'read'} of page {page} is never answered")
    return thread
