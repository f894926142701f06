"""Readahead: which pages will be accessed next, predicted from the faults of one region (``page_cache_sync_ra``).

Only misses are seen here: a touch of a resident page makes no fault. So the next fault of a reader that goes on
where the last window ended is expected *at* the end of that window, and a fault there doubles the window, as in the
kernel's ``get_next_ra_size``. Two faults in a row at the same distance make a stream, whatever the distance:
contiguous, strided, or backwards. Several readers of one region (threads, or the operands of a merge) are told apart
by where their next fault is expected.

A reader of long windows need not wait for them: the first page of such a window is left absent, the *marker*
(``PG_readahead``). The fault on it tells that the reader has come that far, and the window behind is read while the
reader has this one (``page_cache_async_ra``).
"""

from __future__ import annotations

from thermocline.protocol.page import Column, array_column

#: Streams of one region that are followed at once, and runs of parts.
READERS = 8
#: How many times as many parts a miss brings up as the misses before it in a run did.
_GROWTH = 3
#: A page is brought up as a whole if another part of it was among the last so many misses. Random lookups hardly ever
#: hit one page twice that soon; walks along the rows or columns of a matrix do.
RECENT = 32
#: The largest stride, in pages, that is taken for a stream: beyond it the guess is wrong more often than not.
MAX_STRIDE = 64

#: Pages from which on a window has a marker.
MARKED = 8
#: Pages that are filled as one run at most. Several tasks read a window that is longer.
LONGEST_RUN = 32
#: Steps behind its window at which a reader that steps over pages that are there is still taken for the same one.
SLACK = 8

#: Words of a reader: the page that it missed last, how far it steps, where its next fault is expected, how many pages
#: the last window had, and the page behind it.
LAST, STRIDE, EXPECTED, WINDOW, BEHIND = range(5)
READER_WORDS = 5
#: Words of a run, which are parts that were brought up one behind the other, counted through the arena: the first, and
#: the one behind the last.
RUN_WORDS = 2
#: Where in a row the counts are of what there is of each, then where each begins, the newest first. Of the pages that
#: were missed lately each is written as ``page + 1``, in turn.
READER_COUNT, RUN_COUNT, MISSED_COUNT = range(3)
READERS_AT = 3
RUNS_AT = READERS_AT + READERS * READER_WORDS
MISSED_AT = RUNS_AT + READERS * RUN_WORDS
#: Words of a row.
WORDS = MISSED_AT + RECENT


