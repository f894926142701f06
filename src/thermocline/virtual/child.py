"""A forked child: its threads, and its private view of the program's mapping."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

import numpy as np

from thermocline.protocol.child import Child
from thermocline.protocol.cow import attach_child, begin_fork
from thermocline.virtual.mapping import Mapping
from thermocline.virtual.thread import ProgramThread

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from thermocline.virtual.pager import Pager


class PrivateMapping(Mapping):
    """Page table entries of a forked child (``MAP_PRIVATE``).

    The first touch of a page whose frame is there maps the frame, and the first write copies it: the kernel does
    both, and what that takes is taken for a hit.

    Attributes
    ----------
    own : array of bool
        By page: the child has a copy of its own.
    """

    def __init__(self, program: Mapping) -> None:
        super().__init__(program.pages)
        self._program = program
        self.own = np.zeros(program.pages, np.bool_)

    def note_touch(self, page: int) -> bool:
        """A touch that is not ``allowed`` -> whether it goes through all the same, because the frame is there."""
        if self.readable[page] or not (self._program.readable[page] or page in self._program.hinted):
            return False
        self.readable[page] = True
        return True

    def note_write(self, page: int) -> bool:
        """The first write to a page that is mapped -> whether it is that: the kernel copies the frame."""
        if self.own[page] or not self.readable[page]:
            return False
        self._have(page)
        return True

    def give(self, page: int) -> bool:
        """Install a copy -> False where something is mapped (EEXIST)."""
        if self.readable[page]:
            return False
        self._have(page)
        self.poisoned.discard(page)
        return True

    def _have(self, page: int) -> None:
        self.own[page] = self.readable[page] = self._may_write[page] = True

    def lose(self, start: int, count: int) -> None:
        """The frames of pages are gone; copies stay."""
        run = slice(start, start + count)
        self.readable[run] = self.own[run]
        self.version += 1


class ChildProgram:
    """A process that :meth:`~thermocline.virtual.machine.VirtualMemory.fork` makes: give it threads.

    Parameters
    ----------
    make : callable
        Makes a thread of a trace, a mapping and a child's number.
    elder : ChildProgram or None
        The child whose fork has to end first.
    """

    def __init__(
        self,
        child: Child,
        pager: Pager,
        mapping: Mapping,
        make: Callable[..., ProgramThread],
        elder: ChildProgram | None,
    ) -> None:
        self._elder = elder
        self._younger: ChildProgram | None = None
        self._attached = False
        self.child = child
        self.mapping = PrivateMapping(mapping)
        self._pager = pager
        self._make = make
        mapping.children.append(self.mapping)

    def thread(
        self, trace: Iterable[NDArray[np.uint32]], *, think_ns: int = 0, keep_stalls: bool = False
    ) -> ProgramThread:
        """A thread of the child, which begins when the fork is over: see ``VirtualMemory.thread``."""
        return self._make(
            trace, mapping=self.mapping, child=self.child.number, think_ns=think_ns, keep_stalls=keep_stalls
        )

    def fork(self, time: int) -> None:
        """Let the program fork it at that time, in picoseconds."""
        self._pager.request(time, self._serve)

    def _serve(self) -> None:
        pager = self._pager
        if self._elder is not None and not self._elder._attached:
            self._elder._younger = self
            return
        pager.scheduler.spawn(begin_fork(pager.mm, self.child, (), of_program=True), background=True, done=self._begun)

    def _begun(self, _: None) -> None:
        pager = self._pager
        pager.request(pager.answer(), self._attach)

    def _attach(self) -> None:
        pager = self._pager
        pager.scheduler.spawn(attach_child(pager.mm, self.child.number), background=True, done=self._end)

    def _end(self, _: None) -> None:
        self._attached = True
        if self._younger is not None:
            self._younger._serve()
        self._pager.program.bear(self.child.number, self._pager.answer())
