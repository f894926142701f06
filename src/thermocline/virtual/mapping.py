"""The program's mapping: which touches go through without the pager."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from thermocline.virtual.child import PrivateMapping


class Mapping:
    """Page table entries of the program, as columns.

    Attributes
    ----------
    allowed : array of bool
        By access (``page << 1 | write``): the touch goes through, and changes no state that has to be recorded.
        Threads look up thousands of accesses at a time here.
    readable, writable, written : array of bool
        By page: it is mapped; and not write-protected; and its bytes are not all zeros, because something was written
        to it. The first write to a fresh page is not ``allowed``, so that it is seen, but goes through
        (:meth:`note_write`).
    accessed : array of uint8 or None
        By page: it was touched since the last look at it; None if accessed bits are off.
    poisoned : set of int
        Pages whose touch is a SIGBUS.
    hinted : set of int
        Pages that were unmapped to find out whether they are used: the next touch maps them again, without the pager.
    children : list of PrivateMapping
        Those of forked children, which see the same frames.
    version : int
        Grows when touches stop to be allowed: what was looked up before is worth nothing then.
    """

    def __init__(self, pages: int, *, accessed_bits: bool = False) -> None:
        self.pages = pages
        self.accessed = np.zeros(pages, np.uint8) if accessed_bits else None
        self.allowed = np.zeros(2 * pages, np.bool_)
        self.readable = self.allowed[0::2]
        self.writable = np.zeros(pages, np.bool_)
        self.written = np.zeros(pages, np.bool_)
        self.poisoned: set[int] = set()
        self.hinted: set[int] = set()
        self.version = 0
        self.children: list[PrivateMapping] = []
        self._may_write = self.allowed[1::2]

    def install(self, start: int, count: int, *, writable: bool) -> None:
        """Map absent pages."""
        run = slice(start, start + count)
        self.readable[run] = True
        self.writable[run] = writable
        self._may_write[run] = self.written[run] if writable else False

    def protect(self, start: int, count: int) -> None:
        """Stop the writers of pages."""
        self._map_hinted(start, count)
        run = slice(start, start + count)
        self.writable[run] = False
        self._may_write[run] = False
        self.version += 1

    def unprotect(self, start: int, count: int) -> None:
        """Let the writers of mapped pages go on."""
        self._map_hinted(start, count)
        run = slice(start, start + count)
        self.writable[run] = self.readable[run]
        self._may_write[run] = self.readable[run] & self.written[run]

    def punch(self, start: int, count: int) -> None:
        """Unmap pages."""
        self.hinted.difference_update(range(start, start + count))
        run = slice(start, start + count)
        self.readable[run] = False
        self.protect(start, count)
        for child in self.children:
            child.lose(start, count)

    def hint(self, page: int) -> bool:
        """Unmap a page whose frame stays -> whether it was mapped."""
        if not self.readable[page]:
            return page in self.hinted
        self.hinted.add(page)
        self.readable[page] = self._may_write[page] = False
        self.version += 1
        return True

    def note_touch(self, page: int) -> bool:
        """A touch that is not ``allowed`` -> whether it goes through all the same, because the page was only hinted."""
        if page not in self.hinted:
            return False
        self._map_hinted(page, 1)
        return True

    def _map_hinted(self, start: int, count: int) -> None:
        """Map pages again that were hinted; what is done to them is done to pages that are mapped."""
        if self.hinted:
            for page in self.hinted.intersection(range(start, start + count)):
                self.hinted.discard(page)
                self.readable[page] = True
                self._may_write[page] = self.writable[page] and self.written[page]

    def note_write(self, page: int) -> bool:
        """The first write to a page of zeros -> whether that is what a write is that is not ``allowed``."""
        if not self.writable[page] or self.written[page]:
            return False
        self.written[page] = self._may_write[page] = True
        return True
