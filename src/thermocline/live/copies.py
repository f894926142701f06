"""Saved copies of pages, and the copies that forked children are given (see :mod:`thermocline.protocol.cow`).

A saved copy lies in a sparse memfd of its own, at the page's place in the arena, so that it needs no table and survives
the pager. It takes memory only while a page is withdrawn, or a child is expected.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Collection

from thermocline.live import libc
from thermocline.live.arena import Arena
from thermocline.live.buffer import Buffer
from thermocline.live.mapping import Mapping

#: Called with the number of a child that cannot be given a copy.
Failed = Callable[[int], object]


class Copies:
    """The saved copies of one arena.

    Parameters
    ----------
    fd : int
        The memfd.
    """

    def __init__(self, fd: int, arena: Arena) -> None:
        self.fd = fd
        self._arena = arena
        self._size = arena.page_size
        self._scratch: Buffer | None = None
        #: Mappings, and first pages of regions: whether touches are seen there.
        self._seen: dict[tuple[Mapping, int], bool] = {}

    def pages(self) -> list[int]:
        """The pages of which there is a saved copy. Of one that a killed pager had begun, the part is dropped."""
        found: dict[int, None] = {}
        for begin, end in libc.data_extents(self.fd, 0, os.fstat(self.fd).st_size):
            found |= dict.fromkeys(range(begin // self._size, -(-end // self._size)))
        for page in [page for page in found if not self._is_saved(page)]:
            self.drop(page)
            del found[page]
        return list(found)

    def save(self, page: int) -> None:
        """Copy a page that is in memory as a whole."""
        buffer = self._buffer()
        self._arena.read(page * self._size, self._size, buffer, 0)
        if os.pwritev(self.fd, [buffer.view[: self._size]], page * self._size) != self._size:
            raise OSError(f"page {page} cannot be saved as a whole")

    def drop(self, page: int) -> None:
        """Free the saved copy of a page."""
        libc.punch_hole(self.fd, page * self._size, self._size)

    def restore(self, page: int) -> None:
        """Bring a page back, write-protected, wherever it is not in memory."""
        self._arena.install(page * self._size, self._size, self._saved(page), 0, protect=True)

    def give(self, page: int, region: range, children: Collection[int], failed: Failed) -> tuple[list[int], int]:
        """Give children a copy of a page -> those that had something of it, and how many have a new copy.

        It is the saved copy, if there is one, or what is in memory. ``failed`` is called with a child for which there
        is no memory left.

        Zeros take no memory: the kernel's zero page is mapped. But a hole that is punched unmaps it, and the child's
        next touch would then map what the program has written since. So the child's touches of that ``region`` are
        seen from then on, and it is given zeros again (:class:`~thermocline.protocol.effects.GiveZeros`).
        """
        buffer = self._buffer()
        if self._is_saved(page):
            self._saved(page)
        else:
            self._arena.read(page * self._size, self._size, buffer, 0)
        is_zero = libc.is_zero(buffer.address, self._size)
        had: list[int] = []
        given = 0
        for mapping in self._arena.private(children):
            at = page * self._size
            try:
                if is_zero and self._sees_touches(mapping, region):
                    nothing_there = mapping.give_zeros(at, self._size)
                else:
                    nothing_there = mapping.give(at, self._size, buffer.address)
            except ProcessLookupError:
                continue
            except OSError as error:
                if error.errno != errno.ENOMEM:
                    raise
                failed(mapping.number)
                continue
            given += 1
            if not nothing_there:
                had.append(mapping.number)
        return had, given

    def _sees_touches(self, mapping: Mapping, region: range) -> bool:
        """Whether touches of a region are seen in a mapping; what a predecessor has seen to is done again."""
        key = mapping, region.start
        if key not in self._seen:
            self._seen[key] = mapping.see_touches(region.start, len(region))
        return self._seen[key]

    def forget(self, mapping: Mapping) -> None:
        """Its process is gone."""
        self._seen = {key: seen for key, seen in self._seen.items() if key[0] is not mapping}

    def _is_saved(self, page: int) -> bool:
        begin = page * self._size
        return sum(end - start for start, end in libc.data_extents(self.fd, begin, begin + self._size)) == self._size

    def _saved(self, page: int) -> Buffer:
        buffer = self._buffer()
        got = os.preadv(self.fd, [buffer.view[: self._size]], page * self._size)
        if got != self._size:
            raise OSError(f"saved copies: read {got} of {self._size} bytes of page {page}")
        return buffer

    def _buffer(self) -> Buffer:
        if self._scratch is None:
            self._scratch = Buffer(self._size)
        return self._scratch
