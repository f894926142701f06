"""The arena: one sparse memfd that holds the frames of every tiered array, seen from either side.

Page ``p`` of the arena is at byte ``p * page_size`` of the file, always. What varies is whether it is there: a frame is
the right to have one page of the file in memory, and the DRAM budget is a number of frames. The program maps the file
shared, and so does every process that shares its arrays, each registered with a userfaultfd of its own; the pager never
maps it, it reads it with preadv(2), so no page table of the pager's grows and a hole has no mapping of ours to unmap.

With more than one mapping, three rules keep them alike:

- Writers are stopped in all of them before a page is copied down, and before a clean page comes up: where a mapping
  does not have the page yet, the kernel leaves a marker that its page will be write-protected when it comes.
- A page comes up through one mapping. In the others it is there for whoever touches it, and their waiters are woken.
- A mapping that is new has every page that is there write-protected first: which of them are clean, or on their way
  down, it need not know. A write too many is asked for; none goes unseen.
"""

from __future__ import annotations

import contextlib
import errno
import os
import threading
from collections.abc import Callable, Iterable, Iterator

from thermocline.live import libc
from thermocline.live.buffer import Buffer
from thermocline.live.mapping import Mapping
from thermocline.protocol.recovery import Presence

#: st_blocks counts these (stat(2)).
_BLOCK = 512


class Arena:
    """The pager's view of an arena.

    Parameters
    ----------
    fd : int
        The memfd.
    mappings : iterable of Mapping
        Where it is mapped, and every page that came up knows of it.

    Attributes
    ----------
    last_faulted : Mapping or None
        Whose fault was read last: what is brought up is brought up there.
    """

    def __init__(self, fd: int, page_size: int, mappings: Iterable[Mapping]) -> None:
        self.fd = fd
        self.page_size = page_size
        self.mappings = tuple(mappings)
        self.last_faulted: Mapping | None = None
        #: Held while a page comes up, by whatever thread, so that a mapping is there for all of it or for none of it.
        self._coming_up = threading.Lock()

    @property
    def address(self) -> int:
        """Where the oldest of its processes has it: the program, if it is there."""
        return self.mappings[0].address if self.mappings else 0

    # -- mappings -----------------------------------------------------------------------------------------------------

    def attach(self, mapping: Mapping) -> None:
        """Take a mapping that no page has come to yet. Done again, should this pager be killed at it."""
        with self._coming_up:
            self.mappings = (*self.mappings, mapping)
            with contextlib.suppress(ProcessLookupError):
                for page, count in self.present_runs():
                    mapping.protect(page, count)

    def detach(self, mapping: Mapping) -> None:
        """Forget the mapping of a process that is gone. What belongs to it may be closed from then on."""
        with self._coming_up:
            self.mappings = tuple(other for other in self.mappings if other is not mapping)
            if self.last_faulted is mapping:
                self.last_faulted = None

    def _everywhere(self, do: Callable[[Mapping], None]) -> None:
        """Do something in all mappings but those of processes that have just gone."""
        for mapping in self.mappings:
            try:
                do(mapping)
            except ProcessLookupError:
                continue

    def _through_one(self, do: Callable[[Mapping], None], at: int, size: int) -> None:
        """Make bytes appear through one mapping, the likeliest first, and wake the waiters of the others."""
        mappings = self.mappings
        if len(mappings) > 1:
            mappings = tuple(sorted(mappings, key=lambda mapping: mapping is not self.last_faulted))
        for mapping in mappings:
            try:
                do(mapping)
            except ProcessLookupError:
                continue
            if len(mappings) > 1:
                self.wake(*self._pages_of(at, size))
            return
        raise ProcessLookupError(errno.ESRCH, "every process of this memory is gone")

    # -- pages --------------------------------------------------------------------------------------------------------

    def read(self, at: int, size: int, buffer: Buffer, offset: int) -> None:
        """Read a stretch that is there into a buffer."""
        got = os.preadv(self.fd, [buffer.view[offset : offset + size]], at)
        if got != size:
            raise OSError(f"arena: read {got} of {size} bytes at {at}")

    def install(self, at: int, size: int, buffer: Buffer, offset: int, *, protect: bool) -> None:
        """Make a stretch, in whole base pages, appear with these bytes, and wake those that wait for it."""
        with self._coming_up:
            source = buffer.address + offset
            if len(self.mappings) == 1:  # as it mostly is, and a fault waits for this
                self.mappings[0].copy(at, size, source, protect=protect)
                return
            if protect:
                self.protect(*self._pages_of(at, size))
            self._through_one(lambda mapping: mapping.copy(at, size, source, protect=protect), at, size)

    def install_zeros(self, at: int, size: int) -> None:
        """Make a stretch of zeros appear, writable, and wake those that wait for it."""
        with self._coming_up:
            self._through_one(lambda mapping: mapping.zero(at, size), at, size)

    def _pages_of(self, at: int, size: int) -> tuple[int, int]:
        """The pages that a stretch touches: the first, and how many."""
        first = at // self.page_size
        return first, -(-(at + size) // self.page_size) - first

    def protect(self, page: int, count: int) -> None:
        """Stop the writers of pages, wherever they are mapped or will be."""
        self._everywhere(lambda mapping: mapping.protect(page, count))

    def unprotect(self, page: int, count: int) -> None:
        """Let the writers of resident pages go on."""
        self._everywhere(lambda mapping: mapping.unprotect(page, count))

    def wake(self, page: int, count: int = 1) -> None:
        """Make the waiters of pages fault again."""
        self._everywhere(lambda mapping: mapping.wake(page, count))

    def poison(self, page: int) -> list[Mapping]:
        """Make every touch of an absent page a SIGBUS -> where this kernel cannot (before Linux 6.6)."""
        unable: list[Mapping] = []

        def poison(mapping: Mapping) -> None:
            # A page that was demoted leaves a write-protect marker behind, which the kernel takes for a page.
            mapping.unprotect(page, 1)
            try:
                mapping.poison(page)
            except OSError as error:
                if error.errno not in (errno.EINVAL, errno.ENOTTY):
                    raise
                unable.append(mapping)

        self._everywhere(poison)
        return unable

    def punch(self, page: int, count: int) -> None:
        """Free the frames of pages and unmap them everywhere."""
        libc.punch_hole(self.fd, page * self.page_size, count * self.page_size)

    def resident(self) -> int:
        """Bytes of the arena that are in memory, by the kernel's account."""
        return os.fstat(self.fd).st_blocks * _BLOCK

    def present_runs(self) -> Iterator[tuple[int, int]]:
        """Runs of pages of which any byte is in memory: first page, and how many."""
        for begin, end in self._data():
            yield self._pages_of(begin, end - begin)

    def _data(self) -> Iterator[tuple[int, int]]:
        return libc.data_extents(self.fd, 0, os.fstat(self.fd).st_size)

    def presence(self, parts: int) -> dict[int, Presence]:
        """Which of so many parts are in memory of every page of which any byte is."""
        found: dict[int, Presence] = {}
        size = self.page_size // parts
        nothing = Presence(0, 0)
        for begin, end in self._data():
            for page in range(begin // self.page_size, -(-end // self.page_size)):
                at = page * self.page_size
                first, last = max(begin - at, 0), min(end - at, self.page_size)
                before = found.get(page, nothing)
                found[page] = Presence(
                    before.any | _bits(first // size, -(-last // size)),
                    before.whole | _bits(-(-first // size), last // size),
                )
        return found


def _bits(first: int, end: int) -> int:
    """The bits from one number to before another."""
    return (1 << end) - (1 << first) if first < end else 0
