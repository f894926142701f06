"""Everything that one tiered memory has open in the program, and the helper processes that belong to it.

The arena is mapped here and registered with userfaultfd; the supervisor gets a duplicate of every descriptor.

Other processes may use the arrays (see :mod:`thermocline.live.attachment`): forked children, which see them as they
were, and processes that were sent a handle. They cannot make any, nor free what they have: the books are the program's.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from thermocline.errors import ClosedError, SpecError, ThermoclineError
from thermocline.live import fence, foster, injection, launch, limits, overcommit
from thermocline.live.address_space import address_space
from thermocline.live.attachment import Attachment, Door
from thermocline.live.channel import Channel
from thermocline.live.children import Children
from thermocline.live.commitment import Commitment
from thermocline.live.config import Config, chosen_engine
from thermocline.live.descriptor import Descriptor
from thermocline.live.guard import Teardown
from thermocline.live.guest import Guest, Ticket, forget_program, welcome_program
from thermocline.live.mapped import Mapped, OccupiedError
from thermocline.live.placement import place_arena
from thermocline.live.requests import Requests
from thermocline.live.stores import STORES
from thermocline.live.tables import MAX_PAGES, MAX_SHARES, MAX_SOURCES, Tables
from thermocline.live.userfaultfd import open_userfaultfd
from thermocline.native import library
from thermocline.protocol.group import GroupReclaim
from thermocline.sizes import format_size
from thermocline.spec import File, NodeSpec

#: Address range of the arena, in multiples of what the machine has, where what the kernel would grant is allocated; and
#: the most of it.
_GRANTED_SPREAD, _MOST_GRANTED = 2, 4 << 40


class FileRange(NamedTuple):
    """A stretch of an open file, in bytes."""

    fd: int
    offset: int
    length: int


@dataclass(frozen=True)
class Settings:
    """What the pager is told of the user's choices (see :class:`thermocline.memory.Memory`)."""

    design: str = "batch"
    discard_clean: bool = False
    readahead_pages: int = 32
    group_reclaim: str = GroupReclaim.LEFT.value
    parts: bool = True
    fork: str = "copy"
    commit: str = "strict"
    poll: bool = True


