"""What of an arena is mapped in this process: where its arrays are, and little more.

The kernel counts every mapping against a limit on addresses (setrlimit(2), ``RLIMIT_AS``), whether or not there is
memory behind it, and a program may set itself one at any time. So nothing is reserved that no array is in: a stretch
is mapped before a block is handed out there, and unmapped when the block is freed. It is the arena's own in any case,
because it lies where the kernel places no other mapping (:mod:`thermocline.live.address_space`).

As the C library does with its heap (mallopt(3), ``M_TRIM_THRESHOLD``), some is kept, so that arrays that are made and
freed in turn cost no system calls.

The truth is what the kernel has mapped. The native library writes down, in the step that maps or unmaps a stretch, that
it has; so an exception from outside that comes before it is noted here is made up for by the next call.
"""

from __future__ import annotations

import ctypes
import errno
import os
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator

from thermocline.native import library

#: Mapped in multiples of this many bytes: what one page of a page table maps, and a page of ours at most.
UNIT = 2 << 20
#: Bytes that stay mapped though no array is in them.
KEPT = 64 << 20
#: Ranges that are mapped apart, at most: the kernel allows a process 65,530 mappings (``vm.max_map_count``).
_MOST_RANGES = 8192

#: A stretch of the arena: where it begins and ends, in bytes from the arena's address on.
Stretch = tuple[int, int]


class Begun(ctypes.Structure):
    """``struct tc_stretch``: the stretch that is being mapped or unmapped."""

    _fields_ = (("begin", ctypes.c_uint64), ("end", ctypes.c_uint64), ("state", ctypes.c_uint32))


#: ``enum tc_stretch_state``.
_NONE, _MAPPED, _GOING, _UNMAPPED = range(4)


class MappingError(OSError):
    """A stretch cannot be mapped: the program's limits (setrlimit(2)) have no room for it, as it is."""

    def __init__(self, number: int, size: int) -> None:
        super().__init__(number, f"{size} bytes of tiered memory cannot be mapped ({os.strerror(number)})")


class OccupiedError(MappingError):
    """Something else is mapped there."""


