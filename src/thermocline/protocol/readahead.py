"""Readahead: which pages will be accessed next, predicted from the faults of one region (``page_cache_sync_ra``).

Only misses are seen here: a touch of a resident page makes no fault. So the next fault of a reader that goes on
where the last window ended is expected *at* the end of that window, and a fault there doubles the window, as in the
kernel's ``get_next_ra_size``. Two faults in a row at the same distance make a stream, whatever the distance:
contiguous, strided, or backwards. Several readers of one region (threads, or the operands of a merge) are told apart
by where their next fault is expected.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

#: Streams of one region that are followed at once.
_READERS = 8
#: How many times as many parts a miss brings up as the misses before it in a run did.
_GROWTH = 3
#: A page is brought up as a whole if another part of it was among the last so many misses. Random lookups hardly ever
#: hit one page twice that soon; walks along the rows or columns of a matrix do.
_RECENT = 32
#: The largest stride, in pages, that is taken for a stream: beyond it the guess is wrong more often than not.
_MAX_STRIDE = 64


@dataclass(slots=True)
class _Reader:
    last: int
    stride: int
    #: Where the next fault is expected, and how many pages were read ahead before it.
    expected: int
    window: int


@dataclass(slots=True)
class _Run:
    """Parts that were brought up one behind the other, from ``first`` to before ``end``, counted through the arena."""

    first: int
    end: int


class Stream:
    """The streams of one region."""

    __slots__ = ("_missed", "_readers", "_runs")

    def __init__(self) -> None:
        self._readers: list[_Reader] = []
        self._runs: list[_Run] = []
        #: Pages of which a part was missed lately, and was next to none that was missed before.
        self._missed: deque[int] = deque(maxlen=_RECENT)

    def run(self, page: int, part: int, parts: int) -> range | None:
        """The parts of a page to bring up for a miss at one of them; None: a stream of whole pages is expected here.

        A miss that is next to the last ones makes the run four times as long, and a run that has come to the end of its
        page is a stream of pages from there. A miss anywhere else brings up nothing but itself; another one in the same
        page soon after, as those of a reader whose steps are longer than a part, is taken for a stream of whole pages.

        Parameters
        ----------
        parts : int
            In a page.
        """
        if any(reader.expected == page for reader in self._readers):
            return None
        miss, begin = page * parts + part, page * parts
        for run in self._runs:
            length = _GROWTH * (run.end - run.first)
            if miss == run.end:
                run.end = min(miss + length, begin + parts)
                found = range(part, run.end - begin)
            elif miss == run.first - 1:
                run.first = max(miss + 1 - length, begin)
                found = range(run.first - begin, part + 1)
            else:
                continue
            self._runs.remove(run)
            if run.end - run.first >= parts // 2 and run.end == begin + parts:
                self._readers.insert(0, _Reader(page, 1, page + 1, 0))
            elif run.end - run.first >= parts // 2 and run.first == begin:
                self._readers.insert(0, _Reader(page, -1, page - 1, 0))
            else:
                self._runs.insert(0, run)
            del self._readers[_READERS:]
            return found
        if page in self._missed:
            return None
        self._missed.append(page)
        self._runs.insert(0, _Run(miss, miss + 1))
        del self._runs[_READERS:]
        return range(part, part + 1)

    def window(self, page: int, largest: int, *, eager: bool = False) -> range:
        """The pages to read ahead after a fault on ``page``: empty unless the fault continues a stream.

        Parameters
        ----------
        largest : int
            The most pages to read ahead.
        eager : bool
            Begin at once with the largest window (the user promised sequential use).
        """
        for position, reader in enumerate(self._readers):
            if page == reader.expected:
                return self._advance(position, page, reader.stride, min(max(2 * reader.window, 2), largest))
        # A reader that is not in a stream yet: the distance from its last fault becomes a stride to be confirmed.
        for position, reader in enumerate(self._readers):
            stride = page - reader.last
            if reader.window == 0 and stride and abs(stride) <= _MAX_STRIDE:
                return self._advance(position, page, stride, 0)
        self._readers.insert(0, _Reader(page, 1, page + 1, 0))
        del self._readers[_READERS:]
        if eager:
            return self._advance(0, page, 1, largest)
        return range(0)

    def _advance(self, position: int, page: int, stride: int, window: int) -> range:
        """Move a reader to the front, with its next fault expected behind the window."""
        reader = self._readers.pop(position)
        self._readers.insert(0, reader)
        reader.last = page
        reader.stride = stride
        reader.window = window
        reader.expected = page + stride * (window + 1)
        return range(page + stride, page + stride * (window + 1), stride)
