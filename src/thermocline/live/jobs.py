"""The native threads of a pager: they compute and copy beside its interpreter, and never wait for it.

A thread of Python's needs the interpreter's lock before and behind each call, and to be woken on another processor
takes longer than to unpack a page. So what reclaim and readahead do to many pages at once is a *job*: a structure that
says all of it, and a function of ``native/jobs.c`` that does it.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from thermocline.live.buffer import Buffer
from thermocline.live.ring import Bell
from thermocline.live.stores.blosc import compressor
from thermocline.live.stores.compressed import Reader
from thermocline.live.stores.packer import Attempt, Packer
from thermocline.native import library

#: Threads, at most. They wait for no device, so more than there are processors are of no use.
_THREADS = 4


class _Header(ctypes.Structure):
    """``struct tc_job``."""

    _fields_ = (
        ("next", ctypes.c_uint64),
        ("run", ctypes.c_void_p),
        ("error", ctypes.c_int32),
        ("urgent", ctypes.c_uint32),
    )


class Job(ctypes.Structure):
    """What every job begins with: ``job``, a :class:`_Header`.

    Attributes
    ----------
    kept : list
        What the structure points to: it lives as long.
    """

    job: _Header
    kept: list[object]

    @property
    def error(self) -> int:
        """0, or the errno that it ended with."""
        return int(self.job.error)


class FillJob(Job):
    """``struct tc_fill``: a run of pages comes up from compressed memory, through the only mapping of the arena."""

    _fields_ = (
        ("job", _Header),
        ("pool", ctypes.c_uint64),
        ("slots", ctypes.c_uint64),
        ("gaps", ctypes.c_uint64),
        ("buffer", ctypes.c_uint64),
        ("count", ctypes.c_uint64),
        ("gap_count", ctypes.c_uint64),
        ("address", ctypes.c_uint64),
        ("begin", ctypes.c_uint64),
        ("uffd", ctypes.c_int32),
        ("protect", ctypes.c_uint32),
        ("was_read", ctypes.c_uint32),
    )

    @classmethod
    def of(cls, reader: Reader, slots: Sequence[int], buffer: Buffer) -> FillJob:
        """Read the items of slots, one behind the other from the beginning of a buffer, and no more."""
        made = cls(pool=ctypes.addressof(reader.row), buffer=buffer.address, count=len(slots))
        made.job.run, made.job.urgent = _function("tc_fill_run"), 1
        made.kept = [reader, buffer, column := (ctypes.c_uint64 * len(slots))(*slots)]
        made.slots = ctypes.addressof(column)
        return made

    def install(self, begin: int, gaps: Sequence[tuple[int, int]], uffd: int, address: int, *, protect: bool) -> None:
        """Then copy what is missing of the run that begins at ``begin`` in the arena.

        Parameters
        ----------
        gaps : sequence of (int, int)
            Where in the arena, and how many bytes.
        uffd, address : int
            Of the mapping.
        """
        column = (ctypes.c_uint64 * (2 * len(gaps)))(*(word for gap in gaps for word in gap))
        self.kept.append(column)
        self.gaps, self.gap_count = ctypes.addressof(column), len(gaps)
        self.begin, self.uffd, self.address, self.protect = begin, uffd, address, protect


#: Instead of the bytes that a page packs into: it holds zeros only, and it could not be read.
ZEROS, UNREADABLE = -1, -2


class _Packing(ctypes.Structure):
    """``struct tc_packing``: one page."""

    _fields_ = (
        ("at", ctypes.c_uint64),
        ("there", ctypes.c_uint64),
        ("packer", ctypes.c_void_p),
        ("length", ctypes.c_int64),
    )


class PackJob(Job):
    """``struct tc_pack``: pages are packed, each in one way."""

    _fields_ = (
        ("job", _Header),
        ("pages", ctypes.c_uint64),
        ("buffer", ctypes.c_uint64),
        ("packed", ctypes.c_uint64),
        ("compress", ctypes.c_void_p),
        ("count", ctypes.c_uint64),
        ("page_size", ctypes.c_uint64),
        ("most", ctypes.c_uint32),
        ("arena", ctypes.c_int32),
    )

    @classmethod
    def of(
        cls,
        arena: int,
        page_size: int,
        packer: Packer,
        attempts: Sequence[Attempt | None],
        places: Sequence[int | None],
        buffer: Buffer,
        packed: Buffer,
        first: int,
    ) -> PackJob:
        """Read pages of an arena to their places in a buffer, and pack each to its place in another.

        Parameters
        ----------
        first : int
            The place of the first of them, in pages.
        attempts : sequence of Attempt or None
            None: that page is read, and no more.
        places : sequence of int or None
            Where in the arena each is; None: it is in the buffer.
        """
        begin = first * page_size
        made = cls(buffer=buffer.address + begin, packed=packed.address + begin, count=len(attempts), most=packer.most)
        made.arena, made.page_size = arena, page_size
        made.job.run, made.compress = _function("tc_pack_run"), compressor()
        rows = (_Packing * len(attempts))()
        for row, attempt, place in zip(rows, attempts, places, strict=True):
            row.at, row.there = place or 0, place is None
            row.packer = packer.context(attempt) if attempt is not None else None
        made.kept = [packer, buffer, packed, rows]
        made.pages = ctypes.addressof(rows)
        return made

    @property
    def lengths(self) -> list[int]:
        """Bytes that each packs into; 0: it does not, or ``ZEROS``, or ``UNREADABLE``."""
        rows = (_Packing * self.count).from_address(self.pages)
        return [row.length for row in rows]


class PunchJob(Job):
    """``struct tc_punch``: the frames of pages are freed."""

    _fields_ = (
        ("job", _Header),
        ("pages", ctypes.c_uint64),
        ("count", ctypes.c_uint64),
        ("page_size", ctypes.c_uint64),
        ("arena", ctypes.c_int32),
    )

    @classmethod
    def of(cls, arena: int, page_size: int, pages: Sequence[int]) -> PunchJob:
        """Punch pages, ascending, of an arena."""
        made = cls(count=len(pages), page_size=page_size, arena=arena)
        made.job.run = _function("tc_punch_run")
        made.kept = [column := (ctypes.c_uint32 * len(pages))(*pages)]
        made.pages = ctypes.addressof(column)
        return made


def _function(name: str) -> int | None:
    return ctypes.cast(getattr(library(), name), ctypes.c_void_p).value


class Jobs:
    """Runs jobs, and calls what waits for them in the pager's thread. What comes up goes before what goes down.

    Parameters
    ----------
    bell : Bell
        Rung when a job is done, to wake the pager.
    """

    def __init__(self, bell: Bell) -> None:
        native = library()
        native.tc_jobs_start.restype = native.tc_jobs_take.restype = ctypes.c_void_p
        #: How many, at most; 0: a limit forbids them (setrlimit(2), ``RLIMIT_NPROC``).
        self.threads = min(len(os.sched_getaffinity(0)), _THREADS)
        #: ``struct tc_jobs``; 0: there is none.
        self._threads = int(native.tc_jobs_start(ctypes.c_int(bell.fd), ctypes.c_size_t(self.threads)) or 0)
        if not self._threads:
            self.threads = 0
        self._submit, self._take = native.tc_jobs_submit, native.tc_jobs_take
        self._begun: dict[int, tuple[Job, Callable[[], Any]]] = {}

    def run(self, job: Job, done: Callable[[], Any]) -> None:
        """Let a job be done: ``done`` is called by :meth:`finished` when it is."""
        address = ctypes.addressof(job)
        self._begun[address] = job, done
        self._submit(ctypes.c_void_p(self._threads), ctypes.c_void_p(address))

    def finished(self) -> Iterator[Callable[[], Any]]:
        """What waits for the jobs that are done."""
        while self._begun:
            address = self._take(ctypes.c_void_p(self._threads))
            if not address:
                return
            yield self._begun.pop(address)[1]

    def drain(self) -> None:
        """Wait until no job is under way. What waits for them is not called yet."""
        if self._begun:
            library().tc_jobs_drain(ctypes.c_void_p(self._threads))

    def close(self) -> None:
        """End the threads."""
        if self._threads:
            library().tc_jobs_stop(ctypes.c_void_p(self._threads))
            self._threads = self.threads = 0