class Mapped:
    """The mapped ranges of an arena. One thread at a time.

    Parameters
    ----------
    address, size : int
        Where the arena's addresses begin, and how many there are.
    opened : callable
        -> the descriptors of the arena and of the userfaultfd, to map by.

    Attributes
    ----------
    publish : callable
        Called with the bounds whenever they are others: children that are forked from here get what they say.
    """

    def __init__(self, address: int, size: int, opened: Callable[[], tuple[int, int]]) -> None:
        self._address = address
        self._size = size
        self.opened = opened
        self.publish: Callable[[array[int]], object] = lambda bounds: None
        #: The bounds and the bytes, in one: they change in one step.
        self._noted = array("Q"), 0
        self._begun = Begun()
        self._inherited = array("Q")

    @property
    def bounds(self) -> array[int]:
        """Where each range begins and ends, ascending. It is replaced, and never changed."""
        return self._noted[0]

    @property
    def bytes(self) -> int:
        """How many are mapped."""
        return self._noted[1]

    def cover(
        self, begin: int, end: int, prepare: Callable[[int, int], object] = lambda begin, end: None
    ) -> list[Stretch]:
        """Map what is not mapped of a stretch, in whole units -> what that was.

        Parameters
        ----------
        prepare : callable
            Called with the bounds of each stretch that was mapped. It counts as mapped when that has returned.

        Raises
        ------
        MappingError
            Nothing has changed. ENOMEM: the limit on addresses, or on mappings, forbids it. EAGAIN: that on locked
            memory does (mlockall(2), ``MCL_FUTURE``).
        OccupiedError
            Nothing has changed. Something else is mapped there.
        """
        if not self.settle():
            raise MappingError(errno.ENOMEM, end - begin)
        made: list[Stretch] = []
        try:
            for gap in list(_outside(self.bounds, begin // UNIT * UNIT, min(-(-end // UNIT) * UNIT, self._size))):
                self._map(*gap, prepare)
                made.append(gap)
        except BaseException:
            if self.settle():
                for gap in made:
                    self._unmap(*gap)
            raise
        return made

    def uncover(self, begin: int, end: int) -> None:
        """Unmap the whole units of a stretch, in which nothing is. Doing it again is nothing.

        What a forked child was given stays: arrays of its parent are in it.
        """
        if not self.settle():
            return
        begin = -(-begin // UNIT) * UNIT
        end = end if end == self._size else end // UNIT * UNIT
        for part in list(self.parts(begin, end)):
            for own in _outside(self._inherited, *part):
                if len(self.bounds) < 2 * _MOST_RANGES:
                    self._unmap(*own)

    def empty_page_tables(self, uffd: int, begin: int, end: int) -> None:
        """Let the kernel free the page tables of a stretch in which no page is (Linux 6.14; before, it keeps them)."""
        for first, last in self.parts(begin, end):
            error = library().tc_arena_empty_page_tables(
                ctypes.c_int(uffd), ctypes.c_uint64(self._address + first), ctypes.c_uint64(last - first)
            )
            if error:
                raise OSError(error, f"page tables cannot be emptied ({os.strerror(error)})")

    def close(self) -> None:
        """Unmap all of it. Doing it again is nothing."""
        if not self.settle():  # by itself; together with what is around it, it can be unmapped
            self._note(self._begun.begin, self._begun.end, mapped=True)
            self._begun.state = _NONE
        for part in list(self.parts(0, self._size)):
            self._unmap(*part)

    def resume(self, bounds: array[int]) -> None:
        """In a forked child: these are mapped, whatever the parent was about to do."""
        self._begun.state = _NONE
        self._inherited = bounds
        self._noted = bounds, sum(bounds[1::2]) - sum(bounds[::2])

    def settle(self) -> bool:
        """Have unmapped, and noted, what was begun and is not noted. Doing it again is nothing.

        Returns
        -------
        bool
            False: a stretch that is not prepared cannot be unmapped, for there are too many mappings already.
        """
        begun = self._begun
        if begun.state == _NONE:
            return True
        stays = False
        if begun.state != _UNMAPPED:
            stays = bool(library().tc_arena_unmap(ctypes.c_uint64(self._address), ctypes.byref(begun)))
            if stays and begun.state == _MAPPED:
                return False
        self._note(begun.begin, begun.end, mapped=stays)  # what stays is used again
        begun.state = _NONE
        return True

    def _map(self, begin: int, end: int, prepare: Callable[[int, int], object]) -> None:
        arena, uffd = self.opened()
        failed = library().tc_arena_map(
            ctypes.c_int(arena),
            ctypes.c_int(uffd),
            ctypes.c_uint64(self._address),
            ctypes.c_uint64(begin),
            ctypes.c_uint64(end),
            ctypes.byref(self._begun),
        )
        if failed:
            raise (OccupiedError if failed == errno.EEXIST else MappingError)(failed, end - begin)
        prepare(begin, end)
        self._note(begin, end, mapped=True)
        self._begun.state = _NONE

    def _unmap(self, begin: int, end: int) -> None:
        self._begun.begin, self._begun.end = begin, end
        self._begun.state = _GOING
        self.settle()

    def _note(self, begin: int, end: int, *, mapped: bool) -> None:
        """Write to the bounds that a stretch is mapped, or that it is not. Doing it again is nothing."""
        bounds, size = self._noted
        first, last = bisect_left(bounds, begin), bisect_right(bounds, end)
        # An even index is outside of all ranges.
        edges = [edge for edge, index in ((begin, first), (end, last)) if (index % 2 == 0) == mapped]
        was = sum(end - begin for begin, end in self.parts(begin, end))
        noted = bounds[:first] + array("Q", edges) + bounds[last:]
        self._noted = noted, size - was + (end - begin if mapped else 0)
        self.publish(noted)

    def parts(self, begin: int, end: int) -> Iterator[Stretch]:
        """What is mapped of a stretch."""
        return _within(self.bounds, begin, end)


def _within(bounds: array[int], begin: int, end: int) -> Iterator[Stretch]:
    """What of a stretch lies within bounds."""
    for index in range(bisect_right(bounds, begin) // 2 * 2, len(bounds), 2):
        first, last = max(bounds[index], begin), min(bounds[index + 1], end)
        if first >= end:
            break
        if first < last:
            yield first, last


def _outside(bounds: array[int], begin: int, end: int) -> Iterator[Stretch]:
    """What of a stretch lies outside of bounds."""
    for first, last in [*_within(bounds, begin, end), (end, end)]:
        if begin < first:
            yield begin, first
        begin = last
