"""The program's mapping: which touches go through without the pager."""

from __future__ import annotations

import numpy as np


class Mapping:
    """Page table entries of the program, as columns.

    Attributes
    ----------
    allowed : array of bool
        By access (``page << 1 | write``): the touch goes through, and changes nothing that anybody must know of.
        Threads look up thousands of accesses at a time here.
    readable, writable, written : array of bool
        By page: it is mapped; and not write-protected; and its bytes are not all zeros, because something was written
        to it. The first write to a fresh page is not ``allowed``, so that it is seen, but goes through
        (:meth:`note_write`).
    accessed : array of uint8 or None
        By page: it was touched since somebody looked; None if nobody does.
    poisoned : set of int
        Pages whose touch is a SIGBUS.
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
        self.version = 0
        self._may_write = self.allowed[1::2]

    def install(self, start: int, count: int, *, writable: bool) -> None:
        """Map absent pages."""
        run = slice(start, start + count)
        self.readable[run] = True
        self.writable[run] = writable
        self._may_write[run] = self.written[run] if writable else False

    def protect(self, start: int, count: int) -> None:
        """Stop the writers of pages."""
        run = slice(start, start + count)
        self.writable[run] = False
        self._may_write[run] = False
        self.version += 1

    def unprotect(self, start: int, count: int) -> None:
        """Let the writers of mapped pages go on."""
        run = slice(start, start + count)
        self.writable[run] = self.readable[run]
        self._may_write[run] = self.readable[run] & self.written[run]

    def punch(self, start: int, count: int) -> None:
        """Unmap pages."""
        run = slice(start, start + count)
        self.readable[run] = False
        self.protect(start, count)

    def note_write(self, page: int) -> bool:
        """The first write to a page of zeros -> whether that is what a write is that is not ``allowed``."""
        if not self.writable[page] or self.written[page]:
            return False
        self.written[page] = self._may_write[page] = True
        return True
