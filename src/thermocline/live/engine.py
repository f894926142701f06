"""The native half of the pager: it waits, and answers the faults that take the straight line (``native/pager.h``).

What is native performs, and decides nothing: :func:`~thermocline.protocol.fault.fault` says what becomes of a miss, and
is what runs where anything is out of the ordinary. ``THERMOCLINE_ENGINE=python`` leaves all misses to it, so that a
fault of ours can be told to be in the one half or the other.
"""

from __future__ import annotations

import ctypes
import os
import select
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from thermocline.live.arena import Arena
from thermocline.live.books import Books
from thermocline.live.buffer import Buffer, address_of
from thermocline.live.known_regions import KnownRegions
from thermocline.live.stores import Store
from thermocline.live.stores.compressed import CompressedStore, Reader
from thermocline.live.tables import Tables
from thermocline.native import library
from thermocline.protocol.fault import largest_window
from thermocline.protocol.group import ROOT
from thermocline.protocol.mm import DRAM, Mm
from thermocline.protocol.node import Kind
from thermocline.protocol.page import Column
from thermocline.protocol.scheduler import Scheduler
from thermocline.protocol.vmstat import INDEX

#: Nanoseconds for which the pager looks again for the next fault before it sleeps, at most.
_LONGEST_POLL = 100_000
#: ``TC_RELEASED``, ``TC_READY``, ``TC_DECLINES``.
_RELEASED = _READY = _DECLINES = 64


class _Released(ctypes.Structure):
    """``struct tc_released``."""

    _fields_ = (("slot", ctypes.c_uint64), ("node", ctypes.c_uint32), ("group", ctypes.c_uint32))


#: The counters that the native half adds to.
_COUNTERS = (
    "pgfault",
    "pgmajfault",
    "pgfault_write_protect",
    "pgalloc",
    "pgpartial",
    "pgpromote_success",
    "pgdemote_kswapd",
    "pgdemote_direct",
    "pgdemote_proactive",
    "shadow_kept",
    "shadow_dropped",
    "workingset_refault",
    "workingset_activate",
    "fault_polls",
    "fault_polled",
)


class _Counters(ctypes.Structure):
    """``struct tc_counters``: where each is."""

    _fields_ = tuple((name, ctypes.c_uint64) for name in _COUNTERS)


#: Columns by the name of the table that each is one of.
_TABLES = {
    "entry": "entry",
    "region": "region",
    "pins": "pins",
    "advice": "region_advice",
    "group_of": "region_group",
    "fault_times": "histograms",
}
#: Columns of the links of lists.
_LINKS = ("present", "dirty", "referenced", "evicted_at", "transit", "list_of", "next", "previous", "counts", "ages")


class MmRow(ctypes.Structure):
    """``struct tc_mm``."""

    _fields_ = (
        *((name, ctypes.c_uint64) for name in (*_TABLES, *_LINKS)),
        *((name, ctypes.c_uint64) for name in ("shadow_next", "shadow_previous", "shadow_counts")),
        *((name, ctypes.c_uint64) for name in ("locked", "stopped", "stream_of", "streams", "nodes", "groups")),
        *((name, ctypes.c_uint64) for name in ("note", "peak_resident")),
        ("count", _Counters),
        ("pages", ctypes.c_uint64),
        ("page_size", ctypes.c_uint64),
        ("address", ctypes.c_uint64),
        ("kill_in", ctypes.c_uint64),
        ("parts", ctypes.c_uint32),
        ("readahead", ctypes.c_uint32),
        ("arena", ctypes.c_int32),
        ("uffd", ctypes.c_int32),
        ("buffer", ctypes.c_uint64),
        ("released", _Released * _RELEASED),
        ("released_count", ctypes.c_uint32),
        ("dram_is_low", ctypes.c_uint32),
        ("follows", ctypes.c_uint32),
        ("followed_write", ctypes.c_uint32),
        ("followed", ctypes.c_uint64),
    )


