"""A process's place in a memory (shmat(2)): the arena is mapped there, and somebody answers for what is touched.

A userfaultfd belongs to the address space that it was made in, so each process brings its own, and hands it to the
supervisor, who passes it on to the pager. When that has answered, whatever is touched is served as in the program. The
process keeps its userfaultfd open, too: were the helpers' the last one to be closed, whoever waits would wake to zeros.

A forked child is attached before anything of the user's runs in it: its parent has told the supervisor to expect
somebody, and left it a socket to speak on. The kernel could do this in fork(2) itself (``UFFD_FEATURE_EVENT_FORK``),
for those who may trace any process, and the descriptor of the child's would then be whoever's reads the event: a pager
that is killed at that instant would leave the child with zeros.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import weakref
from collections.abc import Sequence

from thermocline.errors import UnsupportedError
from thermocline.live import control, fence, launch, libc, system_calls
from thermocline.live.address_space import AddressSpace
from thermocline.live.children import Children
from thermocline.live.control import Packet
from thermocline.live.requests import Exclusion
from thermocline.live.userfaultfd import UserFaultFd, open_userfaultfd


def map_arena(arena: int, address: int, size: int, uffd: UserFaultFd) -> None:
    """Map an arena where nothing is mapped that matters, and register it.

    A child that is forked gets nothing there: it would share the frames without anybody seeing its faults.
    """
    access, flags = libc.PROT_READ | libc.PROT_WRITE, libc.MAP_SHARED | libc.MAP_NORESERVE | libc.MAP_FIXED
    libc.mmap(address, size, access, flags, arena)
    libc.madvise(address, size, libc.MADV_DONTFORK)
    libc.madvise(address, size, libc.MADV_DONTDUMP)
    uffd.register(address, size)


class Attachment:
    """What a process has of a memory.

    Parameters
    ----------
    arena : int
        The memfd.
    address, size : int
        Where it is mapped.
    peer, lifeline : socket
        To the supervisor.
    uffd : int
        On which the mapping is registered.
    children : Children, optional
        Of the program that made the memory: it keeps a book of its forks.

    Attributes
    ----------
    row : int
        Of the table of children, in a forked child and its own; 0 in others.
    """

    def __init__(
        self,
        arena: int,
        address: int,
        size: int,
        *,
        peer: socket.socket,
        lifeline: socket.socket,
        uffd: int,
        serves_system_calls: bool,
        children: Children | None = None,
    ) -> None:
        self.arena = arena
        self.address = address
        self.size = size
        self.peer = peer
        self.lifeline = lifeline
        self.uffd = uffd
        self.serves_system_calls = serves_system_calls or system_calls.cover()
        self.row = 0
        self._children = children
        self._asking = Exclusion()
        #: Forks under way, by thread: the socket that the child of each will speak on, and its row.
        self._expected: dict[int, tuple[socket.socket, int]] = {}
        _attachments.add(self)

    @classmethod
    def join(cls, peer: socket.socket, arena: int, address: int, size: int) -> Attachment:
        """Attach this process, which the supervisor expects on a socket.

        Raises
        ------
        OSError, UnsupportedError
            It cannot be served. Nothing is mapped then, and the socket is closed.
        """
        with contextlib.ExitStack() as undo:
            undo.callback(peer.close)
            opened = open_userfaultfd()
            undo.callback(os.close, opened.fd)
            undo.callback(AddressSpace.fence, address, size)
            map_arena(arena, address, size, UserFaultFd(opened.fd))
            lifeline, theirs = socket.socketpair()
            undo.callback(lifeline.close)
            # Before anything is touched: whoever dies from now on, this process does not wait for it.
            launch.hold_lifeline(lifeline)
            undo.callback(launch.let_go_of_lifeline, lifeline)
            with contextlib.closing(theirs), contextlib.ExitStack() as handed_over:
                process = os.pidfd_open(os.getpid())
                handed_over.callback(os.close, process)
                control.send(peer, "attach", address, fds=[opened.fd, process, theirs.fileno()])
            answer = control.receive(peer)
            if answer is None or answer.word != "attach":
                raise UnsupportedError("no more processes can share this memory; raise the limit (ulimit -Hn)")
            undo.pop_all()
        return cls(
            arena,
            address,
            size,
            peer=peer,
            lifeline=lifeline,
            uffd=opened.fd,
            serves_system_calls=opened.serves_system_calls,
        )

    def ask(self, word: str, *numbers: int, fds: Sequence[int] = ()) -> Packet | None:
        """Ask the supervisor for something, and wait for the answer -> None when it refuses, or is gone."""
        with self._asking.held():
            try:
                control.send(self.peer, word, *numbers, fds=fds)
            except OSError:
                return None
            answer = control.receive(self.peer)
        return answer if answer is not None and answer.word == word else None

    def tell(self, word: str, *numbers: int) -> None:
        """Tell the supervisor something that has no answer. Never waits."""
        with contextlib.suppress(OSError):
            control.send(self.peer, word, *numbers)

    def close(self) -> None:
        """Wait until nothing of this process is in the pager's hands any more, and unmap it. Nobody may use it."""
        _attachments.discard(self)
        launch.let_go_of_lifeline(self.lifeline)
        self.tell("close")
        with contextlib.suppress(OSError):
            self.lifeline.recv(1)  # it hangs up
        AddressSpace.fence(self.address, self.size)
        self._forget()

    def _forget(self) -> None:
        self.peer.close()
        self.lifeline.close()
        os.close(self.uffd)

    # -- forks --------------------------------------------------------------------------------------------------------

    def expect_child(self) -> None:
        """This thread is about to fork: let the supervisor know. Where that fails, the child will not be served."""
        try:
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        except OSError:
            return
        with contextlib.closing(theirs):
            row = self._children.expect() if self._children is not None else self.row
            if row is None:
                ours.close()
                return
            self._expected[threading.get_ident()] = ours, row
            with contextlib.suppress(OSError):
                control.send(self.peer, "child", row, fds=[theirs.fileno()])

    def go_on_as_parent(self) -> None:
        """This thread has forked, or has failed to."""
        expected = self._expected.pop(threading.get_ident(), None)
        if expected is not None:
            expected[0].close()
            if self._children is not None:
                self._children.forked()

    def go_on_as_child(self) -> bool:
        """This process was forked: attach it -> False where that is not possible; nothing is mapped there then."""
        expected = self._expected.pop(threading.get_ident(), None)
        for other, _ in self._expected.values():
            other.close()
        self._forget()
        try:
            if expected is None:
                raise UnsupportedError("nobody expects this process")
            peer, row = expected
            own = Attachment.join(peer, self.arena, self.address, self.size)
        except (OSError, UnsupportedError):
            _attachments.discard(self)
            AddressSpace.fence(self.address, self.size)
            return False
        _attachments.discard(own)
        # In place: whoever knows the memory of the parent's process knows that of this one.
        vars(self).update(vars(own), row=row)
        return True


#: Every attachment of this process, for a child that is forked from it.
_attachments: weakref.WeakSet[Attachment] = weakref.WeakSet()


def _before_fork() -> None:
    for attachment in list(_attachments):
        attachment.expect_child()


def _after_fork_in_parent() -> None:
    for attachment in list(_attachments):
        attachment.go_on_as_parent()


def _after_fork_in_child() -> None:
    if not all([attachment.go_on_as_child() for attachment in list(_attachments)]):
        fence.install()


os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)
