"""A process's place in a memory (shmat(2)): the arena is mapped there, and the pager answers for what is touched.

A userfaultfd belongs to the address space that it was made in, so each process brings its own, and hands it to the
supervisor, which passes it on to the pager. When that has answered, whatever is touched is served. The process keeps
its userfaultfd open, too: were the helpers' the last one to be closed, every waiter would wake to zeros.

A forked child is attached before fork(2) returns in it (see :mod:`thermocline.live.forks`). The kernel could do this in
fork(2) itself (``UFFD_FEATURE_EVENT_FORK``), for processes that may trace any other. The child's descriptor would then
belong to the process that reads the event: a pager that is killed at that instant would leave the child with zeros.
"""

from __future__ import annotations

import contextlib
import os
import socket
import weakref
from collections.abc import Sequence
from dataclasses import dataclass

from thermocline.errors import ClosedError, UnsupportedError
from thermocline.live import control, launch, system_calls
from thermocline.live.channel import Channel, leased_connection
from thermocline.live.control import Packet
from thermocline.live.descriptor import Descriptor, DescriptorError
from thermocline.live.forks import Forks
from thermocline.live.guard import Guard, end, value_of
from thermocline.live.mapped import Mapped
from thermocline.live.userfaultfd import open_userfaultfd

_CUT_OFF = (
    "this memory has lost the socket to its supervisor: the program has closed descriptors that it did not open "
    "(os.closerange?); make the Memory after that, or leave those that thermocline has open"
)


@dataclass(frozen=True)
class Door:
    """Where the supervisor of a memory listens: an abstract name (unix(7)), and the secret that it wants to hear.

    Any process can read such names, so the supervisor lets in only processes of its own user that know the secret too.
    The name leaves no file behind, and goes with the memory.
    """

    name: str
    secret: int

    @classmethod
    def open(cls) -> tuple[Door, socket.socket]:
        """A fresh one, and the socket that listens there."""
        door = cls(f"thermocline-{os.urandom(16).hex()}", int.from_bytes(os.urandom(8)) >> 1)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        listener.bind("\0" + door.name)
        listener.listen(64)
        return door, listener

    def ask(self, word: str, *numbers: int) -> Packet | None:
        """Ask once, on a connection of its own -> None if there is no supervisor, or it refuses."""
        try:
            lease = leased_connection(self.name)
            peer = Channel(value_of(lease))
            control.send(peer, word, self.secret, *numbers)
            answer = control.receive(peer)
        except DescriptorError:
            return None
        end(lease)
        return answer if answer is not None and answer.word == word else None


