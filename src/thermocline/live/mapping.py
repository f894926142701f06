"""A mapping of the arena in one process, as the pager sees it: an address and a userfaultfd."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from thermocline.live.userfaultfd import UserFaultFd


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

        Where the mapping is private, the copy is its process's own.
        """
        return self.uffd.copy(self.address + at, source, size, protect=protect)

    def zero(self, at: int, size: int) -> bool:
        """Make a stretch of zeros appear, writable, and wake its waiters -> if nothing was there."""
        return self.uffd.zero(self.address + at, size)

    def see_touches(self, page: int, count: int) -> bool:
        """Let the first touch of a page here be a fault, even if the page is in memory -> whether the kernel can."""
        try:
            self.uffd.register_minor(*self._place(page, count))
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            return False
        return True

    def map_present(self, at: int, size: int) -> None:
        """Map a stretch that is in memory, and wake its waiters."""
        self.uffd.map_present(self.address + at, size)

    def protect(self, page: int, count: int) -> None:
        """Stop the writers of pages here, present or to come. Where a page is not mapped, there are none."""
        self._wherever_mapped(self.uffd.write_protect, page, count)

    def unprotect(self, page: int, count: int) -> None:
        """Let the writers of pages go on."""
        self._wherever_mapped(self.uffd.write_unprotect, page, count)

    def _wherever_mapped(self, do: Callable[[int, int], None], page: int, count: int) -> None:
        try:
            do(*self._place(page, count))
        except FileNotFoundError:
            # Not all of it is mapped, or (before Linux 6.4) not as one: then nothing has been done.
            for each in range(page, page + count if count > 1 else page):
                self._wherever_mapped(do, each, 1)

    def wake(self, page: int, count: int) -> None:
        """Make the waiters of pages fault again."""
        self.uffd.wake(*self._place(page, count))

    def poison(self, page: int) -> None:
        """Make every touch of an absent page a SIGBUS. Where it is not mapped, it cannot be touched."""
        with contextlib.suppress(FileNotFoundError):
            self.uffd.poison(*self._place(page, 1))

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
