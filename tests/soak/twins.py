"""A tiered array and a plain one that shows what is right, in every process that has the two.

The plain one is shared, too: a file that all processes which use the array have mapped. So the writes of a child or a
guest show all others what they must read from then on.
"""

import errno
import mmap
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

#: Processes that work on an array at the same time have parts of its pages to themselves, so many of each.
LANES = 8
#: What a system call says of a page that is lost: EFAULT, EHWPOISON.
LOST = (errno.EFAULT, 133)


class WrongError(Exception):
    """What must not be."""


class Twins:
    """The two of them.

    Where pages may get lost, the tiered one is touched by system calls only, page by page: those get an error where the
    process would be ended. A page that was lost once stays so, for everybody.

    Parameters
    ----------
    plain : Path
        The file of the plain one: its bytes, and behind them one for each page, which is 1 when that page is lost.
    first : int
        The first page of the tiered one.
    page : int
        Bytes of one.
    """

    def __init__(self, tiered: np.ndarray, plain: Path, first: int, page: int, *, lossy: bool) -> None:
        self.tiered = tiered
        self.first = first
        self.page = page
        self.lossy = lossy
        self.found_lost: list[int] = []
        size, pages = len(tiered), -(-len(tiered) // page)
        with open(plain, "r+b" if plain.exists() else "w+b") as file:
            file.truncate(size + pages)
            both = np.frombuffer(mmap.mmap(file.fileno(), size + pages), "u1")
        self.plain, self.lost = both[:size], both[size:]

    def __len__(self) -> int:
        return len(self.plain)

    def compare(self, start: int = 0, stop: int | None = None, step: int = 1) -> None:
        """See that what is read is what was last written."""
        if not self.lossy:
            differ = np.flatnonzero(self.tiered[start:stop:step] != self.plain[start:stop:step])
            if len(differ):
                at = start + step * int(differ[0])
                raise WrongError(
                    f"{len(differ)} bytes of page {self.first + at // self.page} and others, first byte {at}"
                )
            return

        def compare(file: int, begin: int, end: int) -> None:
            if self._read(file, begin, end) != self.plain[begin:end].tobytes():
                raise WrongError(f"page {self.first + begin // self.page} is not what was last written")

        self._page_by_page(compare, start, stop, step)

    def write(self, start: int, stop: int, change: Callable[[np.ndarray], Any], step: int = 1) -> None:
        """Change both alike, the tiered one first (see :meth:`adopt`)."""
        if not self.lossy:
            for array in (self.tiered, self.plain):
                array[start:stop:step] = change(array[start:stop:step])
            return
        self.compare(start, stop, step)
        right = self.plain[start:stop].copy()
        right[::step] = change(right[::step])

        def write(file: int, begin: int, end: int) -> None:
            os.pwrite(file, right[begin - start : end - start].data, 0)
            self._all_of(begin, end, "written", lambda part, at: os.preadv(file, [part], at))

        self._page_by_page(write, start, stop, step)
        self.plain[start:stop] = right

    def add(self, lane: int) -> None:
        """Add one to all bytes of a lane, which others have nothing to do with, and see that nobody else has."""
        size = self.page // LANES
        for begin in range(lane * size, len(self), self.page):
            end = min(begin + size, len(self))
            self.write(begin, end, lambda old: old + 1)
            self.compare(begin, end)

    def adopt(self, start: int, new: np.ndarray) -> None:
        """Take it as it is: who wrote ``new`` was killed at it. Each byte is the old one or the new one."""

        def adopt(read: Callable[[int, int], np.ndarray], begin: int, end: int) -> None:
            there, plain = read(begin, end), self.plain[begin:end]
            torn = np.flatnonzero((there != new[begin - start : end - start]) & (there != plain))
            if len(torn):
                raise WrongError(f"byte {begin + torn[0]} was neither there before nor written")
            plain[:] = there

        if not self.lossy:
            adopt(lambda begin, end: self.tiered[begin:end], start, start + len(new))
            return

        def adopt_page(file: int, begin: int, end: int) -> None:
            adopt(lambda begin, end: np.frombuffer(self._read(file, begin, end), "u1"), begin, end)

        self._page_by_page(adopt_page, start, start + len(new))

    def _read(self, file: int, begin: int, end: int) -> bytes:
        """Part of a page, by way of a file."""
        self._all_of(begin, end, "read", lambda part, at: os.pwrite(file, part, at))
        return os.pread(file, end - begin, 0)

    def _all_of(self, begin: int, end: int, what: str, move: Callable[[memoryview, int], int]) -> None:
        """Move bytes of a page, from an offset on: where only some parts of it are there, a call may end at one."""
        done = 0
        while begin + done < end:
            moved = move(self.tiered[begin + done : end].data, done)
            if not moved:
                raise WrongError(f"page {self.first + begin // self.page}, of which {done} bytes were {what}")
            done += moved

    def _page_by_page(
        self, touch: Callable[[int, int, int], None], start: int, stop: int | None, step: int = 1
    ) -> None:
        end = len(self) if stop is None else stop
        file = os.memfd_create("scratch")
        try:
            for page in sorted({at // self.page for at in range(start, end, step)}):
                begin = max(start, page * self.page)
                was_lost = self.lost[page]
                try:
                    touch(file, begin, min(end, (page + 1) * self.page))
                except OSError as error:
                    if error.errno not in LOST:
                        raise
                    if not self.lost[page]:
                        self.lost[page] = 1
                        self.found_lost.append(self.first + page)
                else:
                    if was_lost:
                        raise WrongError(f"page {self.first + page} was lost and can be read again")
        finally:
            os.close(file)
