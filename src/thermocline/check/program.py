"""The program: threads that read and write tiered memory and know nothing of it.

An access succeeds at once where the mapping allows it. Otherwise the kernel queues a fault and the thread waits until
somebody wakes the page; then it tries again, and faults again if it must. Every read is compared with what was
written last.
"""

from __future__ import annotations

from typing import NamedTuple

from thermocline.check.arena import describe_version
from thermocline.check.machine import Machine
from thermocline.check.store import PARTS
from thermocline.check.violation import Violation
from thermocline.protocol.fault import fault


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


#: What a thread does, access by access; at each it may have a choice, and the search tries them all.
Script = tuple[tuple[Access, ...], ...]


class Thread:
    """A thread of the program.

    Attributes
    ----------
    position, part : int
        How many accesses it has done, and how many parts of the next one.
    current : Access or None
        The one under way.
    waiting : bool
        In a fault.
    killed : bool
        By SIGBUS.
    """

    __slots__ = ("current", "killed", "name", "part", "position", "script", "waiting")

    def __init__(self, name: str, script: Script) -> None:
        self.name = name
        self.script = script
        self.position = 0
        self.part = 0
        self.current: Access | None = None
        self.waiting = False
        self.killed = False

    @property
    def finished(self) -> bool:
        """Whether it has nothing more to do."""
        return self.killed or self.position == len(self.script)

    @property
    def choices(self) -> int:
        """How many ways it can go on."""
        return 1 if self.current is not None else len(self.script[self.position])


class Program:
    """All threads, and the kernel's side of their faults."""

    def __init__(self, machine: Machine, scripts: dict[str, Script]) -> None:
        self.machine = machine
        self.threads = {name: Thread(name, script) for name, script in scripts.items()}
        #: False while nobody reads the queue of faults: they are answered when the pager is back.
        self.pager_listens = True
        machine.wake_thread = self._wake

    def step(self, thread: Thread, choice: int = 0) -> str:
        """Let a thread that can run go on by one part of an access -> what it did, in words.

        Raises
        ------
        Violation
            It read something else than what was written last.
        """
        if thread.current is None:
            thread.current = thread.script[thread.position][choice]
            thread.part = thread.current.parts.start
        access, part = thread.current, thread.part
        arena, footprint = self.machine.arena, self.machine.footprint
        footprint.read("arena", access.page)
        if arena.hinted[access.page]:
            footprint.write("arena", access.page)
            arena.hinted[access.page] = False
        if not arena.allows(access.page, part, access.write):
            if arena.poisoned[access.page][part] and arena.versions[access.page][part] is None:
                thread.killed = True
                return f"{access}, part {part}: SIGBUS"
            thread.waiting = True
            if self.pager_listens:
                name = f"fault of {thread.name}"
                self.machine.spawn(
                    name,
                    fault(self.machine.mm, access.page, access.write, part % self.machine.mm.parts),
                    thread=thread.name,
                )
            return f"{access}, part {part}: faults"
        found = arena.versions[access.page][part]
        truth = arena.truth[access.page][part]
        if access.write:
            footprint.write("arena", access.page)
            arena.write(access.page, part)
        elif found != truth:
            raise Violation(
                "stale",
                f"{thread.name} reads {describe_version(found)} in part {part} of page {access.page}, "
                f"and {describe_version(truth)} came last",
            )
        thread.part += 1
        if thread.part == access.parts.stop:
            thread.part = 0
            thread.current = None
            thread.position += 1
        return f"{access}, part {part}"

    def _wake(self, page: int) -> None:
        for thread in self.threads.values():
            if thread.waiting and thread.current is not None and thread.current.page == page:
                thread.waiting = False

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
                while not thread.finished and not thread.waiting:
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
