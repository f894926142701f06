"""A mapping of the arena in one process, as the pager sees it: an address and a userfaultfd."""

from __future__ import annotations

import errno
import mmap
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from thermocline.live.userfaultfd import UserFaultFd


def half_of(size: int) -> int:
    """Where a stretch of more than a base page is divided, in bytes: between two of its base pages."""
    return -(-size // mmap.PAGESIZE // 2) * mmap.PAGESIZE


@dataclass(frozen=True, eq=False)
class Mapping:
    """Where a process has mapped the arena.

    Its methods raise ``ProcessLookupError`` when that process, or the program that it ran, is gone. A process need not
    have all of the arena mapped.

    Attributes
    ----------
    number : int
        0 is the program's that made the memory.
    process : int
        A pidfd.
    fork : int
        Of a forked child, which maps the arena privately: its fork. 0 of a process that shares the arrays.
    """

    number: int
    uffd: UserFaultFd
    address: int
    page_size: int
    process: int
    fork: int = 0

    @property
    def is_private(self) -> bool:
        """Whether it is a forked child's that sees the arrays as they were: nothing comes up through it."""
        return self.fork > 0

    def part_at(self, address: int, part_size: int) -> tuple[int, int]:
        """The page that holds an address of the process's, and which of its parts does."""
        page, within = divmod(address - self.address, self.page_size)
        return page, within // part_size

    def copy(self, at: int, size: int, source: int, *, protect: bool) -> bool:
        """Make a stretch appear with the bytes at an address of ours, and wake its waiters -> if nothing was there.

        Raises
        ------
        FileNotFoundError
            It is not all in one of the process's mappings. Nothing has been done, or some of it.
        """
        return self.uffd.copy(self.address + at, source, size, protect=protect)

    def zero(self, at: int, size: int) -> bool:
        """Make a stretch of zeros appear, writable, and wake its waiters: see :meth:`copy`."""
        return self.uffd.zero(self.address + at, size)

    def give(self, at: int, size: int, source: int) -> bool:
        """:meth:`copy` to a private mapping, wherever the process has it: the copy is its own."""
        return self._piecewise(lambda at, size, source: self.copy(at, size, source, protect=False), at, size, source)

    def give_zeros(self, at: int, size: int) -> bool:
        """:meth:`give` of zeros."""
        return self._piecewise(lambda at, size, _: self.zero(at, size), at, size)

    def see_touches(self, page: int, count: int) -> bool:
        """Let the first touch of a page here be a fault, even if the page is in memory -> whether the kernel can.

        It cannot where it does not know such faults, nor where the process may have no further mapping; and of one
        that is gone it says, of this call alone, that there is no memory for it.
        """
        try:
            self.uffd.register_minor(*self._place(page, count))
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.ENOMEM):
                raise
            return False
        return True

    def map_present(self, at: int, size: int) -> None:
        """Map a stretch that is in memory, and wake its waiters."""
        self._piecewise(lambda at, size, _: self.uffd.map_present(self.address + at, size), at, size)

    def protect(self, page: int, count: int) -> None:
        """Stop the writers of pages here, present or to come. Where a page is not mapped, there are none."""
        self._of_pages(self.uffd.write_protect, page, count)

    def unprotect(self, page: int, count: int) -> None:
        """Let the writers of pages go on."""
        self._of_pages(self.uffd.write_unprotect, page, count)

    def wake(self, page: int, count: int) -> None:
        """Make the waiters of pages fault again."""
        self.uffd.wake(*self._place(page, count))

    def poison(self, page: int) -> None:
        """Make every touch of an absent page a SIGBUS. Where it is not mapped, it cannot be touched."""
        self._of_pages(self.uffd.poison, page, 1)

    def _of_pages(self, do: Callable[[int, int], None], page: int, count: int) -> None:
        def done(at: int, size: int, _: int) -> bool:
            do(self.address + at, size)
            return True

        self._piecewise(done, page * self.page_size, count * self.page_size)

    def _piecewise(self, do: Callable[[int, int, int], bool], at: int, size: int, source: int = 0) -> bool:
        """Do something to a stretch, wherever it is mapped -> whether it has said True of all that is.

        The kernel does it in one mapping at a time. What a process has of an array may be several: mlock(2), for
        example, sets parts of a mapping apart.
        """
        try:
            return do(at, size, source)
        except FileNotFoundError:
            if size <= mmap.PAGESIZE:
                return True
        half = half_of(size)
        first = self._piecewise(do, at, half, source)
        return self._piecewise(do, at + half, size - half, source + half) and first

    def _place(self, page: int, count: int) -> tuple[int, int]:
        return self.address + page * self.page_size, count * self.page_size


@dataclass(frozen=True, eq=False)
class SharedRanges(Mapping):
    """What a forked child shares by name of an arena that it otherwise maps privately.

    Attributes
    ----------
    ranges : tuple of (int, int)
        First page, and number of pages, of each such region.
    """

    ranges: tuple[tuple[int, int], ...] = ()

    def protect(self, page: int, count: int) -> None:
        """Stop the writers of those pages that are shared here."""
        for first, pages in self._within(page, count):
            super().protect(first, pages)

    def unprotect(self, page: int, count: int) -> None:
        """Let the writers of those pages go on that are shared here."""
        for first, pages in self._within(page, count):
            super().unprotect(first, pages)

    def _within(self, page: int, count: int) -> Iterator[tuple[int, int]]:
        for first, pages in self.ranges:
            begin, end = max(first, page), min(first + pages, page + count)
            if begin < end:
                yield begin, end - begin