class Session:
    """One tiered memory, from the program's side.

    Parameters
    ----------
    nodes : sequence of NodeSpec
        The demotion path, DRAM first.
    page_size : int
        Bytes.
    report : int
        Descriptor that the last statistics are written to, -1 for none. It is closed here.

    Attributes
    ----------
    address, size : int
        Where the arena is mapped, and how many bytes.
    pages : int
        Pages of that range.
    teardown : Teardown
        What is done when the session is closed.
    released : callable
        Called, at any moment, when this process has let go of an array that came back to it as a handle.
    """

    def __init__(self, nodes: Sequence[NodeSpec], page_size: int, settings: Settings, report: int = -1) -> None:
        self.nodes = tuple(nodes)
        self.page_size = page_size
        overcommits = settings.commit == "heuristic"
        self.commitment = Commitment(self.nodes, page_size, overcommit.grants if overcommits else None)
        self.pages = limits.SPREAD * self.commitment.limit + 1
        if overcommits:
            granted = min(_GRANTED_SPREAD * overcommit.machine_bytes(), _MOST_GRANTED, limits.largest_file())
            self.pages = max(self.pages, min(granted // page_size, MAX_PAGES))
        self.pages = min(self.pages, limits.most_pages(page_size) or self.pages)
        if self.pages > MAX_PAGES:
            most = format_size(MAX_PAGES // limits.SPREAD * page_size)
            raise SpecError(
                f"pages of {format_size(page_size)} can be counted up to {most}, and the nodes hold more; "
                "write a larger page_size, or smaller nodes"
            )
        limits.check(self.nodes, self.pages, page_size)
        self.size = self.pages * page_size
        self.released: Callable[[], object] = lambda: None
        self.closed = False
        self._served_to_the_end = False
        self._process = os.getpid()
        self._sources = 0
        self._free_sources: list[int] = []
        self.teardown = Teardown()
        self._self_as_guest: Guest | None = None
        self._tickets = 0
        inject = os.environ.get("THERMOCLINE_INJECT", "")
        if inject:
            injection.parse(inject)  # a mistake in it is the program's to hear of
        self._engine = chosen_engine()
        try:
            self._open(settings, report, inject)
        except OSError as error:
            explained = limits.explained(error)
            if explained is error:
                raise
            raise explained from error

    def _open(self, settings: Settings, report: int, inject: str) -> None:
        """Open everything, and start the helper processes; or nothing is open."""
        library()  # needs memory, and numbers to open it, and what is opened from now on needs it to be closed
        undo = self.teardown
        undo.callback(foster.reap)
        with contextlib.ExitStack() as failed, contextlib.ExitStack() as attached:
            failed.callback(undo.close)
            opened = open_userfaultfd()
            uffd = Descriptor.opened(opened.fd)
            attached.callback(uffd.close)
            self._arena = Descriptor.opened(os.memfd_create("thermocline-arena", os.MFD_CLOEXEC))
            undo.callback(self._arena.close)
            self.tables = Tables.create(self.pages)
            undo.callback(self.tables.close)
            self.children = Children(self.tables)
            self.commitment.failed_nodes = lambda: self.tables.header[Tables.HEADER_FAILED_NODES]
            undo.callback(self.commitment.close)
            self.requests = Requests(self.tables)
            self.address = self._place(undo)
            mapped = self._map(uffd, undo)
            peer, lifeline = self._start(uffd, settings, report, inject, attached)
            self.attachment = Attachment(
                self._arena,
                mapped,
                self.address,
                peer=peer,
                lifeline=lifeline,
                uffd=uffd,
                features=opened.features,
                serves_system_calls=opened.serves_system_calls,
                door=self.door,
                number=0,
                copies=settings.fork == "copy",
            )
            attached.pop_all()
            undo.callback(self._detach)
            failed.pop_all()

    def _place(self, undo: Teardown) -> int:
        """Find addresses for the arena -> where they begin."""
        space = address_space()
        fence.prepare(space.low, space.high)
        address = space.take(self.size)

        def give_addresses() -> None:
            if not self._served_to_the_end:
                space.give(address)

        undo.callback(give_addresses)
        return address

    def _map(self, uffd: Descriptor, undo: Teardown) -> Mapped:
        """Map the first unit of the arena, in which the first arrays will be: what fails here fails now."""
        os.ftruncate(self._arena.fileno(), self.size)
        mapped = Mapped(self.address, self.size, lambda: (self._arena.fileno(), uffd.fileno()))
        undo.callback(lambda: None if self._served_to_the_end else mapped.close())
        mapped.cover(0, 1, self._place_frames)
        return mapped

    def _place_frames(self, begin: int, end: int) -> None:
        """Say where the frames of a stretch that was mapped come from."""
        place_arena(self.nodes, self.address + begin, end - begin)

    def cover(self, first: int, count: int) -> bool:
        """Map pages that a block is going to have -> False: something else is there. One thread at a time.

        Raises
        ------
        MappingError, DescriptorError
            They cannot be mapped (see :meth:`Mapped.cover <thermocline.live.mapped.Mapped.cover>`).
        """
        size = self.page_size
        try:
            self.attachment.mapped.cover(first * size, (first + count) * size, self._place_frames)
        except OccupiedError:
            return False
        return True

    def uncover(self, free: range) -> None:
        """Unmap pages that nothing is in here. One thread at a time."""
        self.attachment.mapped.uncover(free.start * self.page_size, free.stop * self.page_size)

    def _start(
        self, uffd: Descriptor, settings: Settings, report: int, inject: str, undo: contextlib.ExitStack
    ) -> tuple[Channel, Channel]:
        """Open the stores and the sockets, and start the supervisor with all that is open -> control and lifeline."""
        with contextlib.ExitStack() as handed_over:

            def handed(fd: int) -> int:
                """A descriptor that is the supervisor's when it has started."""
                descriptor = Descriptor.opened(fd)
                handed_over.callback(descriptor.close)
                return descriptor.number

            report = handed(report) if report >= 0 else -1
            control, theirs = Channel.pair(socket.SOCK_SEQPACKET)
            undo.callback(control.close)
            handed_over.callback(theirs.close)
            lifeline, their_lifeline = Channel.pair(socket.SOCK_STREAM)
            undo.callback(lifeline.close)
            handed_over.callback(their_lifeline.close)
            self.door, listener = Door.open()
            listening = handed(listener.detach())
            saved = handed(os.memfd_create("thermocline-saved", os.MFD_CLOEXEC))
            os.ftruncate(saved, self.size)
            program = handed(os.pidfd_open(self._process))
            stores = []
            for spec in self.nodes[1:]:
                fds = () if spec.is_mapped else STORES[type(spec)].create(spec, self.page_size, self.pages)
                stores.append([handed(fd) for fd in fds])
                if isinstance(spec, File):
                    self.commitment.watch(stores[-1][0], spec.directory)
            launch.start(
                Config(
                    nodes=self.nodes,
                    page_size=self.page_size,
                    pages=self.pages,
                    arena_address=self.address,
                    program=program,
                    uffd=uffd.fileno(),
                    arena=self._arena.fileno(),
                    tables=self.tables.fd,
                    control=theirs.number,
                    lifeline=their_lifeline.number,
                    door=listening,
                    secret=self.door.secret,
                    saved=saved,
                    report=report,
                    inject=inject,
                    engine=self._engine,
                    stores=stores,
                    **vars(settings),
                )
            )
        launch.hold_lifeline(lifeline)
        return control, lifeline

    @property
    def usable(self) -> bool:
        """Whether this process may use the books of the memory: not closed, and not a forked child."""
        return not self.closed and os.getpid() == self._process

    @property
    def forks(self) -> int:
        """How many forks came before what is allocated now."""
        return self.attachment.forks.over

    def add_source(self, source: FileRange, journal: list[tuple[Any, ...]]) -> int:
        """Make a stretch of an open file known to the pager -> its source number.

        Part of an operation, in whose journal it is.

        Raises
        ------
        OSError
            EMFILE: the helper processes may not open that many files.
        ClosedError
            The supervisor cannot be reached: the program has closed our descriptors.
        """
        number = self._free_sources[-1] if self._free_sources else self._sources + 1
        answer = None
        if number <= MAX_SOURCES:
            journal.append((self.attachment.tell, "drop", number))  # it may have arrived
            answer = self.attachment.ask("source", number, source.offset, source.length, fds=[source.fd])
        if answer is None:
            raise OSError(
                errno.EMFILE, "too many arrays from files at once; free some, or raise the limit (ulimit -Hn)"
            )
        if number > self._sources:
            self._sources = number
        else:
            self._free_sources.pop()
        return number

    def drop_source(self, number: int) -> None:
        """Forget a source: the region that was made from it is freed. One thread at a time."""
        if self.attachment.tell("drop", number):
            self._free_sources.append(number)

    def derive_sources(self, used: set[int]) -> None:
        """Find out which numbers are free, given all that are used."""
        self._sources = max(used, default=0)
        self._free_sources = [number for number in range(self._sources, 0, -1) if number not in used]

    def reap(self) -> None:
        """Wait until the supervisor has let go of processes that have ended, or run another program by now.

        Where it cannot be asked, it does so in its own time.
        """
        try:
            self.attachment.ask("reap", self.door.secret)
        except ClosedError:  # the program has closed that socket
            self.door.ask("reap")

    def share(self, first: int, pages: int, journal: list[tuple[Any, ...]]) -> Ticket:
        """Let other processes of this user hold a region, until :meth:`unshare`.

        Part of an operation, in whose journal it is.

        Raises
        ------
        ThermoclineError
            Too many regions are shared.
        """
        if self._self_as_guest is None:
            self._self_as_guest = welcome_program(self.door, self.attachment, self.page_size, self.released)
        for step in range(MAX_SHARES):
            slot = (self._tickets + step) % MAX_SHARES
            if not self.tables.shares[slot]:
                break
        else:
            raise ThermoclineError(f"a memory can share {MAX_SHARES} arrays at once; free some")
        self._tickets += 1
        ticket = Ticket(self.door, slot, self._tickets)
        journal.append((self.unshare, ticket))
        journal.append((self.forget_share, first))
        address, size = self.address + first * self.page_size, pages * self.page_size
        if not self.tables.share_region(first, lambda *words: self.attachment.forks.share(address, size, *words)):
            raise ThermoclineError("no memory is left to look after shared arrays")
        if self.attachment.ask("share", slot, self._tickets, first, pages) is None:
            raise ThermoclineError("the supervisor of this memory has ended")
        return ticket

    def forget_share(self, first: int) -> None:
        """A region that was shared is free: children do not share what comes there next."""
        self.tables.region_shared[first] = 0
        self.attachment.forks.unshare(self.address + first * self.page_size)

    def unshare(self, ticket: Ticket) -> None:
        """Nobody may come to hold a region any more."""
        self.attachment.tell("unshare", ticket.slot)

    def is_held(self, ticket: Ticket) -> bool:
        """Whether a region is shared, or was, and another process still holds it."""
        return bool(self.tables.shares[ticket.slot])

    @property
    def has_received(self) -> bool:
        """Whether this process holds arrays that came back to it as handles: the books do not tell."""
        return self._self_as_guest is not None and self._self_as_guest.holds_any

    def release_page_tables(self, first: int, count: int) -> None:
        """Let the kernel free the page tables of pages that are all free (Linux 6.14; before, it keeps them)."""
        uffd, size = self.attachment.uffd, self.page_size
        if uffd.is_ours:  # else they are used again for what is allocated there next
            self.attachment.mapped.empty_page_tables(uffd.number, first * size, (first + count) * size)

    def resident(self) -> int:
        """Bytes of the arena that are in memory now, by the kernel's account (stat(2), ``st_blocks``)."""
        return os.fstat(self.attachment.arena.fileno()).st_blocks * 512

    def close(self) -> None:
        """Give the memory up, and wait until what this process had of it is given back.

        That is everything, and the helper processes have ended, unless other processes still use it. No block may be
        held any more. After an exception, call it again: it goes on where it was.
        """
        if os.getpid() != self._process:
            return
        self.closed = True
        self.teardown.close()

    def _detach(self) -> None:
        forget_program(self.door)
        self._served_to_the_end = not self.attachment.close()
