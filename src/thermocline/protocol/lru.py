"""LRU lists: in which order the pages of a node are considered for reclaim (``struct lruvec``).

Lists are linked through two columns indexed by page, as the kernel links them through ``struct page``: moving a page
is a handful of array stores, and a list of a million pages needs no object a page. Link 0 means "on no list"; page
``p`` is written as ``p + 1``, and the head of list ``l`` as ``pages + 1 + l``.

A page is on at most one list. A page on none is *isolated*: a task is moving it, and has to put it back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from thermocline.protocol.page import Column, array_column

#: Makes a column of ``count`` zeros of an array typecode. `live` gives anonymous memory, that costs nothing until used.
ColumnFactory = Callable[[str, int], Column]

#: Lists that the links have room for: two for every node of every group.
MAX_LISTS = 4096


class Links:
    """The two link columns that all lists of a machine share, and what is known of each page besides."""

    def __init__(self, pages: int, column: ColumnFactory = array_column) -> None:
        self.pages = pages
        self.next = column("I", pages + 1 + MAX_LISTS)
        self.previous = column("I", pages + 1 + MAX_LISTS)
        #: Which list a page is on: list number + 1, 0 for none.
        self.list_of = column("H", pages)
        #: Set when the page was seen in use since it was last looked at (``PG_referenced``).
        self.referenced = column("B", pages)
        #: The age of its node's inactive list when the page was last demoted (``workingset`` shadow entry), 0: never.
        self.evicted_at = column("I", pages)
        #: Which parts of the page are in the arena, as bits; each is charged for what it takes.
        self.present = column("H", pages)
        #: Of a page that is there in part: whether it may have been written since (``PG_dirty``).
        self.dirty = column("B", pages)
        #: The slot that a transaction copies the page to; 0: none does, or the page was written since it began.
        self.transit = column("Q", pages)
        #: Set when the page is touched (the accessed bit of its page table entry), where an interpreter can see that;
        #: None where it cannot, as in `live`: user space has no way to read it page by page.
        self.accessed: Column | None = None
        #: By number of a list and 1: how many pages are on it, and what :attr:`Lruvec.age` counts.
        self.counts = column("I", MAX_LISTS + 1)
        self.ages = column("Q", MAX_LISTS + 1)
        self._lists: list[LruList] = []

    def new_list(self) -> LruList:
        """A fresh, empty list."""
        if len(self._lists) == MAX_LISTS:
            raise ValueError(f"more than {MAX_LISTS} LRU lists: use fewer groups")
        made = LruList(self, len(self._lists))
        self._lists.append(made)
        return made

    def isolate(self, page: int) -> bool:
        """Take a page off whichever list it is on; False when it was on none."""
        number = self.list_of[page]
        if not number:
            return False
        self._lists[number - 1].remove(page)
        return True


class PageList:
    """Pages that are linked through two columns.

    Parameters
    ----------
    next, previous : column of u32
        The links; that of page ``p`` is ``p + 1``.
    head : int
        The link of the head.
    counts : column of u32
        How many pages there are on each list, of which this is the ``number``-th.
    """

    def __init__(self, next: Column, previous: Column, head: int, counts: Column, number: int) -> None:
        self._next, self._previous, self._head = next, previous, head
        self._counts, self._number = counts, number
        next[head] = previous[head] = head

    def __len__(self) -> int:
        return self._counts[self._number]

    def __iter__(self) -> Iterator[int]:
        """Pages from the head (the youngest) to the tail."""
        link = self._next[self._head]
        while link != self._head:
            yield link - 1
            link = self._next[link]

    def _link(self, link: int, before: int, after: int) -> None:
        self._next[before] = self._previous[after] = link
        self._previous[link] = before
        self._next[link] = after
        self._counts[self._number] += 1

    def _unlink(self, link: int) -> None:
        before, after = self._previous[link], self._next[link]
        self._next[before] = after
        self._previous[after] = before
        self._counts[self._number] -= 1


class LruList(PageList):
    """One doubly linked list: pages are added at the head and reclaimed from the tail."""

    def __init__(self, links: Links, number: int) -> None:
        super().__init__(links.next, links.previous, links.pages + 1 + number, links.counts, number + 1)
        self._links = links

    @property
    def number(self) -> int:
        """Which list it is, from 1 on."""
        return self._number

    def from_tail(self, behind: int | None = None) -> Iterator[int]:
        """Pages from the tail to the head: those behind a page, if that is still on this list, else all."""
        link = self._head
        if behind is not None and self._links.list_of[behind] == self._number:
            link = behind + 1
        while (link := self._previous[link]) != self._head:
            yield link - 1

    def add(self, page: int) -> None:
        """Put an isolated page at the head."""
        self._insert(page + 1, self._head, self._next[self._head])

    def add_tail(self, page: int) -> None:
        """Put an isolated page at the tail, where reclaim looks first."""
        self._insert(page + 1, self._previous[self._head], self._head)

    def _insert(self, link: int, before: int, after: int) -> None:
        if self._links.list_of[link - 1]:
            raise AssertionError(f"page {link - 1} is on an LRU list already")
        self._link(link, before, after)
        self._links.list_of[link - 1] = self._number

    def remove(self, page: int) -> None:
        """Take a page of this list off it."""
        self._unlink(page + 1)
        self._links.list_of[page] = 0

    def tail(self) -> int | None:
        """The page that reclaim would take next, or None."""
        return self._previous[self._head] - 1 if self._counts[self._number] else None


class Lruvec:
    """The lists of one group in one node.

    Parameters
    ----------
    inactive_ratio : int
        How many times as long as the inactive list the active one may be.

    Attributes
    ----------
    age : int
        Evictions from and activations in these lists so far (``nonresident_age``). The difference between two
        readings is a refault distance.
    """

    def __init__(self, links: Links, group: int, inactive_ratio: int = 2) -> None:
        self._links = links
        self.group = group
        self._inactive_ratio = inactive_ratio
        self.active = links.new_list()
        self.inactive = links.new_list()

    @property
    def age(self) -> int:
        """See above."""
        return self._links.ages[self.inactive.number]

    @age.setter
    def age(self, value: int) -> None:
        self._links.ages[self.inactive.number] = value

    def __len__(self) -> int:
        return len(self.active) + len(self.inactive)

    @property
    def inactive_is_low(self) -> bool:
        """Whether the active list should shrink (``inactive_is_low``): by default a third should be inactive."""
        return self._inactive_ratio * len(self.inactive) < len(self.active)

    def add(self, page: int, *, active: bool = False) -> None:
        """Put an isolated page on a list."""
        (self.active if active else self.inactive).add(page)

    def evict(self, page: int) -> None:
        """Remember when an isolated page left (``workingset_eviction``)."""
        # 0 means "never evicted", and the column wraps as the kernel's packed shadow entries do. The reading is taken
        # before the page's own eviction counts: a list one page longer would have kept it, one as long did not.
        self._links.evicted_at[page] = self.age % 0xFFFFFFFF + 1
        self.age += 1

    def refault(self, page: int) -> bool | None:
        """Whether a page that comes back belongs on the active list (``workingset_refault``); None: never evicted.

        A page that would have stayed, had the inactive list been as much longer as the active list now is, is worth
        more than what is on the active list.
        """
        evicted = self._links.evicted_at[page]
        if not evicted:
            return None
        distance = (self.age - (evicted - 1)) % 0xFFFFFFFF
        return distance <= len(self.active)
