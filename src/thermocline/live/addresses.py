"""The addresses of an arena, in the program: which are free, and what of them is mapped for the blocks that are there.

Parts of the operations that make and free blocks (:mod:`thermocline.live.regions`). All of it is derived from the
blocks, anew if an exception has come in between.
"""

from __future__ import annotations

import errno
import mmap
from collections.abc import Mapping
from typing import cast

from thermocline.live.descriptor import DescriptorError
from thermocline.live.extents import Extents
from thermocline.live.mapped import KEPT, MappingError
from thermocline.live.session import Session

#: Bytes of addresses that one page of a page table maps: entries are words.
_PAGE_TABLE_SPAN = mmap.PAGESIZE // 8 * mmap.PAGESIZE


class Addresses:
    """Where the blocks of a session are, in pages of its arena. One thread at a time."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._page_size = session.page_size
        self.free = Extents(session.pages)
        #: Blocks that are not in use here, and are still there: pages, by first page. And pages of those in use.
        self._unused: dict[int, int] = {}
        self._in_use = 0
        #: Pages, by first page, where the program has mapped something itself.
        self._foreign: dict[int, int] = {}

    def derive(self, blocks: Mapping[int, int]) -> None:
        """Derive all from the blocks that there are: pages, by first page."""
        self.free = Extents.around(self._session.pages, [*blocks.items(), *self._foreign.items()])
        self._unused = {start: pages for start, pages in self._unused.items() if start in blocks}
        self._in_use = sum([pages for start, pages in blocks.items() if start not in self._unused])
        self._session.attachment.mapped.settle()
        if self._keeps_too_much:
            self._tighten()

    def allocate(self, pages: int, refusals: list[int]) -> int | None:
        """Find addresses for a block, and map them -> its first page, or None.

        Parameters
        ----------
        refusals : list of int
            Why there are none, as error numbers, is added: see :func:`thermocline.live.limits.refused`.
        """
        while True:
            start = self.free.allocate(pages)
            if start is None:
                refusals.append(errno.ENOSPC)
                return None
            try:
                if self._session.cover(start, pages):
                    self._in_use += pages
                    return start
                # What the program has mapped there itself, by number, may stay for ever: so do these addresses.
                self._foreign[start] = pages
            except (MappingError, DescriptorError) as error:
                self.free.free(start, pages)
                if not self._tighten():
                    refusals.append(cast("int", error.errno))
                    return None

    def let_go(self, start: int, pages: int) -> None:
        """Count a block as not in use here any more, and unmap it if more is kept than need be.

        Children and the pager, which may still look at it, do so by other mappings, or by none.
        """
        if start in self._unused:
            return
        self._unused[start] = pages
        self._in_use -= pages
        if self._keeps_too_much:
            self._session.uncover(range(start, start + pages))

    def release(self, start: int, pages: int) -> None:
        """Take back the addresses of a block that is let go of, and is not there any more."""
        del self._unused[start]
        free = self.free.free(start, pages)
        if self._keeps_too_much:
            self._session.uncover(free)
        self._release_page_tables(start, pages, free)

    def _tighten(self) -> bool:
        """Unmap all that is not in use here -> whether there was anything."""
        before = self._session.attachment.mapped.bytes
        for free in self.free.ranges():
            self._session.uncover(free)
        for start, pages in self._unused.items():
            self._session.uncover(range(start, start + pages))
        return self._session.attachment.mapped.bytes < before

    @property
    def _keeps_too_much(self) -> bool:
        """Whether more is mapped than what is in use, and what is kept for what comes next."""
        return self._session.attachment.mapped.bytes - self._in_use * self._page_size > KEPT

    def _release_page_tables(self, start: int, pages: int, free: range) -> None:
        """Give back the page tables which map nothing any more, now that these pages are free within a free range.

        They do not go by themselves: where a page was demoted or punched, they keep a marker.
        """
        span = max(_PAGE_TABLE_SPAN // self._page_size, 1)
        first = max(start // span, -(-free.start // span)) * span
        last = min(-(-(start + pages) // span), free.stop // span) * span
        if first < last:
            self._session.release_page_tables(first, last - first)
