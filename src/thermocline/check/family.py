"""Forks: what a process, the kernel and the supervisor do at one, and what they ask the pager for.

A fork takes three steps. The process asks the pager to begin it, and waits. Then the kernel makes the child. Then the
child asks for what was saved for it, while its parent goes on; what follows in its script comes behind the answer. The
supervisor lets one fork begin when the one before it has ended. The pager is told of a child that has died, even if it
was never attached.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from thermocline.check.private import PrivateMapping
from thermocline.check.violation import Violation
from thermocline.protocol.cow import attach_child, begin_fork, forget_child
from thermocline.protocol.effects import Protocol

if TYPE_CHECKING:
    from thermocline.check.machine import Machine
    from thermocline.check.program import Program, Thread

PROGRAM = 0


class Fork(NamedTuple):
    """What a thread does: it forks a child, which does what the script of that name says."""

    child: str

    def __str__(self) -> str:
        return f"forks {self.child}"


class End(NamedTuple):
    """What a thread of a child does: its process ends."""

    reason: str = "exit"

    def __str__(self) -> str:
        return "ends its process"


class Family:
    """The children of one program.

    Attributes
    ----------
    unanswered : dict of name to callable
        What the pager was asked for: a successor is asked again.
    under_way : int
        The child whose fork has not ended; 0: none.
    may_abandon : bool
        Whether the pager may end a child.
    """

    def __init__(self, machine: Machine, program: Program, names: list[str]) -> None:
        self.machine = machine
        self.program = program
        self.numbers = {name: number for number, name in enumerate(names, start=1)}
        self.unanswered: dict[str, Callable[[], None]] = {}
        self.under_way = 0
        self.may_abandon = False
        machine.abandon_child = self._abandon

    def step(self, thread: Thread, action: Fork | End) -> str:
        """Let a thread take the next step of a fork, or end its process."""
        self.machine.footprint.write_all()
        if isinstance(action, End):
            self.end(thread.mapping)
            return str(action)
        number = self.numbers[action.child]
        if thread.forks:
            thread.forks = False
            thread.position += 1
            self._clone(number, thread.mapping)
            return f"{action}, which is there now"
        self._begin(thread, number, action.child)
        return f"{action}, and asks for it"

    def _begin(self, thread: Thread, number: int, name: str) -> None:
        machine = self.machine
        of_program = thread.mapping == PROGRAM
        if of_program:
            machine.forks += 1
        fork = machine.forks if of_program else machine.family[thread.mapping].fork
        machine.family[number] = PrivateMapping(number, fork, machine.layout.pages, inherits=not of_program)
        self.under_way = number
        thread.forks = thread.waiting = True

        def answered() -> None:
            thread.waiting = False

        def protocol() -> Protocol[None]:
            child = machine.child(machine.family[number])
            pinned = (page for page in range(machine.layout.pages) if machine.table.pins[page])
            return begin_fork(machine.mm, child, pinned, of_program=of_program)

        self._ask(f"fork of {name}", protocol, answered)

    def _clone(self, number: int, parent: int) -> None:
        machine = self.machine
        child = machine.family[number]
        child.lives = True
        if parent != PROGRAM:
            child.inherit(machine.family[parent])

        def answered() -> None:
            known = machine.family.get(number)
            if known is not None and known.condemned:
                self.end(number)
            elif known is not None and known.lives:
                known.expected = False
                self.under_way = 0
                for thread in self.program.threads.values():
                    if thread.mapping == number:
                        thread.born = True

        self._ask(f"attach of {self._name(number)}", lambda: attach_child(machine.mm, number), answered)

    def end(self, number: int) -> None:
        """A child dies."""
        machine = self.machine
        machine.family[number].lives = False
        machine.family[number].died = True
        for thread in self.program.threads.values():
            if thread.mapping == number:
                thread.killed = True
                thread.waiting = False

        def answered() -> None:
            machine.family.pop(number, None)
            if self.under_way == number:
                self.under_way = 0

        self.unanswered.pop(f"attach of {self._name(number)}", None)
        self._ask(f"end of {self._name(number)}", lambda: forget_child(machine.mm, number), answered)

    def _abandon(self, number: int) -> None:
        if not self.may_abandon:
            raise Violation("lost", f"{self._name(number)} is ended, and could be served")
        child = self.machine.family.get(number)
        if child is not None and child.expected:
            child.condemned = True
        elif child is not None and child.lives:
            self.end(number)

    def _name(self, number: int) -> str:
        return next(name for name, each in self.numbers.items() if each == number)

    # -- requests -----------------------------------------------------------------------------------------------------

    def _ask(self, name: str, protocol: Callable[[], Protocol[None]], answered: Callable[[], None]) -> None:
        def done(_: object) -> None:
            self.machine.footprint.write_all()
            self.unanswered.pop(name, None)
            answered()

        def begin() -> None:
            self.machine.spawn(name, protocol(), done=done)

        self.unanswered[name] = begin
        if self.program.pager_listens:
            begin()

    def ask_again(self) -> None:
        """A new pager listens."""
        for begin in list(self.unanswered.values()):
            begin()

    def deaths(self) -> list[int]:
        """The children that could die now."""
        return [child.number for child in self.machine.family.values() if child.lives]
