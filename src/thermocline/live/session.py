"""Everything that one tiered memory has open in the program, and the helper processes that belong to it.

The arena is mapped here and registered with userfaultfd; the supervisor gets a duplicate of every descriptor. The
program keeps its userfaultfd open, too: were the helpers' the last one to be closed, whoever waits would wake to zeros.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from thermocline.errors import SpecError
from thermocline.live import fence, injection, launch, libc
from thermocline.live.address_space import AddressSpace, address_space
from thermocline.live.commitment import Commitment
from thermocline.live.config import Config
from thermocline.live.requests import Requests
from thermocline.live.ring import Bell
from thermocline.live.sources import CLOSE, MESSAGE_BYTES, REFUSED, drop_message, source_message
from thermocline.live.stores import STORES
from thermocline.live.tables import MAX_PAGES, MAX_SOURCES, Tables
from thermocline.live.userfaultfd import UserFaultFd, open_userfaultfd
from thermocline.protocol.group import GroupReclaim
from thermocline.sizes import format_size
from thermocline.spec import File, NodeSpec

#: Address range of the arena, in multiples of what can be committed: holes between arrays are not worth moving for.
_SPREAD = 4


@dataclass(frozen=True)
class Settings:
    """What the pager is told of the user's choices (see :class:`thermocline.memory.Memory`)."""

    design: str = "batch"
    discard_clean: bool = False
    readahead_pages: int = 32
    group_reclaim: str = GroupReclaim.LEFT.value


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
    before_close : list of callable
        Called when the session is closed, before anything is given back.
    """

    def __init__(self, nodes: Sequence[NodeSpec], page_size: int, settings: Settings, report: int = -1) -> None:
        self.nodes = tuple(nodes)
        self.page_size = page_size
        self.commitment = Commitment(self.nodes, page_size)
        self.pages = _SPREAD * self.commitment.limit + 1
        if self.pages > MAX_PAGES:
            most = format_size(MAX_PAGES // _SPREAD * page_size)
            raise SpecError(
                f"pages of {format_size(page_size)} can be counted up to {most}, and the nodes hold more; "
                "write a larger page_size, or smaller nodes"
            )
        self.size = self.pages * page_size
        self.before_close: list[Callable[[], object]] = []
        self.closed = False
        self._process = os.getpid()
        self._sources = 0
        self._free_sources: list[int] = []
        inject = os.environ.get("THERMOCLINE_INJECT", "")
        if inject:
            injection.parse(inject)  # a mistake in it is the program's to hear of
        with contextlib.ExitStack() as undo:
            opened = open_userfaultfd()
            undo.callback(os.close, opened.fd)
            self.serves_system_calls = opened.serves_system_calls
            self._uffd = UserFaultFd(opened.fd)
            self._arena = os.memfd_create("thermocline-arena", os.MFD_CLOEXEC)
            undo.callback(os.close, self._arena)
            self.tables = Tables.create(self.pages)
            undo.callback(self.tables.close)
            self.commitment.failed_nodes = lambda: self.tables.header[Tables.HEADER_FAILED_NODES]
            request_bell = Bell(Bell.create(blocking=False))
            undo.callback(os.close, request_bell.fd)
            answer_bell = Bell(Bell.create(blocking=True))
            undo.callback(os.close, answer_bell.fd)
            self.requests = Requests(self.tables, request_bell, answer_bell)
            self.address = self._map(undo)
            undo.callback(self.commitment.close)
            self._start(settings, report, inject, undo)
            self._undo = undo.pop_all()
        _sessions.add(self)

    def _map(self, undo: contextlib.ExitStack) -> int:
        """Map the arena and register it -> its address."""
        os.ftruncate(self._arena, self.size)
        space = address_space()
        fence.prepare(space.low, space.high)
        address = space.take(self.size)
        undo.callback(space.give, address, self.size)
        libc.mmap(
            address,
            self.size,
            libc.PROT_READ | libc.PROT_WRITE,
            libc.MAP_SHARED | libc.MAP_NORESERVE | libc.MAP_FIXED,
            self._arena,
        )
        # A child would share the frames without our seeing its faults: it gets nothing there (see _in_child).
        libc.madvise(address, self.size, libc.MADV_DONTFORK)
        libc.madvise(address, self.size, libc.MADV_DONTDUMP)
        self._uffd.register(address, self.size)
        return address

    def _start(self, settings: Settings, report: int, inject: str, undo: contextlib.ExitStack) -> None:
        """Open the stores and the sockets, and start the supervisor with all that is open."""
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        undo.callback(self._control.close)
        self._lifeline, their_lifeline = socket.socketpair()
        undo.callback(self._lifeline.close)
        with contextlib.ExitStack() as handed_over:
            if report >= 0:
                handed_over.callback(os.close, report)
            handed_over.callback(theirs.close)
            handed_over.callback(their_lifeline.close)
            program = os.pidfd_open(self._process)
            handed_over.callback(os.close, program)
            stores = []
            for spec in self.nodes[1:]:
                fds = STORES[type(spec)].create(spec, self.page_size, self.pages)
                stores.append(list(fds))
                for fd in fds:
                    handed_over.callback(os.close, fd)
                if isinstance(spec, File):
                    self.commitment.watch(fds[0])
            launch.start(
                Config(
                    nodes=self.nodes,
                    page_size=self.page_size,
                    pages=self.pages,
                    arena_address=self.address,
                    program=program,
                    uffd=self._uffd.fd,
                    arena=self._arena,
                    tables=self.tables.fd,
                    request_bell=self.requests.request_bell.fd,
                    answer_bell=self.requests.answer_bell.fd,
                    control=theirs.fileno(),
                    lifeline=their_lifeline.fileno(),
                    report=report,
                    inject=inject,
                    stores=stores,
                    **vars(settings),
                )
            )
        launch.hold_lifeline(self._lifeline)

    @property
    def usable(self) -> bool:
        """Whether this process may use the memory: not closed, and not a forked child."""
        return not self.closed and os.getpid() == self._process

    def add_source(self, fd: int, offset: int, length: int) -> int:
        """Make a stretch of an open file known to the pager -> its source number. One thread at a time.

        Raises
        ------
        OSError
            EMFILE: the helper processes may not open that many files.
        """
        number = self._free_sources.pop() if self._free_sources else self._sources + 1
        self._sources = max(self._sources, number)
        if number <= MAX_SOURCES:
            socket.send_fds(self._control, [source_message(number, offset, length)], [fd])
            if self._control.recv(MESSAGE_BYTES) != REFUSED:
                return number
        self._free_sources.append(number)
        raise OSError(errno.EMFILE, "too many arrays from files at once; free some, or raise the limit (ulimit -Hn)")

    def drop_source(self, number: int) -> None:
        """Forget a source: the region that was made from it is freed. One thread at a time."""
        self._control.send(drop_message(number))
        self._free_sources.append(number)

    def release_page_tables(self, first: int, count: int) -> None:
        """Let the kernel free the page tables of pages that are all free (Linux 6.14; before, it keeps them)."""
        address, size = self.address + first * self.page_size, count * self.page_size
        # A table with a marker of write-protection in it is not empty.
        self._uffd.write_unprotect(address, size)
        libc.madvise(address, size, libc.MADV_DONTNEED)

    def resident(self) -> int:
        """Bytes of the arena that are in memory now, by the kernel's account (stat(2), ``st_blocks``)."""
        return os.fstat(self._arena).st_blocks * 512

    def close(self) -> None:
        """End the helper processes and give back all memory. No block may be held any more."""
        if not self.usable:
            return
        self.closed = True
        for callback in self.before_close:
            callback()
        launch.let_go_of_lifeline(self._lifeline)
        AddressSpace.fence(self.address, self.size)
        with contextlib.suppress(OSError):
            self._control.send(CLOSE)
            self._lifeline.recv(1)  # it hangs up when the supervisor is gone, and with it all that it held
        self._undo.close()

    def _in_child(self) -> None:
        """In a forked child: nothing is mapped where the arena was, and nothing may come to be."""
        if not self.closed:
            AddressSpace.fence(self.address, self.size)
            self._lifeline.close()
            self._control.close()


#: Every session of this process, for a child that is forked from it.
_sessions: weakref.WeakSet[Session] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    if _sessions:
        fence.install()
    for session in list(_sessions):
        session._in_child()


os.register_at_fork(after_in_child=_after_fork_in_child)
