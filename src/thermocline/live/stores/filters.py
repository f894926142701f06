"""Which filter to put before the codec: numbers pack better when their bytes, or bits, are sorted by rank.

A shuffle turns an array of numbers into all first bytes, then all second bytes, and so on (Masui et al., "A
compression scheme for radio data in high performance computing", 2015, for bits). On the right data it makes
pages smaller and the codec several times faster; on text it does harm. What a page holds nobody tells us, but
pages of one region are mostly of a kind, or of two. So the filter that won last is used, and nothing else
tried unless the page packs much worse than the last ones did; then the winner before it gets a chance. Now
and then all are tried on one page, ever more rarely, at least once in `LAST_INTERVAL` pages.

A denser codec, where there is one, is tried with the filter that was best for the quicker one, and with none.

Nothing here depends on time or chance: the same pages in the same order make the same choices.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple


class Shuffle(IntEnum):
    """What is sorted, with the numbers of C-Blosc2 (``BLOSC_SHUFFLE``, ``BLOSC_BITSHUFFLE``)."""

    NONE = 0
    BYTES = 1
    BITS = 2


class Filter(NamedTuple):
    """A shuffle of numbers of so many bytes."""

    shuffle: Shuffle
    width: int


#: The faster ones first: a later one has to win by a margin. The last one serves pages that do not pack at
#: all, because without a filter a codec gives up soonest.
FILTERS = (
    Filter(Shuffle.BITS, 8),
    Filter(Shuffle.BYTES, 8),
    Filter(Shuffle.BITS, 4),
    Filter(Shuffle.BYTES, 4),
    Filter(Shuffle.BYTES, 2),
    Filter(Shuffle.NONE, 1),
)

EVERY = tuple(range(len(FILTERS)))
#: What is tried on pages of which nothing is known, and on those that do not pack.
NOTHING = EVERY[-1]
FIRST_INTERVAL = 2
LAST_INTERVAL = 128
HINTS = 1024  # regions remembered

#: Yields the filter to try next on a page, an index of `FILTERS` (and more, for a second codec). Is sent the bytes the
#: page packed into, or None when that was not clearly less than with the filters tried before. The last one that was
#: less is used.
Search = Generator[int, int | None, None]


@dataclass(slots=True)
class _Habit:
    """What is known of the pages of one region.

    Attributes
    ----------
    best, other : int
        The filters that won last, and before that.
    size, other_size : float
        Bytes that pages pack into with each: means that forget.
    interval, pages : int
        All filters are tried after so many pages, and how many there were since.
    """

    best: int
    size: float
    other: int
    other_size: float
    interval: int = FIRST_INTERVAL
    pages: int = 0

    def win(self, winner: int, size: float) -> None:
        """A filter has packed a page best."""
        if winner == self.other:
            self.best, self.other = winner, self.best
            self.size, self.other_size = self.other_size, self.size
        elif winner != self.best:
            self.other, self.other_size = self.best, self.size
            self.best, self.size = winner, size
        self.size += (size - self.size) / 4


class Choice:
    """Remembers what packs best per hint, for the `HINTS` hints that came last.

    Parameters
    ----------
    page_size : int
        Bytes, which is what a page takes that does not pack.
    codecs : int
        How many there are, each with all filters.
    """

    def __init__(self, page_size: int, codecs: int = 1) -> None:
        self._page_size = page_size
        self._codecs = codecs
        self._habits: dict[int, _Habit] = {}
        self._meeting: set[int] = set()

    def meets(self, hint: int) -> bool:
        """Whether the first page with this hint is being tried: what its like are packed with is not known yet."""
        return hint in self._meeting

    def search(self, hint: int) -> Search:
        """The filters to try on the next page with this hint; run it to its end."""
        habit = self._habits.get(hint)
        if habit is None:
            return self._meet(hint)
        habit.pages += 1
        if habit.pages >= habit.interval:
            return self._try_every(habit)
        return self._follow(habit)

    def _meet(self, hint: int) -> Search:
        if len(self._habits) >= HINTS:
            del self._habits[next(iter(self._habits))]
        habit = self._habits[hint] = _Habit(NOTHING, self._page_size, NOTHING, self._page_size)
        self._meeting.add(hint)
        try:
            yield from self._try_every(habit)
        except GeneratorExit:  # given up: nothing is known of them yet
            del self._habits[hint]
            raise
        finally:
            self._meeting.discard(hint)

    def _follow(self, habit: _Habit) -> Search:
        size = (yield habit.best) or self._page_size
        if size * 4 <= habit.size * 5:
            habit.size += (size - habit.size) / 4
            return
        if habit.other != habit.best:
            second = yield habit.other
            if second:
                habit.win(habit.other, second)
                return
        # Such pages are nothing new then, or they call for a filter that has not won lately.
        habit.size += (size - habit.size) / 4
        if habit.pages * 8 >= habit.interval:
            yield from self._try_every(habit, tried=(habit.best, habit.other))

    def _try_every(self, habit: _Habit, tried: tuple[int, ...] = ()) -> Search:
        habit.pages = 0
        habit.interval = min(2 * habit.interval, LAST_INTERVAL)
        winner = None
        for codec in range(self._codecs):
            promising = {NOTHING, (winner or (NOTHING, 0))[0] % len(FILTERS)}
            for which in EVERY if codec == 0 else sorted(promising):
                if which + codec * len(FILTERS) not in tried:
                    size = yield which + codec * len(FILTERS)
                    if size:
                        winner = which + codec * len(FILTERS), size
        if winner:
            habit.win(*winner)
