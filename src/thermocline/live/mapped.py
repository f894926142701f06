"""What of an arena is mapped in this process: where its arrays are, and little more.

The kernel counts every mapping against a limit on addresses (setrlimit(2), ``RLIMIT_AS``), whether or not there is
memory behind it, and a program may set itself one at any time. So nothing is reserved that no array is in: a stretch
is mapped before a block is handed out there, and unmapped when the block is freed. It is the arena's own in any case,
because it lies where the kernel places no other mapping (:mod:`thermocline.live.address_space`).

As the C library does with its heap (mallopt(3), ``M_TRIM_THRESHOLD``), some is kept, so that arrays that are made and
freed in turn cost no system calls.
"""

from __future__ import annotations

import ctypes
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
    bounds : array of u64
        Where each range begins and ends, ascending. It is replaced, and never changed.
    bytes : int
        How many are mapped.
    publish : callable
        Called with the bounds whenever they are others: children that are forked from here get what they say.
    """

    def __init__(self, address: int, size: int, opened: Callable[[], tuple[int, int]]) -> None:
        self._address = address
        self._size = size
        self.opened = opened
        self.publish: Callable[[array[int]], object] = lambda bounds: None
        self.bounds = array("Q")
        self.bytes = 0
        #: What is being mapped or unmapped. If that is cut short, by what a signal handler raises, nothing is in it,
        #: and whether it is mapped is not known.
        self._begun: Stretch | None = None

    def cover(self, begin: int, end: int) -> list[Stretch]:
        """Map what is not mapped of a stretch, in whole units -> what that was.

        Raises
        ------
        OSError
            Nothing has changed. EEXIST: something else is mapped there. ENOMEM: the limit on addresses, or on mappings,
            forbids it. EAGAIN: that on locked memory does (mlockall(2), ``MCL_FUTURE``).
        """
        self._settle()
        made: list[Stretch] = []
        try:
            for gap in list(self._gaps(begin // UNIT * UNIT, min(-(-end // UNIT) * UNIT, self._size))):
                self._map(*gap)
                made.append(gap)
        except OSError:
            for gap in made:
                self._unmap(*gap)
            raise
        return made

    def uncover(self, begin: int, end: int) -> None:
        """Unmap the whole units of a stretch, in which nothing is."""
        self._settle()
        begin = -(-begin // UNIT) * UNIT
        end = end if end == self._size else end // UNIT * UNIT
        for part in list(self.parts(begin, end)):
            if len(self.bounds) < 2 * _MOST_RANGES:
                self._unmap(*part)

    def close(self) -> None:
        """Unmap all of it."""
        self._settle()
        for part in list(self.parts(0, self._size)):
            self._unmap(*part)

    def _map(self, begin: int, end: int) -> None:
        arena, uffd = self.opened()
        self._begun = begin, end
        failed = library().tc_arena_map(
            ctypes.c_int(arena),
            ctypes.c_int(uffd),
            ctypes.c_uint64(self._address + begin),
            ctypes.c_uint64(begin),
            ctypes.c_uint64(end - begin),
        )
        if failed:
            self._begun = None
            raise OSError(failed, f"{end - begin} bytes of tiered memory cannot be mapped ({os.strerror(failed)})")
        self._note(begin, end, mapped=True)
        self._begun = None

    def _unmap(self, begin: int, end: int) -> None:
        self._begun = begin, end
        self._settle()

    def _settle(self) -> None:
        """Have unmapped what was begun."""
        if self._begun is None:
            return
        begin, end = self._begun
        failed = library().tc_arena_unmap(ctypes.c_uint64(self._address + begin), ctypes.c_uint64(end - begin))
        if not failed:  # else there are too many mappings already: it stays, and is used again
            self._note(begin, end, mapped=False)
        self._begun = None

    def _note(self, begin: int, end: int, *, mapped: bool) -> None:
        """Write to the bounds that a stretch is mapped, or that it is not."""
        bounds = self.bounds
        first, last = bisect_left(bounds, begin), bisect_right(bounds, end)
        # An even index is outside of all ranges.
        edges = [edge for edge, index in ((begin, first), (end, last)) if (index % 2 == 0) == mapped]
        noted = bounds[:first] + array("Q", edges) + bounds[last:]
        was = sum(end - begin for begin, end in self.parts(begin, end))
        self.bounds, self.bytes = noted, self.bytes - was + (end - begin if mapped else 0)
        self.publish(self.bounds)

    def parts(self, begin: int, end: int) -> Iterator[Stretch]:
        """What is mapped of a stretch."""
        bounds = self.bounds
        for index in range(bisect_right(bounds, begin) // 2 * 2, len(bounds), 2):
            first, last = max(bounds[index], begin), min(bounds[index + 1], end)
            if first >= end:
                break
            if first < last:
                yield first, last

    def _gaps(self, begin: int, end: int) -> Iterator[Stretch]:
        """What is not mapped of a stretch."""
        for first, last in [*self.parts(begin, end), (end, end)]:
            if begin < first:
                yield begin, first
            begin = last
