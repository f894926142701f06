"""The arena: one sparse memfd that holds the frames of every tiered array, seen from either side.

Page ``p`` of the arena is at byte ``p * page_size`` of the file, always. What varies is whether it is there: a frame is
the right to have one page of the file in memory, and the DRAM budget is a number of frames. The program maps the file
shared, and so does every process that shares its arrays, each registered with a userfaultfd of its own; the pager never
maps it, it reads it with preadv(2), so no page table of the pager's grows and a hole has no mapping of ours to unmap.

Forked children map the file *privately*: they read its frames, and have copies of their own of what they write, and of
what the program has written since (see :mod:`thermocline.live.copies`). Nothing comes up through them.

With more than one shared mapping, three rules keep them alike:

- Writers are stopped in all of them before a page is copied down, and before a clean page comes up: where a mapping
  does not have the page yet, the kernel leaves a marker that its page will be write-protected when it comes.
- A page comes up through one mapping. In the others it is there for whoever touches it, and their waiters are woken.
- A mapping that is new has every page that is there write-protected first: which of them are clean, or on their way
  down, it need not know. A write too many is asked for; none goes unseen.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import mmap
import os
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence

from thermocline.live import libc
from thermocline.live.buffer import Buffer
from thermocline.live.jobs import FillJob, Jobs, PunchJob
from thermocline.live.mapping import Mapping, SharedRanges, half_of
from thermocline.native import library
from thermocline.protocol.page import Column, array_column
from thermocline.protocol.recovery import Presence

#: st_blocks counts these (stat(2)).
_BLOCK = 512
#: Bytes that one page table of the lowest level maps, on machines whose base pages have 4 KiB; a hint elsewhere.
_PAGE_TABLE = 2 << 20


class Arena:
    """The pager's view of an arena.

    Parameters
    ----------
    fd : int
        The memfd.
    mappings : iterable of Mapping
        Where it is mapped, and every page that came up knows of it.
    jobs : Jobs or None
        What brings pages up beside this object, through the only mapping. They are waited for before that changes.
    given : column
        Up to which fork each page was given (:attr:`PageTable.given <thermocline.protocol.page.PageTable>`).

    Attributes
    ----------
    last_faulted : Mapping or None
        Whose fault was read last: what is brought up is brought up there.
    """

    def __init__(
        self,
        fd: int,
        page_size: int,
        mappings: Iterable[Mapping],
        given: Column | None = None,
        jobs: Jobs | None = None,
    ) -> None:
        self.fd = fd
        self._jobs = jobs
        self.page_size = page_size
        self.mappings = tuple(mappings)
        self.last_faulted: Mapping | None = None
        #: The newest fork that has begun and whose child, or another one, may be owed pages; 0: none is.
        self.newest_fork = 0
        pages = os.fstat(fd).st_size // page_size
        self._given = array_column("I", pages) if given is None else given
        #: Per page, 1: no process may write to what is there of it. 0: one may, or this pager has not seen to it.
        self.stopped = Buffer(pages).view
        self._zeros: Buffer | None = None
        #: Held while a page comes up, by whatever thread, so that a mapping is there for all of it or for none of it.
        self._coming_up = threading.Lock()

    @property
    def address(self) -> int:
        """Where the oldest of its processes has it: the program, if it is there."""
        return self.mappings[0].address if self.mappings else 0

    # -- mappings -----------------------------------------------------------------------------------------------------

    def attach(self, mapping: Mapping) -> None:
        """Take a mapping that no page has come to yet. Done again, should this pager be killed at it."""
        with self._nothing_coming_up():
            self.mappings = (*self.mappings, mapping)
            if not mapping.is_private:
                with contextlib.suppress(ProcessLookupError):
                    for page, count in self.present_runs():
                        mapping.protect(page, count)

    @property
    def shared(self) -> tuple[Mapping, ...]:
        """The mappings that see what comes up, and whose writes others see."""
        return tuple(mapping for mapping in self.mappings if not mapping.is_private)

    def private(self, children: Collection[int]) -> tuple[Mapping, ...]:
        """The mappings of forked children that see the arrays as they were, by number."""
        return tuple(mapping for mapping in self.mappings if mapping.is_private and mapping.number in children)

    def protect_present(self) -> None:
        """Stop the writers of all that is there: a fork is about to be made.

        What has not been written since the last one is passed over: the kernel would go through its page tables again.
        """
        with self._nothing_coming_up():
            for page, count in self.writable_runs():
                self.protect(page, count)

    def writable_runs(self) -> Iterator[tuple[int, int]]:
        """Runs of pages that may be written to: first page, and how many.

        Absent pages are among them where a page table exists anyway. The kernel is asked once for each page table
        whether it has data there; to find every hole, it would look up every page.
        """
        covered = max(_PAGE_TABLE // self.page_size, 1)
        begin = pages = 0
        for table in self._tables_with_data(covered * self.page_size):
            first = table * covered
            for at, count in _runs_of_zeros(self.stopped[first : first + covered]):
                if begin + pages != first + at:
                    if pages:
                        yield begin, pages
                    begin, pages = first + at, 0
                pages += count
        if pages:
            yield begin, pages

    def _tables_with_data(self, covered: int) -> Iterator[int]:
        """Which stretches of so many bytes have any in memory."""
        at = 0
        while (data := libc.next_data(self.fd, at)) is not None:
            yield data // covered
            at = (data // covered + 1) * covered

    def cover(self, number: int, first: int, count: int) -> None:
        """A process that shares the arrays has mapped more of the arena: stop its writers of what is there."""
        begin, end = first * self.page_size, (first + count) * self.page_size
        with self._nothing_coming_up():
            for mapping in self.mappings:
                if mapping.number != number or mapping.is_private:
                    continue
                with contextlib.suppress(ProcessLookupError):
                    for page, present in self._runs_within(begin, end):
                        mapping.protect(page, present)

    def detach(self, mapping: Mapping) -> None:
        """Forget the mapping of a process that is gone. What belongs to it may be closed from then on."""
        with self._nothing_coming_up():
            self.mappings = tuple(other for other in self.mappings if other is not mapping)
            if self.last_faulted is mapping:
                self.last_faulted = None

    @contextlib.contextmanager
    def _nothing_coming_up(self) -> Iterator[None]:
        """While no page comes up. In the pager's thread, which is the one that submits jobs."""
        with self._coming_up:
            if self._jobs is not None:
                self._jobs.drain()
            yield

    def _everywhere(self, do: Callable[[Mapping], object], mappings: Iterable[Mapping]) -> None:
        """Do something in mappings, but not in those of processes that have just gone."""
        for mapping in mappings:
            try:
                do(mapping)
            except ProcessLookupError:
                continue

    def _come_up(self, at: int, size: int, buffer: Buffer, offset: int, *, protect: bool) -> None:
        """Make bytes appear through one shared mapping, the likeliest first, and wake the waiters of the others."""
        source = buffer.address + offset
        pages = self._pages_of(at, size)
        if protect:
            self.protect(*pages)
        else:
            self._note_writers(*pages)
        for mapping in sorted(self.shared, key=lambda mapping: mapping is not self.last_faulted):
            if isinstance(mapping, SharedRanges):
                continue
            try:
                mapping.copy(at, size, source, protect=protect)
            except ProcessLookupError:
                continue
            except FileNotFoundError:
                if size <= mmap.PAGESIZE:
                    continue  # its process has not got it mapped
                half = half_of(size)
                self._come_up(at, half, buffer, offset, protect=protect)
                self._come_up(at + half, size - half, buffer, offset + half, protect=protect)
                return
            break
        else:
            if not self.mappings:
                raise ProcessLookupError(errno.ESRCH, "every process of this memory is gone")
            # No process that writes to frames has it mapped: forked children do not. Else newer bytes could be written
            # over, for the kernel may show the end of what it writes before it has written that.
            os.pwritev(self.fd, [buffer.view[offset : offset + size]], at)
        self.wake(*pages)

    # -- pages --------------------------------------------------------------------------------------------------------

    def read(self, at: int, size: int, buffer: Buffer, offset: int) -> None:
        """Read a stretch that is there into a buffer."""
        got = os.preadv(self.fd, [buffer.view[offset : offset + size]], at)
        if got != size:
            raise OSError(f"arena: read {got} of {size} bytes at {at}")

    def install(self, at: int, size: int, buffer: Buffer, offset: int, *, protect: bool) -> None:
        """Make a stretch, in whole base pages, appear with these bytes, and wake those that wait for it."""
        with self._coming_up:
            mapping = self.only
            if mapping is not None:  # as it mostly is, and a fault waits for this
                if not protect:
                    self._note_writers(*self._pages_of(at, size))
                with contextlib.suppress(FileNotFoundError):  # several mappings, or an array that is being freed
                    mapping.copy(at, size, buffer.address + offset, protect=protect)
                    return
            # Looked at only now: a fork may have begun while the bytes were read.
            protect = protect or self._may_owe(*self._pages_of(at, size))
            self._come_up(at, size, buffer, offset, protect=protect)

    def install_by(self, job: FillJob, pages: Sequence[int], gaps: Sequence[tuple[int, int]], *, protect: bool) -> bool:
        """Let a job :meth:`install` what is missing of contiguous pages -> False, where it has to be done here.

        That is where there are several mappings, or a fork is under way.
        """
        mapping = self.only
        if mapping is None:
            return False
        if not protect:
            self._note_writers(pages[0], len(pages))
        job.install(pages[0] * self.page_size, gaps, mapping.uffd.fd, mapping.address, protect=protect)
        return True

    def install_zeros(self, at: int, size: int) -> None:
        """Make a stretch of zeros appear, writable if no child is owed them, and wake those that wait for it."""
        with self._coming_up:
            mapping = self.only
            if mapping is not None:
                self._note_writers(*self._pages_of(at, size))
                with contextlib.suppress(FileNotFoundError):
                    mapping.zero(at, size)
                    return
            if self._zeros is None or self._zeros.size < size:
                self._zeros = Buffer(size)
            self._come_up(at, size, self._zeros, 0, protect=self._may_owe(*self._pages_of(at, size)))

    @property
    def only(self) -> Mapping | None:
        """The only mapping, if there is one, and no fork under way."""
        if len(self.mappings) == 1 and not self.newest_fork and not self.mappings[0].is_private:
            return self.mappings[0]
        return None

    def _may_owe(self, page: int, count: int) -> bool:
        """Whether a child may be owed any of some pages. In any thread, so no region is looked up."""
        return any(self._given[owed] < self.newest_fork for owed in range(page, page + count))

    def _pages_of(self, at: int, size: int) -> tuple[int, int]:
        """The pages that a stretch touches: the first, and how many."""
        first = at // self.page_size
        return first, -(-(at + size) // self.page_size) - first

    def protect(self, page: int, count: int) -> None:
        """Stop the writers of pages, wherever they are mapped or will be."""
        self._everywhere(lambda mapping: mapping.protect(page, count), self.shared)
        self.stopped[page : page + count] = b"\1" * count

    def _note_writers(self, page: int, count: int) -> None:
        """Pages are about to be writable."""
        self.stopped[page : page + count] = bytes(count)

    def unprotect(self, page: int, count: int) -> None:
        """Let the writers of resident pages go on."""
        self._note_writers(page, count)
        self._everywhere(lambda mapping: mapping.unprotect(page, count), self.shared)

    def wake(self, page: int, count: int = 1) -> None:
        """Make the waiters of pages fault again."""
        self._everywhere(lambda mapping: mapping.wake(page, count), self.mappings)

    def poison(self, page: int, *, owed: bool = False) -> list[Mapping]:
        """Make every touch of an absent page a SIGBUS -> where this kernel cannot (before Linux 6.6).

        What is there of a page that a child is ``owed`` stays write-protected.
        """
        unable: list[Mapping] = []
        self._note_writers(page, 1)
        begin = page * self.page_size
        keeps = owed and any(libc.data_extents(self.fd, begin, begin + self.page_size))

        def poison(mapping: Mapping) -> None:
            # A page that was demoted leaves a write-protect marker behind, which the kernel takes for a page.
            if not mapping.is_private and not keeps:
                mapping.unprotect(page, 1)
            try:
                mapping.poison(page)
            except OSError as error:
                if error.errno not in (errno.EINVAL, errno.ENOTTY):
                    raise
                unable.append(mapping)

        self._everywhere(poison, self.mappings)
        return unable

    def punch(self, page: int, count: int) -> None:
        """Free the frames of pages and unmap them everywhere."""
        libc.punch_hole(self.fd, page * self.page_size, count * self.page_size)

    def punch_all(self, pages: Sequence[int]) -> None:
        """:meth:`punch` pages, ascending, in one step that does not hold the interpreter."""
        check_punched(
            library().tc_punch(
                ctypes.c_int(self.fd),
                ctypes.c_uint64(self.page_size),
                (ctypes.c_uint32 * len(pages))(*pages),
                ctypes.c_size_t(len(pages)),
            )
        )

    def punch_job(self, pages: Sequence[int]) -> PunchJob:
        """:meth:`punch_all` as a job."""
        return PunchJob.of(self.fd, self.page_size, pages)

    def resident(self) -> int:
        """Bytes of the arena that are in memory, by the kernel's account."""
        return os.fstat(self.fd).st_blocks * _BLOCK

    def present_runs(self) -> Iterator[tuple[int, int]]:
        """Runs of pages of which any byte is in memory: first page, and how many."""
        return self._runs_within(0, os.fstat(self.fd).st_size)

    def _runs_within(self, begin: int, end: int) -> Iterator[tuple[int, int]]:
        for first, last in libc.data_extents(self.fd, begin, end):
            yield self._pages_of(first, last - first)

    def presence(self, parts: int) -> dict[int, Presence]:
        """Which of so many parts are in memory of every page of which any byte is."""
        found: dict[int, Presence] = {}
        size = self.page_size // parts
        nothing = Presence(0, 0)
        for begin, end in libc.data_extents(self.fd, 0, os.fstat(self.fd).st_size):
            for page in range(begin // self.page_size, -(-end // self.page_size)):
                at = page * self.page_size
                first, last = max(begin - at, 0), min(end - at, self.page_size)
                before = found.get(page, nothing)
                found[page] = Presence(
                    before.any | _bits(first // size, -(-last // size)),
                    before.whole | _bits(-(-first // size), last // size),
                )
        return found


def check_punched(error: int) -> None:
    """Raise OSError unless what punched pages ended with 0."""
    if error:
        raise OSError(error, f"fallocate: {os.strerror(error)}")


def _bits(first: int, end: int) -> int:
    """The bits from one number to before another."""
    return (1 << end) - (1 << first) if first < end else 0


def _runs_of_zeros(flags: memoryview) -> Iterator[tuple[int, int]]:
    """Runs of bytes that are 0: the first, and how many."""
    found = bytes(flags)
    begin = found.find(0)
    while begin >= 0:
        end = found.find(1, begin)
        if end < 0:
            end = len(found)
        yield begin, end - begin
        begin = found.find(0, end)