class _Declined(ctypes.Structure):
    """``struct tc_declined``."""

    _fields_ = (
        ("address", ctypes.c_uint64),
        ("since", ctypes.c_uint64),
        ("write", ctypes.c_uint32),
        ("parts", ctypes.c_uint32),
    )


class LoopRow(ctypes.Structure):
    """``struct tc_loop``."""

    _fields_ = (
        ("mm", ctypes.c_void_p),
        ("epoll", ctypes.c_int32),
        ("serves", ctypes.c_uint32),
        ("longest_poll", ctypes.c_uint64),
        ("poll", ctypes.c_uint64),
        ("ready_count", ctypes.c_uint32),
        ("declined_count", ctypes.c_uint32),
        ("ready", ctypes.c_int32 * _READY),
        ("declined", _Declined * _DECLINES),
    )


class Miss(NamedTuple):
    """A fault that is left to the protocol.

    Attributes
    ----------
    address : int
        In the program, as the kernel rounds it.
    since : int
        When it was read, in nanoseconds of the monotonic clock.
    stuck : int
        The parts that are to come up of a page that is locked and charged already, as bits; 0: nothing was done.
    """

    address: int
    write: bool
    since: int
    stuck: int


class Engine:
    """The native half of one pager.

    Parameters
    ----------
    books : Books
        That the nodes and groups are in.
    stores : dict of node index to Store
    peak_resident : column of one integer
        See :class:`~thermocline.live.copier.Copier`.
    native : bool
        Whether it answers faults, or only waits.
    polls : bool
        Whether it looks for the next fault for a while before it sleeps.

    Attributes
    ----------
    row : MmRow
    poll : select.epoll
        What it waits for.
    """

    def __init__(
        self,
        mm: Mm,
        tables: Tables,
        arena: Arena,
        scheduler: Scheduler,
        known: KnownRegions,
        books: Books,
        stores: Mapping[int, Store],
        peak_resident: Column,
        *,
        native: bool,
        polls: bool = True,
    ) -> None:
        self._arena = arena
        self._native = native
        #: What the row points to.
        self._books = books
        self._readers: list[Reader] = []
        self._buffer = Buffer(mm.page_size)
        self.poll = select.epoll()
        for node in mm.nodes:
            books.nodes[node.index].is_source = node.kind is Kind.SOURCE
            store = stores.get(node.index)
            if isinstance(store, CompressedStore):
                self._readers.append(store.take_reader())
                books.nodes[node.index].pool = ctypes.addressof(self._readers[-1].row)
        self.row = row = MmRow(
            **{name: tables.address_of(table) for name, table in _TABLES.items()},
            **{name: address_of(getattr(mm.links, name)) for name in _LINKS},
            **{f"shadow_{name}": address_of(getattr(mm.chain, name)) for name in ("next", "previous", "counts")},
            locked=address_of(scheduler.locked),
            stopped=address_of(arena.stopped),
            stream_of=address_of(known.stream_of),
            streams=address_of(known.streams),
            nodes=ctypes.addressof(books.nodes),
            groups=ctypes.addressof(books.groups),
            note=address_of(scheduler.noted),
            peak_resident=address_of(peak_resident),
        )
        counters = tables.address_of("counters")
        for name in _COUNTERS:
            setattr(row.count, name, counters + INDEX[name] * tables.counters.itemsize)
        row.pages, row.page_size, row.parts = mm.table.pages, mm.page_size, mm.parts
        row.readahead = largest_window(mm)
        row.buffer = self._buffer.address
        row.arena = arena.fd
        row.uffd = -1
        self._loop = LoopRow(ctypes.addressof(row), self.poll.fileno())
        if polls and len(os.sched_getaffinity(0)) > 1:  # else the program could not make one meanwhile
            self._loop.longest_poll = _LONGEST_POLL
        self._run = library().tc_loop_run
        self._run.argtypes = (ctypes.POINTER(LoopRow), ctypes.c_int64)
        pages = ctypes.POINTER(ctypes.c_uint32)
        self._arrive = library().tc_arrive
        self._arrive.argtypes = (
            ctypes.POINTER(MmRow),
            pages,
            ctypes.POINTER(ctypes.c_uint8),
            ctypes.c_size_t,
            pages,
            ctypes.POINTER(ctypes.c_size_t),
        )
        self._arrive.restype = ctypes.c_size_t
        self._begin_drop = library().tc_drop_begin
        self._begin_drop.argtypes = (ctypes.POINTER(MmRow), ctypes.c_uint64, pages, pages, ctypes.c_size_t)
        self._begin_drop.restype = ctypes.c_size_t
        self._end_drop = library().tc_drop_end
        self._end_drop.argtypes = (ctypes.POINTER(MmRow), pages, ctypes.c_size_t)
        self._end_drop.restype = ctypes.c_size_t
        mm.takes_lists = native
        mm.lruvec(DRAM, ROOT)  # which native code finds, and does not make

    def wait(self, timeout: float | None, *, serves: bool) -> tuple[list[int], list[Miss]]:
        """Wait for news -> descriptors on which there is some, and faults that are left to the protocol.

        Parameters
        ----------
        timeout : float or None
            Seconds.
        serves : bool
            Whether faults of the program may be answered: it alone has the memory, and nothing is out of the ordinary.
        """
        loop, row = self._loop, self.row
        only = self._arena.only if serves and self._native else None
        loop.serves = only is not None
        if only is not None:
            row.uffd, row.address = only.uffd.fd, only.address
        error = self._run(ctypes.byref(loop), -1 if timeout is None else int(timeout * 1e9))
        if error:
            raise OSError(error, os.strerror(error))
        ready = loop.ready[: loop.ready_count] if loop.ready_count else []
        if not loop.declined_count:
            return ready, []
        declined = loop.declined[: loop.declined_count]
        return ready, [Miss(each.address, bool(each.write), each.since, each.parts) for each in declined]

    def take_released(self) -> list[tuple[int, int, int]]:
        """The slots that were given up since the last call: node, slot and group of each."""
        row = self.row
        if not row.released_count:
            return []
        released = [(each.node, each.slot, each.group) for each in row.released[: row.released_count]]
        row.released_count = 0
        return released

    def arrive(self, pages: Sequence[int], before: Sequence[int]) -> tuple[int, list[int]]:
        """Commit and unlock pages that have come up whole.

        Returns
        -------
        int, list of int
            How many, from the first. Those whose locks others want.
        """
        count = len(pages)
        waited_for, waited_count = (ctypes.c_uint32 * count)(), ctypes.c_size_t()
        done = self._arrive(
            ctypes.byref(self.row),
            (ctypes.c_uint32 * count)(*pages),
            (ctypes.c_uint8 * count)(*before),
            count,
            waited_for,
            ctypes.byref(waited_count),
        )
        return done, waited_for[: waited_count.value] if waited_count.value else []

    def begin_drop(self, pages: Sequence[int], cause: str) -> tuple[list[int], list[int]]:
        """Lock those of some isolated pages that are clean, and commit them to be where their copies are.

        Returns
        -------
        list of int, list of int
            Those: their frames are to be punched, and then :meth:`end_drop` be called. And the others.
        """
        count = len(pages)
        dropped, left = (ctypes.c_uint32 * count)(*pages), (ctypes.c_uint32 * count)()
        number = self._begin_drop(
            ctypes.byref(self.row), getattr(self.row.count, f"pgdemote_{cause}"), dropped, left, count
        )
        return dropped[:number], left[: count - number]

    def end_drop(self, pages: Sequence[int]) -> list[int]:
        """Uncharge what was punched, put the pages on their lists, and unlock them -> those whose locks others want."""
        count = len(pages)
        waited_for = (ctypes.c_uint32 * count)(*pages)
        return waited_for[: self._end_drop(ctypes.byref(self.row), waited_for, count)]

    def close(self) -> None:
        """Close what it waits with."""
        self.poll.close()
