"""Requests of the program to the pager: a ring in the shared tables, and two words as doorbells.

Allocation needs no request: a page that nobody has touched is zeros, and a fault brings it. What does need one (free,
advise, pin, read the books) is written here first and rung for second, so that a pager killed in between is no loss:
its successor finds every request that has no answer and does it again. All requests may be done twice.

Each entry: what, two arguments, and the answer. There is one writer (the program, a thread at a time) and one reader
(the pager); an entry belongs to the pager from the moment the head has passed it until it has an answer.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
from collections.abc import Iterator
from enum import IntEnum
from typing import NamedTuple

from thermocline.live.tables import RING_ENTRIES, RING_WORDS, Tables
from thermocline.native import library

_WHAT, _FIRST, _SECOND, _ANSWER = range(4)

#: Answers. An entry without one is under way.
PENDING, DONE, REFUSED = 0, 1, 2


#: Where the number of a request is written when it is made, and what is there before.
Number = ctypes.c_uint64
UNMADE = (1 << 64) - 1


class _Ring(ctypes.Structure):
    """``struct tc_ring``."""

    _fields_ = (
        ("words", ctypes.c_uint64),
        ("head", ctypes.c_uint64),
        ("entries", ctypes.c_uint32),
        ("entry_words", ctypes.c_uint32),
        ("lock", ctypes.c_uint32),
    )


class What(IntEnum):
    """What the program asks."""

    #: (region number, 0): give back everything that the region holds.
    FREE = 1
    #: (first page, pages): bring up what was pinned.
    PIN = 2
    #: (first page, pages): demote now; bring up soon.
    COLD = 3
    WILLNEED = 4
    #: (region number, 0): its row of advice has changed.
    ADVICE = 5
    #: (group index, 0): its limits have changed.
    GROUP = 6
    #: (0, 0): write the books of the nodes to the tables.
    STAT = 7
    #: (0, 0): blocks are kept that were freed; look now and then whether they are of use.
    LAZYFREE = 8


class Request(NamedTuple):
    """A request as the pager reads it."""

    number: int
    what: int
    first: int
    second: int


class Ring:
    """The ring, from either end."""

    def __init__(self, tables: Tables) -> None:
        self._words = tables.ring
        self._header = tables.header
        self._taken = 0
        self._native = _Ring(
            tables.address_of("ring"),
            tables.address_of("header") + Tables.HEADER_RING_HEAD * tables.header.itemsize,
            RING_ENTRIES,
            RING_WORDS,
        )
        self._submit = library().tc_ring_submit
        self._submit.restype = ctypes.c_bool
        self._submit.argtypes = (
            ctypes.POINTER(_Ring),
            *(ctypes.c_uint64,) * 3,
            ctypes.POINTER(Number),
        )

    @property
    def address(self) -> int:
        """Of the ``struct tc_ring``, for as long as this object is there."""
        return ctypes.addressof(self._native)

    # -- the program's end --------------------------------------------------------------------------------------------

    @property
    def head(self) -> int:
        """Requests ever made."""
        return int(self._header[Tables.HEADER_RING_HEAD])

    def submit(self, what: What, first: int, second: int, number: Number) -> bool:
        """Write a request and wake the pager -> False, and nothing is done, if the entry has no answer yet.

        Done in one step, in C: no exception comes between the entry, the number and the bell.
        """
        return bool(self._submit(ctypes.byref(self._native), what, first, second, ctypes.byref(number)))

    def answer_of(self, number: int) -> int:
        """The answer to a request, or ``PENDING``."""
        return int(self._words[number % RING_ENTRIES * RING_WORDS + _ANSWER])

    # -- the pager's end ----------------------------------------------------------------------------------------------

    def unanswered(self) -> Iterator[Request]:
        """The requests that a killed predecessor took and did not answer; all others count as taken from now on."""
        head = self.head
        for number in range(max(0, head - RING_ENTRIES), head):
            request = self._request(number)
            if request is not None:
                yield request
        self._taken = head

    def take(self) -> Iterator[Request]:
        """The requests made since the last call."""
        while self._taken < self.head:
            request = self._request(self._taken)
            self._taken += 1
            if request is not None:
                yield request

    def _request(self, number: int) -> Request | None:
        at = number % RING_ENTRIES * RING_WORDS
        if self._words[at + _ANSWER] != PENDING:
            return None
        return Request(number, self._words[at + _WHAT], self._words[at + _FIRST], self._words[at + _SECOND])

    def answer(self, number: int, answer: int) -> None:
        """Answer a request. The caller rings the program's bell afterwards."""
        self._words[number % RING_ENTRIES * RING_WORDS + _ANSWER] = answer


class Bell:
    """An eventfd (eventfd(2)) within the pager, which waits for it and for other descriptors. Does not own it."""

    def __init__(self, fd: int) -> None:
        self.fd = fd

    @staticmethod
    def create(*, blocking: bool) -> int:
        """A fresh descriptor."""
        return os.eventfd(0, os.EFD_CLOEXEC | (0 if blocking else os.EFD_NONBLOCK))

    def ring(self) -> None:
        """Wake whoever waits."""
        os.eventfd_write(self.fd, 1)

    def quiet(self) -> None:
        """Forget earlier rings (of a descriptor that does not block)."""
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self.fd)
