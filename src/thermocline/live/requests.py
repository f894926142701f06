"""Requests to the pager, from the program's side: who may write to the ring, and how one waits for an answer."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator

from thermocline.errors import ThermoclineError
from thermocline.live.doorbell import Doorbell
from thermocline.live.messages import say
from thermocline.live.ring import PENDING, REFUSED, Ring, What
from thermocline.live.tables import RING_ENTRIES, Tables

#: Seconds after which who waits for an answer looks whether there is anybody to give one.
_PATIENCE = 1.0


class Exclusion:
    """A lock that knows its owner, so that a thread which meets itself is told rather than left waiting for itself.

    Signal handlers and finalizers run in the middle of whatever their thread was doing.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._owner: int | None = None

    @property
    def is_mine(self) -> bool:
        """Whether the calling thread holds the lock."""
        return self._owner == threading.get_ident()

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Wait for the lock and hold it.

        Raises
        ------
        ThermoclineError
            The thread holds it already.
        """
        if self.is_mine:
            raise ThermoclineError(
                "a signal handler or finalizer has called into the memory that its own thread was using; "
                "set a flag there and call later"
            )
        self._lock.acquire()
        try:
            self._owner = threading.get_ident()
            yield
        finally:
            self._owner = None
            self._lock.release()

    @contextlib.contextmanager
    def held_if_free(self) -> Iterator[bool]:
        """Hold the lock if nobody else does -> whether it is held. Never waits."""
        if not self._lock.acquire(blocking=False):
            yield False
            return
        try:
            self._owner = threading.get_ident()
            yield True
        finally:
            self._owner = None
            self._lock.release()


class Requests:
    """The program's end of the ring."""

    def __init__(self, tables: Tables) -> None:
        self._requests = Doorbell(tables, Tables.HEADER_RING_HEAD)
        self._answers = Doorbell(tables, Tables.HEADER_ANSWERS)
        self._header = tables.header
        self._ring = Ring(tables)
        self._writing = Exclusion()

    @property
    def is_busy_here(self) -> bool:
        """Whether the calling thread is in the middle of making a request: a finalizer may run there."""
        return self._writing.is_mine

    def make(self, what: What, first: int = 0, second: int = 0) -> int:
        """Make a request -> its number. Waits only while the ring is full of requests that have no answer."""
        with self._writing.held():
            oldest = self._ring.head - RING_ENTRIES
            if oldest >= 0:
                self.wait_for(oldest)
            number = self._ring.submit(what, first, second)
        self._requests.wake()  # its word is the head of the ring, which has changed
        return number

    def is_answered(self, number: int) -> bool:
        """Whether a request has its answer."""
        return self._ring.answer_of(number) != PENDING

    def wait_for(self, number: int) -> bool:
        """Wait for the answer to a request -> False when it was refused.

        The pager answers; were it to die, its successor would; were the supervisor to, this process is killed.
        """
        while True:
            seen = self._answers.value
            if self.is_answered(number):
                break
            if not self._answers.wait(seen, _PATIENCE):
                self._assure_supervisor()
        return self._ring.answer_of(number) != REFUSED

    def _assure_supervisor(self) -> None:
        """End this process if the supervisor has ended: the program may have closed the lifeline that would."""
        with contextlib.suppress(PermissionError):  # it is there, and this process has changed its user
            try:
                os.kill(self._header[Tables.HEADER_SUPERVISOR], 0)
            except ProcessLookupError:
                say("the supervisor has ended; the program is killed, its tiered memory cannot be served")
                os.kill(os.getpid(), signal.SIGKILL)

    def ask(self, what: What, first: int = 0, second: int = 0) -> bool:
        """Make a request and wait for its answer -> False when it was refused."""
        return self.wait_for(self.make(what, first, second))
