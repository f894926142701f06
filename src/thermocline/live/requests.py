"""Requests to the pager, from the program's side: who may write to the ring, and how one waits for an answer."""

from __future__ import annotations

import ctypes
import os
import signal

from thermocline.live.doorbell import Doorbell
from thermocline.live.messages import say
from thermocline.live.ring import PENDING, REFUSED, UNMADE, Number, Ring, What
from thermocline.live.tables import RING_ENTRIES, Tables
from thermocline.native import library

#: Seconds after which who waits for an answer looks whether there is anybody to give one.
_PATIENCE = 1.0


class Requests:
    """The program's end of the ring."""

    def __init__(self, tables: Tables) -> None:
        self._answers = Doorbell(tables, Tables.HEADER_ANSWERS)
        self._header = tables.header
        self._ring = Ring(tables)

    @property
    def ring_address(self) -> int:
        """Of the ``struct tc_ring``, for as long as this object is there."""
        return self._ring.address

    def make(self, what: What, first: int = 0, second: int = 0, number: Number | None = None) -> int:
        """Make a request -> its number. Waits only while the ring is full of requests that have no answer.

        Parameters
        ----------
        number : Number
            Where the number is written in the moment that the request is made.
        """
        made = Number(UNMADE) if number is None else number
        while not self._ring.submit(what, first, second, made):
            self.wait_for(self._ring.head - RING_ENTRIES)
        return made.value

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
        if not library().tc_process_exists(ctypes.c_int(self._header[Tables.HEADER_SUPERVISOR])):
            say("the supervisor has ended; the program is killed, its tiered memory cannot be served")
            os.kill(os.getpid(), signal.SIGKILL)

    def ask(self, what: What, first: int = 0, second: int = 0) -> bool:
        """Make a request and wait for its answer -> False when it was refused."""
        return self.wait_for(self.make(what, first, second))
