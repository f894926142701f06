"""What processes ask of the supervisor: to be served, to share a region, to be let go; and how it learns that they end.

Some of it the pager has to know before it is so. What it was told and has not answered is kept here, and goes to its
successor if it dies.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import struct
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from thermocline.live import control
from thermocline.live.channel import Channel
from thermocline.live.config import Config
from thermocline.live.control import Packet
from thermocline.live.shares import Shares
from thermocline.live.tables import MAX_SHARES, MAX_SOURCES, Tables
from thermocline.live.tenants import Tenant, Tenants, pid_of

#: struct ucred: process, user, group (unix(7), ``SO_PEERCRED``).
_CREDENTIALS = struct.Struct("=iII")
#: Offsets in files go up to here (``loff_t``).
_LAST_BYTE = (1 << 63) - 1


@dataclass(frozen=True)
class _Handler:
    """What to do with a word, and what goes with it.

    Attributes
    ----------
    of_program : bool
        Whether only the program that made the memory may say it.
    answers : bool
        Whether the process that says it waits for an answer.
    """

    function: Callable[[Tenant, Packet], None]
    numbers: int
    descriptors: int | None = 0
    of_program: bool = False
    answers: bool = True

    def fits(self, packet: Packet) -> bool:
        """Whether a packet has what it takes. ``descriptors`` None: the function looks itself."""
        return len(packet.numbers) == self.numbers and self.descriptors in (None, len(packet.fds))


class Reception:
    """Where the processes of one memory turn to.

    Parameters
    ----------
    poll : poll
        Whatever has news is registered here, for :meth:`hear`.
    program_ends : callable
        Called when the program that made the memory is gone, or has closed it.

    Attributes
    ----------
    sources : dict of int to Packet
        Every source that the program has opened, for the next pager.
    replaced : bool
        Whether the program has run another in its place (execve(2)), which has nothing of this memory.
    """

    def __init__(self, config: Config, tables: Tables, poll: select.poll, program_ends: Callable[[], object]) -> None:
        self.config = config
        self.sources: dict[int, Packet] = {}
        self.replaced = False
        self._poll = poll
        self._program_ends = program_ends
        self._pager: Channel | None = None
        #: What the pager has been told and has not answered: what it was, and who waits for it.
        self._unanswered: dict[tuple[str, int], tuple[Packet, Tenant]] = {}
        self._by_fd: dict[int, Tenant] = {}
        self._tenants = Tenants(tables, copies=config.fork == "copy")
        self._shares = Shares(tables)
        #: Where processes come in, and what they have to know.
        self._door = socket.socket(fileno=config.door)
        self._secret = config.secret
        self._tables = tables
        #: Forks that have to wait for another one to be over: the child to be, and its parent.
        self._forking: deque[tuple[Tenant, Tenant]] = deque()
        #: What has been asked of it that is answered when processes that are gone are let go, and by whom.
        self._reaping: list[tuple[Tenant, Packet]] = []
        #: What to do with each word.
        self._handlers: dict[str, _Handler] = {
            "source": _Handler(self._take_source, numbers=3, descriptors=1, of_program=True),
            "drop": _Handler(self._drop_source, numbers=1, of_program=True, answers=False),
            "share": _Handler(self._share, numbers=4, of_program=True),
            "unshare": _Handler(self._unshare, numbers=1, of_program=True, answers=False),
            "reap": _Handler(self._reap, numbers=1),
            "hold": _Handler(self._hold, numbers=2),
            "release": _Handler(self._release, numbers=1, answers=False),
            "join": _Handler(self._welcome, numbers=1),
            "fork": _Handler(self._fork, numbers=2),
            "attach": _Handler(self._attach, numbers=1, descriptors=3),
            "cover": _Handler(self._cover, numbers=2),
            "reopen": _Handler(self._reopen, numbers=2),
        }
        self._program = self._tenants.expect(Channel(config.control))
        self._tenants.attach(self._program, config.arena_address, config.uffd, config.program, config.lifeline)
        for fd in (self._program.channel.number, self._program.process, self._program.lifeline):
            self._listen(self._program, fd)
        poll.register(self._door, select.POLLIN)

    @property
    def is_needed(self) -> bool:
        """Whether anybody uses the memory, or is about to."""
        return any(not tenant.leaving for tenant in self._tenants)

    @property
    def processes(self) -> list[int]:
        """A pidfd of each process that uses the memory."""
        return [tenant.process for tenant in self._tenants if tenant.attached is not None]

    # -- the pager ----------------------------------------------------------------------------------------------------

    def keep_in_pager(self) -> list[Packet]:
        """In a pager that was just forked: close what is the supervisor's -> the processes that use the memory.

        Each as the packet that made it known to that pager's predecessor: ``fork`` if it is expected, ``attach`` if it
        is there. Lifelines must hang up when the supervisor dies, whether or not the pager lives.
        """
        known = []
        for tenant in self._tenants:
            tenant.channel.close()
            if tenant.attached is not None:
                os.close(tenant.lifeline)
            if tenant.leaving:
                continue
            if tenant.attached is not None and ("attach", tenant.number) not in self._unanswered:
                known.append(tenant.attached)
            elif tenant.expected and tenant.copies:
                known.append(_fork_packet(tenant))
        self._door.close()
        return known

    def meet_pager(self, pager: Channel) -> None:
        """Turn to this pager from now on. It was born with all that had settled when it was forked."""
        self._pager = pager
        self._poll.register(pager.number, select.POLLIN)
        unanswered, self._unanswered = self._unanswered, {}
        for packet, tenant in unanswered.values():
            if packet.word in ("fork", "attach"):
                self._ask_pager(packet, tenant)
            else:
                self._settle(packet, tenant)

    def _ask_pager(self, packet: Packet, tenant: Tenant) -> None:
        """Tell the pager something that somebody waits for."""
        self._unanswered[packet.word, packet.numbers[0]] = packet, tenant
        self._tell_pager(packet)

    def _tell_pager(self, packet: Packet) -> None:
        if self._pager is not None:
            _tell(self._pager, packet)

    def _hear_pager(self, pager: Channel) -> None:
        answer = control.receive(pager)
        if answer is None or not answer.numbers:
            self._poll.unregister(pager.number)  # the supervisor is told in another way that it has died
            return
        key = answer.word, answer.numbers[0]
        asked = self._unanswered.get(key)
        if asked is not None and asked[0].token == answer.token:  # not to one that was given up, for the same number
            del self._unanswered[key]
            self._settle(*asked)

    def part_with_pager(self) -> None:
        """It is dead, or is going to be."""
        if self._pager is not None:
            with contextlib.suppress(KeyError):
                self._poll.unregister(self._pager.number)
            self._pager.close()
            self._pager = None

    def _settle(self, packet: Packet, tenant: Tenant) -> None:
        """The pager knows what it was told."""
        if packet.word == "detach":
            self._tenants.remove(tenant)
            self._answer_reaping()
            self._begin_forks()
        elif packet.word == "fork":
            self._let_fork(tenant)
        else:
            _answer(tenant, packet, packet.numbers)
            if packet.word == "attach":
                self._tenants.arrived(tenant)
                self._begin_forks()

    # -- the processes ------------------------------------------------------------------------------------------------

    def hear(self, fd: int) -> bool:
        """Take news that a descriptor has -> whether somebody is gone, and descriptors with him."""
        if self._pager is not None and fd == self._pager.number:
            self._hear_pager(self._pager)
        elif fd == self._door.fileno():
            self._let_in(self._door)
        elif fd in self._by_fd:  # what had news before this may have been the end of it
            return self._hear(self._by_fd[fd], fd)
        return False

    def _listen(self, tenant: Tenant, fd: int) -> None:
        self._by_fd[fd] = tenant
        self._poll.register(fd, select.POLLIN)

    def _forget(self, fd: int) -> None:
        self._by_fd.pop(fd, None)
        with contextlib.suppress(KeyError):
            self._poll.unregister(fd)

    def _hear(self, tenant: Tenant, fd: int) -> bool:
        """Take news of a process -> whether it is gone."""
        if fd == tenant.lifeline:
            self._forget(fd)
            if not tenant.has_left:
                tenant.is_silent = True
                return False
        elif fd != tenant.process:
            packet = control.receive(tenant.channel)
            if packet is None:
                self._forget(fd)
                if tenant.attached is not None:
                    return False
            elif packet.word != "close":
                self._obey(tenant, packet)
                return False
        self._depart(tenant)
        return True

    def look(self) -> bool:
        """Let processes go that run another program by now, and had closed before what would have told of it.

        Returns
        -------
        bool
            Whether there are more that may do so without a word.
        """
        silent = [tenant for tenant in self._tenants if tenant.is_silent and not tenant.leaving]
        for tenant in silent:
            if tenant.has_left:
                self._depart(tenant)
        return not all(tenant.leaving for tenant in silent)

    def _obey(self, tenant: Tenant, packet: Packet) -> None:
        """Do what a process asks for, if it may and what it says fits. Nothing that it says ends this process."""
        handler = self._handlers.get(packet.word)
        knows = packet.word in ("join", "fork", "reopen", "reap") and packet.numbers[:1] == (self._secret,)
        if not tenant.welcome and not knows:
            self._refuse(tenant, packet)  # whatever it says: it may not speak this language
        elif handler is None:
            self._refuse(tenant, packet)
        elif not handler.fits(packet) or (handler.of_program and tenant is not self._program):
            # Where descriptors are missing, this process may not open more.
            self._refuse(tenant, packet, answer=handler.answers)
        else:
            try:
                handler.function(tenant, packet)
            except (LookupError, ValueError, OverflowError, OSError):
                self._refuse(tenant, packet, answer=handler.answers)

    def _take_source(self, tenant: Tenant, packet: Packet) -> None:
        number, offset, length = packet.numbers
        if (
            not 0 < number <= MAX_SOURCES
            or number in self.sources
            or min(offset, length) < 0
            or offset + length > _LAST_BYTE
        ):
            raise ValueError(f"source {packet.numbers} cannot be taken")
        self.sources[number] = packet
        self._ask_pager(packet, tenant)

    def _drop_source(self, _: Tenant, packet: Packet) -> None:
        (number,) = packet.numbers
        control.close_all(self.sources.pop(number).fds)
        self._unanswered.pop(("source", number), None)  # given up
        self._tell_pager(packet)

    def _share(self, tenant: Tenant, packet: Packet) -> None:
        slot, ticket, first, pages = packet.numbers
        if not (0 <= slot < MAX_SHARES and 0 <= first < first + pages <= self.config.pages):
            raise ValueError(f"share {packet.numbers} is not in the arena, or the table")
        self._shares.share(slot, ticket, first, pages)
        _answer(tenant, packet)

    def _unshare(self, _: Tenant, packet: Packet) -> None:
        self._shares.unshare(*packet.numbers)

    def _hold(self, tenant: Tenant, packet: Packet) -> None:
        held = self._shares.hold(tenant.number, *packet.numbers)
        if held is not None and tenant.copies and not 0 < self._tables.region_shared[held[0]] <= tenant.fork:
            self._shares.release(tenant.number, packet.numbers[0])
            held = None  # this child has it for itself: it has to join as other processes do
        if held is None:
            self._refuse(tenant, packet)
        else:
            _answer(tenant, packet, held)

    def _release(self, tenant: Tenant, packet: Packet) -> None:
        self._shares.release(tenant.number, *packet.numbers)

    def _welcome(self, tenant: Tenant, packet: Packet) -> None:
        tenant.welcome = True
        numbers = self.config.pages, self.config.page_size, tenant.number
        _answer(tenant, packet, numbers, (self.config.arena,))

    def _cover(self, tenant: Tenant, packet: Packet) -> None:
        first, pages = packet.numbers
        if tenant.attached is None or not 0 <= first < first + pages <= self.config.pages:
            raise ValueError(f"cover {packet.numbers} is not in the arena")
        self._ask_pager(Packet("cover", (tenant.number, first, pages), token=packet.token), tenant)

    def _reopen(self, tenant: Tenant, packet: Packet) -> None:
        """A process has closed descriptors of ours, and needs them."""
        asking = self._tenants.get(packet.numbers[1])
        if asking is None or asking.attached is None or asking.leaving:
            self._refuse(tenant, packet)
        else:
            _answer(tenant, packet, fds=(self.config.arena, asking.attached.fds[0]))

    def _attach(self, tenant: Tenant, packet: Packet) -> None:
        attach = self._tenants.attach(tenant, packet.numbers[0], *packet.fds)
        for fd in (tenant.process, tenant.lifeline):
            self._listen(tenant, fd)
        self._ask_pager(attach, tenant)

    @staticmethod
    def _refuse(tenant: Tenant, packet: Packet, *, answer: bool = True) -> None:
        control.close_all(packet.fds)
        if answer:
            _tell(tenant.channel, Packet("refused", token=packet.token))

    def _let_in(self, door: socket.socket) -> None:
        """Somebody wants to join. Processes of other users are sent away, root's too: it need not ask."""
        try:
            peer, _ = door.accept()
        except OSError:  # this process may not open more, and would be told so again at once
            self._poll.unregister(door)
            return
        pid, user, _ = _CREDENTIALS.unpack(peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
        # A process that uses the memory may have become another user (setuid(2)), and still fork.
        if user != os.getuid() and all(pid_of(process) != pid for process in self.processes):
            peer.close()
            return
        guest = self._tenants.expect(Channel.opened(peer.detach()))
        guest.welcome = False
        self._listen(guest, guest.channel.number)

    # -- forks --------------------------------------------------------------------------------------------------------

    def _fork(self, child: Tenant, packet: Packet) -> None:
        """A process is about to fork, and its child will speak on this connection."""
        parent = self._tenants.get(packet.numbers[1])
        if parent is None or parent.leaving or child.welcome:
            self._refuse(child, packet)
            return
        child.welcome = True
        self._forking.append((child, parent))
        self._begin_forks()

    def _begin_forks(self) -> None:
        """Let processes fork that wait for it: those whose children are to see arrays as they were, one at a time."""
        while self._forking and not self._tenants.expects_copy:
            child, parent = self._forking.popleft()
            if child.leaving or self._tenants.get(child.number) is not child:
                continue  # its parent is gone
            if not self._tenants.fork(child, parent):
                self._refuse(child, Packet("fork"))
                continue
            self._shares.inherit(child.number, parent.number)
            if child.copies:
                self._ask_pager(_fork_packet(child), child)
            else:
                self._let_fork(child)

    def _let_fork(self, child: Tenant) -> None:
        _tell(child.channel, Packet("fork", (child.number, child.fork), (self.config.arena,)))

    def _reap(self, tenant: Tenant, packet: Packet) -> None:
        """Let processes go that have ended, or run another program, and answer when nothing of theirs is held."""
        for other in self._tenants:
            if other is not tenant and not other.leaving and other.has_left:
                self._depart(other)
        self._reaping.append((tenant, packet))
        self._answer_reaping()

    def _answer_reaping(self) -> None:
        if not any(word == "detach" for word, _ in self._unanswered):
            reaping, self._reaping = self._reaping, []
            for tenant, packet in reaping:
                _answer(tenant, packet)

    def _depart(self, tenant: Tenant) -> None:
        """A process is gone, or has closed the memory. It may unmap it when the pager knows that."""
        if tenant is self._program:
            self.replaced = tenant.runs_another
            self._program_ends()
        self._forget(tenant.channel.number)
        if tenant.attached is not None:
            self._forget(tenant.process)
            self._forget(tenant.lifeline)
        self._unanswered = {key: asked for key, asked in self._unanswered.items() if asked[1] is not tenant}
        self._shares.leave(tenant.number)
        tenant.leaving = True
        if tenant.attached is None and not (tenant.expected and tenant.copies):
            self._tenants.remove(tenant)
            self._begin_forks()
        else:
            self._ask_pager(Packet("detach", (tenant.number,)), tenant)


def _fork_packet(child: Tenant) -> Packet:
    """How the pager is told of a child that is expected: its number, its fork, and whether it is the program's."""
    return Packet("fork", (child.number, child.fork, int(child.parent_is_program)))


def _tell(peer: Channel, packet: Packet) -> None:
    """Pass something on, to whom it may concern no longer."""
    with contextlib.suppress(OSError):
        control.send(peer, packet.word, *packet.numbers, fds=packet.fds, token=packet.token)


def _answer(tenant: Tenant, asked: Packet, numbers: tuple[int, ...] = (), fds: tuple[int, ...] = ()) -> None:
    """Answer what a process has asked for."""
    _tell(tenant.channel, Packet(asked.word, numbers, fds, asked.token))
