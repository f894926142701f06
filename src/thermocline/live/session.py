"""Everything that one tiered memory has open in the program, and the helper processes that belong to it.

The arena is mapped here and registered with userfaultfd; the supervisor gets a duplicate of every descriptor.

A child that the program forks shares the arrays with it: before a fork, the supervisor is told to expect somebody, and
the child attaches itself before anything of the user's runs in it (see :mod:`thermocline.live.attachment`). It cannot
make arrays, nor free what it has: the books are the program's.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import threading
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from thermocline.errors import UnsupportedError
from thermocline.live import control, fence, injection, launch
from thermocline.live.address_space import AddressSpace, address_space
from thermocline.live.attachment import Attachment, map_arena
from thermocline.live.children import Children
from thermocline.live.commitment import Commitment
from thermocline.live.config import Config
from thermocline.live.requests import Requests
from thermocline.live.ring import Bell
from thermocline.live.stores import STORES
from thermocline.live.tables import MAX_SOURCES, Tables
from thermocline.live.userfaultfd import UserFaultFd, open_userfaultfd
from thermocline.protocol.group import GroupReclaim
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
        self.size = self.pages * page_size
        self.before_close: list[Callable[[], object]] = []
        self.closed = False
        self._process = os.getpid()
        #: Forks under way: the socket that the child of each will speak on, and its row of the table of children.
        self._expected: dict[int, tuple[socket.socket, int]] = {}
        self._row = 0
        self._attachment: Attachment | None = None
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
            self.children = Children(self.tables)
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
        map_arena(self._arena, address, self.size, self._uffd)
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
        """Whether this process may use the books of the memory: not closed, and not a forked child."""
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
            control.send(self._control, "source", number, offset, length, fds=[fd])
            answer = control.receive(self._control)
            if answer is not None and answer.word == "source":
                return number
        self._free_sources.append(number)
        raise OSError(errno.EMFILE, "too many arrays from files at once; free some, or raise the limit (ulimit -Hn)")

    def drop_source(self, number: int) -> None:
        """Forget a source: the region that was made from it is freed. One thread at a time."""
        control.send(self._control, "drop", number)
        self._free_sources.append(number)

    def resident(self) -> int:
        """Bytes of the arena that are in memory now, by the kernel's account (stat(2), ``st_blocks``)."""
        return os.fstat(self._arena).st_blocks * 512

    def close(self) -> None:
        """Give the memory up, and wait until what this process had of it is given back.

        That is everything, and the helper processes have ended, unless children of this one still use it.
        """
        if not self.usable:
            return
        self.closed = True
        for callback in self.before_close:
            callback()
        launch.let_go_of_lifeline(self._lifeline)
        with contextlib.suppress(OSError):
            control.send(self._control, "close")
            self._lifeline.recv(1)  # it hangs up when nothing of this process is in the pager's hands any more
        self._undo.close()

    # -- children -----------------------------------------------------------------------------------------------------

    def expect_child(self) -> None:
        """This thread is about to fork: let the supervisor know. Where that fails, the child will not be served."""
        try:
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        except OSError:
            return
        with contextlib.closing(theirs):
            row = self.children.expect() if self.usable else self._row
            if not row:
                ours.close()
                return
            self._expected[threading.get_ident()] = ours, row
            with contextlib.suppress(OSError):
                control.send(self._control, "child", row, fds=[theirs.fileno()])

    def go_on_as_parent(self) -> None:
        """This thread has forked, or has failed to."""
        expected = self._expected.pop(threading.get_ident(), None)
        if expected is not None:
            expected[0].close()
            if self.usable:
                self.children.forked()

    def go_on_as_child(self) -> bool:
        """This process was forked: attach it -> False where that is not possible; nothing is mapped there then."""
        peer, row = self._expected.pop(threading.get_ident(), (None, 0))
        for other, _ in self._expected.values():
            other.close()
        self._expected.clear()
        if self._attachment is not None:
            self._attachment.forget()
            self._attachment = None
        self._control.close()
        self._lifeline.close()
        try:
            if peer is None:
                raise UnsupportedError("nobody expects this process")
            self._attachment = Attachment(peer, self._arena, self.address, self.size)
        except (OSError, UnsupportedError):
            self._row = 0
            AddressSpace.fence(self.address, self.size)
            return False
        self._control, self._row = peer, row
        self.serves_system_calls = self._attachment.serves_system_calls
        return True


#: Every session of this process, for a child that is forked from it.
_sessions: weakref.WeakSet[Session] = weakref.WeakSet()


def _open_sessions() -> list[Session]:
    return [session for session in _sessions if not session.closed]


def _before_fork() -> None:
    for session in _open_sessions():
        session.expect_child()


def _after_fork_in_parent() -> None:
    for session in _open_sessions():
        session.go_on_as_parent()


def _after_fork_in_child() -> None:
    if not all([session.go_on_as_child() for session in _open_sessions()]):
        fence.install()


os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)
