"""Shadows: the resident pages of which a lower node has a clean copy, in the order in which they came up.

A page has one at most, so all nodes share two columns of links, as the lists of :mod:`thermocline.protocol.lru` do:
page ``p`` is written as ``p + 1``, and the head of node ``n`` as ``pages + 1 + n``. Link 0 means that a page has none.
"""

from __future__ import annotations

from thermocline.protocol.lru import ColumnFactory, PageList
from thermocline.protocol.page import array_column


class Chain:
    """The columns that the shadows of all nodes are linked through, and how many each node has."""

    def __init__(self, pages: int, nodes: int, column: ColumnFactory = array_column) -> None:
        self.pages = pages
        self.next = column("I", pages + 1 + nodes)
        self.previous = column("I", pages + 1 + nodes)
        self.counts = column("I", nodes)


class Shadows(PageList):
    """The pages whose clean copies are in one node."""

    def __init__(self, chain: Chain, node: int) -> None:
        super().__init__(chain.next, chain.previous, chain.pages + 1 + node, chain.counts, node)

    def add(self, page: int) -> None:
        """A page has come up, and its copy stays here."""
        if self._next[page + 1]:
            raise AssertionError(f"page {page} has a shadow already")
        self._link(page + 1, self._head, self._next[self._head])

    def discard(self, page: int) -> None:
        """The copy of a page is none any more. Doing it again is nothing."""
        link = page + 1
        if self._next[link]:
            self._unlink(link)
            self._next[link] = self._previous[link] = 0