class Attachment:
    """What a process has of a memory.

    Parameters
    ----------
    arena : Descriptor
        The memfd.
    mapped : Mapped
        What of it is mapped here.
    address : int
        Where its addresses begin.
    peer, lifeline : Channel
        To the supervisor.
    uffd : Descriptor
        On which the mapping is registered.
    features : int
        Of that userfaultfd.
    door : Door
        Where the supervisor is asked for a place for a forked child.
    number : int
        Of this process among those that use the memory; 0 is the program that made it.
    copies : bool
        Whether a forked child sees the arrays as they were, or shares them.
    """

    def __init__(
        self,
        arena: Descriptor,
        mapped: Mapped,
        address: int,
        *,
        peer: Channel,
        lifeline: Channel,
        uffd: Descriptor,
        features: int,
        serves_system_calls: bool,
        door: Door,
        number: int,
        copies: bool,
    ) -> None:
        self.arena = arena
        self.mapped = mapped
        self.address = address
        self.peer = peer
        self.lifeline = lifeline
        self.uffd = uffd
        self.serves_system_calls = serves_system_calls or system_calls.cover()
        #: Whether a child that is forked from here has the arrays for itself, and whether this process is such a child.
        self.copies = copies
        self.is_child = False
        self._asking = Guard()
        self._door = door
        self._number = number
        self.forks = Forks(address, features=features, name=door.name, secret=door.secret, number=number, copies=copies)
        mapped.opened = self._opened
        mapped.publish = self.forks.map
        mapped.publish(mapped.bounds)
        self._asked = 0
        self._can_be_told: bool | None = None
        self._process = os.getpid()
        _attachments.add(self)
        if not _going_on:
            _going_on.append(Guard(_go_on_as_child))
            os.register_at_fork(after_in_child=_going_on[0].settle_at_once)

    @property
    def is_program(self) -> bool:
        """Whether this is the process that made the memory."""
        return self._number == 0

    @classmethod
    def join(
        cls, channel: Channel, arena: Descriptor, address: int, size: int, *, door: Door, number: int
    ) -> Attachment:
        """Attach this process, which the supervisor expects on a channel. It and its children share the arrays.

        Raises
        ------
        OSError, UnsupportedError
            It cannot be served. The channel is closed then.
        """
        with contextlib.ExitStack() as undo:
            undo.callback(channel.close)
            opened = open_userfaultfd()
            uffd = Descriptor.opened(opened.fd)
            undo.callback(uffd.close)
            lifeline, theirs = Channel.pair(socket.SOCK_STREAM)
            undo.callback(lifeline.close)
            # Its end is kept until this process is attached: where that fails, the last of it must not be closed, here
            # or by the supervisor, while the kernel kills this process for it.
            undo.callback(theirs.close)
            # Before anything is touched: whoever dies from now on, this process does not wait for it.
            launch.hold_lifeline(lifeline)
            undo.callback(launch.let_go_of_lifeline, lifeline)
            with contextlib.ExitStack() as handed_over:
                process = os.pidfd_open(os.getpid())
                handed_over.callback(os.close, process)
                control.send(channel, "attach", address, fds=[uffd.number, process, theirs.number])
            answer = control.receive(channel)
            if answer is None or answer.word != "attach":
                raise UnsupportedError("no more processes can share this memory; raise the limit (ulimit -Hn)")
            theirs.close()
            undo.pop_all()
        return cls(
            arena,
            Mapped(address, size, lambda: (arena.fileno(), uffd.fileno())),
            address,
            peer=channel,
            lifeline=lifeline,
            uffd=uffd,
            features=opened.features,
            serves_system_calls=opened.serves_system_calls,
            door=door,
            number=number,
            copies=False,
        )

    def ask(self, word: str, *numbers: int, fds: Sequence[int] = ()) -> Packet | None:
        """Ask the supervisor for something, and wait for the answer -> None when it refuses, or is gone.

        Raises
        ------
        ClosedError
            The program has closed the socket.
        """
        if not self.peer.is_ours:
            raise ClosedError(_CUT_OFF)
        answer: Packet | None = self._asking.run(self._ask, word, numbers, fds)
        return answer if answer is not None and answer.word == word else None

    def _ask(self, word: str, numbers: tuple[int, ...], fds: Sequence[int]) -> Packet | None:
        self._asked += 1
        token = self._asked
        try:
            control.send(self.peer, word, *numbers, fds=fds, token=token)
            answer = control.receive(self.peer)
            while answer is not None and answer.token != token:  # to a question that was given up when interrupted
                control.close_all(answer.fds)
                answer = control.receive(self.peer)
        except DescriptorError:
            return None
        return answer

    def tell(self, word: str, *numbers: int) -> bool:
        """Tell the supervisor something that has no answer -> whether it will hear of it. Never waits."""
        try:
            control.send(self.peer, word, *numbers)
        except DescriptorError:
            return False
        return True

    def _opened(self) -> tuple[int, int]:
        """The descriptors of the arena and of the userfaultfd: ours, or those that the supervisor has.

        Raises
        ------
        DescriptorError
            EBADF: the program has closed ours, and the supervisor cannot be reached.
        """
        if not (self.arena.is_ours and self.uffd.is_ours):
            answer = self._door.ask("reopen", self._number)
            if answer is not None and len(answer.fds) == 2:
                self.arena.replace(answer.fds[0])
                self.uffd.replace(answer.fds[1])
        return self.arena.fileno(), self.uffd.fileno()

    def close(self) -> bool:
        """Wait until nothing of this process is in the pager's hands any more, and unmap it. Nobody may use it.

        After an exception, call it again.

        Returns
        -------
        bool
            False when the program has closed the socket, and the supervisor cannot be told: the memory stays mapped,
            and is served, until this process ends.
        """
        _attachments.discard(self)
        self.mapped.publish = lambda bounds: None  # no child is attached from now on
        self.forks.forget()
        launch.let_go_of_lifeline(self.lifeline)
        if self._can_be_told is None:
            self._can_be_told = self.peer.is_ours
        if self._can_be_told:
            self.tell("close")
            with contextlib.suppress(DescriptorError):  # the program has closed it meanwhile
                while control.receive(self.peer) is not None:
                    pass
            self.mapped.close()
        self._forget()
        return self._can_be_told

    def _forget(self) -> None:
        self.peer.close()
        self.lifeline.close()
        self.uffd.close()

    def go_on_as_child(self) -> None:
        """This process was forked: take over what the native library has made of it. Doing it again is nothing."""
        self.is_child = True
        if self._process != os.getpid():
            self._forget()
            self._process = os.getpid()
        attached = self.forks.attached()
        if attached is None:
            _attachments.discard(self)
            return
        self.peer = Channel(attached.peer)
        self.lifeline = Channel(attached.lifeline)
        self.uffd = Descriptor(attached.uffd)
        self._number = attached.number
        self.mapped.resume(self.forks.mapped())
        self.serves_system_calls = bool(attached.serves_system_calls) or system_calls.cover()


#: Every attachment of this process, for a child that is forked from it.
_attachments: weakref.WeakSet[Attachment] = weakref.WeakSet()


#: What settles them there, whatever comes up meanwhile.
_going_on: list[Guard] = []


def _go_on_as_child() -> None:
    for attachment in list(_attachments):
        attachment.go_on_as_child()
