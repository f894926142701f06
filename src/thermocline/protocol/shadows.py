"""Shadows: the resident pages of which a lower node has a clean copy, in the order in which they came up.

A page has one at most, so all nodes share two columns of links, as the lists of :mod:`thermocline.protocol.lru` do:
page ``p`` is written as ``p + 1``, and the head of node ``n`` as ``pages + 1 + n``. Link 0 means that a page has none.
"""

from __future__ import annotations

from collections.abc import Iterator

from thermocline.protocol.lru import ColumnFactory
from thermocline.protocol.page import array_column


class Chain:
    """The columns that the shadows of all nodes are linked through, and how many each node has."""

    def __init__(self, pages: int, nodes: int, column: ColumnFactory = array_column) -> None:
        self.pages = pages
        self.next = column("I", pages + 1 + nodes)
        self.previous = column("I", pages + 1 + nodes)
        self.counts = column("I", nodes)


class Shadows:
    """The pages whose clean copies are in one node."""

    def __init__(self, chain: Chain, node: int) -> None:
        self._next, self._previous, self._counts = chain.next, chain.previous, chain.counts
        self._node = node
        self._head = chain.pages + 1 + node
        self._next[self._head] = self._previous[self._head] = self._head

    def __len__(self) -> int:
        return self._counts[self._node]

    def __iter__(self) -> Iterator[int]:
        """Pages, the youngest first."""
        link = self._next[self._head]
        while link != self._head:
            yield link - 1
            link = self._next[link]

    def add(self, page: int) -> None:
        """A page has come up, and its copy stays here."""
        link, first = page + 1, self._next[self._head]
        if self._next[link]:
            raise AssertionError(f"page {page} has a shadow already")
        self._next[self._head] = self._previous[first] = link
        self._previous[link] = self._head
        self._next[link] = first
        self._counts[self._node] += 1

    def discard(self, page: int) -> None:
        """The copy of a page is none any more. Doing it again is nothing."""
        link = page + 1
        before, after = self._previous[link], self._next[link]
        if not after:
            return
        self._next[before] = after
        self._previous[after] = before
        self._next[link] = self._previous[link] = 0
        self._counts[self._node] -= 1