class Stream:
    """The streams of one region.

    Parameters
    ----------
    row : column of i64
        ``WORDS`` integers, in which all that is known of them is kept.
    """

    __slots__ = ("_row",)

    def __init__(self, row: Column | None = None) -> None:
        self._row = array_column("q", WORDS) if row is None else row

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
        row = self._row
        if any(self._goes_on(at, page) for at in self._readers()):
            return None
        miss, begin = page * parts + part, page * parts
        for at in range(RUNS_AT, RUNS_AT + RUN_WORDS * row[RUN_COUNT], RUN_WORDS):
            first, end = row[at], row[at + 1]
            length = _GROWTH * (end - first)
            if miss == end:
                end = min(miss + length, begin + parts)
                found = range(part, end - begin)
            elif miss == first - 1:
                first = max(miss + 1 - length, begin)
                found = range(first - begin, part + 1)
            else:
                continue
            if end - first >= parts // 2 and end == begin + parts:
                self._remove_run(at)
                self._add_reader(page, 1)
            elif end - first >= parts // 2 and first == begin:
                self._remove_run(at)
                self._add_reader(page, -1)
            else:
                self._to_front(RUNS_AT, at, first, end)
            return found
        if any(row[at] == page + 1 for at in range(MISSED_AT, MISSED_AT + RECENT)):
            return None
        row[MISSED_AT + row[MISSED_COUNT] % RECENT] = page + 1
        row[MISSED_COUNT] += 1
        self._add(RUN_COUNT, RUNS_AT, miss, miss + 1)
        return range(part, part + 1)

    def window(self, page: int, largest: int, *, eager: bool = False) -> list[range]:
        """The pages to read ahead after a fault on ``page``, in runs: none unless the fault continues a stream.

        A window doubles where the next fault is the one that was expected, and keeps its size where the reader has
        stepped over that page.

        Parameters
        ----------
        largest : int
            The most pages to read ahead.
        eager : bool
            Begin at once with the largest window (the user promised sequential use).
        """
        row = self._row
        for at in self._readers():
            if self._goes_on(at, page):
                stride, expected = row[at + STRIDE], row[at + EXPECTED]
                window, behind = row[at + WINDOW], row[at + BEHIND]
                if (page - expected) * stride < 0:
                    return []  # what it waits for is on its way, or found no room
                if page in (expected, behind):
                    window *= 2
                begin = behind if (page - behind) * stride < 0 else page + stride
                return self._advance(at, page, stride, begin, min(max(window, 2), largest))
        # A reader that is not in a stream yet: the distance from its last fault becomes a stride to be confirmed.
        for at in self._readers():
            stride = page - row[at + LAST]
            if row[at + WINDOW] == 0 and stride and abs(stride) <= MAX_STRIDE:
                return self._advance(at, page, stride, page + stride, 0)
        self._add_reader(page, 1)
        if eager:
            return self._advance(READERS_AT, page, 1, page + 1, largest)
        return []

    def _goes_on(self, at: int, page: int) -> bool:
        """Whether a reader goes on at a page: where it is expected, in a long window of its, or shortly behind that.

        Of a short one too little is known: of random misses in a small array, many would be close to some reader's.
        """
        row = self._row
        if row[at + WINDOW] < MARKED:
            return page == row[at + EXPECTED]
        last, stride = row[at + LAST], row[at + STRIDE]
        steps, rest = divmod(page - last, stride)
        return not rest and 0 < steps <= (row[at + BEHIND] - last) // stride + SLACK

    def _advance(self, at: int, page: int, stride: int, begin: int, window: int) -> list[range]:
        """Move a reader to the front, with its next fault expected at the marker of a window, or behind it."""
        behind = begin + stride * window
        is_marked = window >= MARKED
        self._to_front(READERS_AT, at, page, stride, begin if is_marked else behind, window, behind)
        pages = range(begin + stride * is_marked, behind, stride)
        return [pages[first : first + LONGEST_RUN] for first in range(0, len(pages), LONGEST_RUN)]

    # -- the row ------------------------------------------------------------------------------------------------------

    def _readers(self) -> range:
        """Where each reader begins."""
        return range(READERS_AT, READERS_AT + READER_WORDS * self._row[READER_COUNT], READER_WORDS)

    def _add_reader(self, page: int, stride: int) -> None:
        """Follow a reader that has missed a page, and may miss the next one."""
        self._add(READER_COUNT, READERS_AT, page, stride, page + stride, 0, page + stride)

    def _add(self, count: int, begin: int, *words: int) -> None:
        """Put something in front of its like, of which the oldest is forgotten if there are too many."""
        row = self._row
        row[count] = min(row[count] + 1, READERS)
        self._to_front(begin, begin + len(words) * (row[count] - 1), *words)

    def _to_front(self, begin: int, at: int, *words: int) -> None:
        """Put something in front of its like, in lieu of what is at a place."""
        row, size = self._row, len(words)
        for place in range(at + size - 1, begin + size - 1, -1):
            row[place] = row[place - size]
        for place, word in enumerate(words, begin):
            row[place] = word

    def _remove_run(self, at: int) -> None:
        row = self._row
        row[RUN_COUNT] -= 1
        for place in range(at, RUNS_AT + RUN_WORDS * row[RUN_COUNT]):
            row[place] = row[place + RUN_WORDS]
