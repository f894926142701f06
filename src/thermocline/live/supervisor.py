"""The supervisor: the process that holds every descriptor, so that nothing is lost with the pager.

Closing the last userfaultfd descriptor would wake the waiters into pages of zeros. So this process does as little as
can be done: it starts the pager, passes on the program's messages, waits for either to end, and writes the last
statistics. It is not a child of the program (a program may wait for *its* children), and sits in a session of its
own, out of reach of the terminal's Ctrl-C.

What is said between the processes is in :mod:`thermocline.live.control`. A pager inherits the processes and the sources
that its predecessor knew, before it does anything: recovery may have to read from them.

Who ends when:

- the last process that uses the memory ends, or closes it: the pager is told, and both processes go.
- the supervisor ends: every process that uses the memory is killed by the kernel, through its *lifeline*, a socket
  whose other end this process holds, set to signal when it hangs up (fcntl(2), ``F_SETSIG``). A program whose faults
  nobody answers must not wait for ever, nor read zeros.
- the pager ends unasked: another takes its place, finds everything in the shared tables and the stores, and wakes the
  whole arena. Pagers that die again and again at the same page cost that page its place or its bytes, and nobody else
  anything (see :mod:`thermocline.live.suspicion`). One that dies several times without having answered a fault, at no
  page in particular, is not replaced: the program is killed, with a message.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import select
import signal
import socket
import struct
import sys
import time
from typing import NoReturn

from setproctitle import setproctitle

from thermocline.live import control, libc, statistics
from thermocline.live import pager as pager_process
from thermocline.live.config import Config
from thermocline.live.control import Packet
from thermocline.live.messages import say
from thermocline.live.shares import Shares
from thermocline.live.suspicion import CONVICTED_AFTER, Suspicion, from_outside, read_note
from thermocline.live.tables import Tables
from thermocline.live.tenants import Tenant, Tenants
from thermocline.protocol import vmstat

#: Seconds that a pager which was told to close may take for it.
_CLOSE_SECONDS = 5.0
#: struct ucred: process, user, group (unix(7), ``SO_PEERCRED``).
_CREDENTIALS = struct.Struct("=iII")
#: With a process that attaches come its userfaultfd, a pidfd and a lifeline.
_ATTACH_DESCRIPTORS = 3
#: Pagers in a row that may die without having answered a fault.
_DEATHS = 5


class Supervisor:
    """One tiered memory's supervisor."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self._tables = Tables(config.tables, config.pages)
        self._tenants = Tenants(self._tables)
        program = self._tenants.expect(socket.socket(fileno=config.control), row=0)
        self._tenants.attach(program, config.arena_address, config.uffd, config.program, config.lifeline)
        self._program = program
        #: Every source that the program has opened, for the next pager.
        self._sources: dict[int, Packet] = {}
        #: What the pager has been told and has not answered: what it was, and who waits for it.
        self._unanswered: dict[tuple[str, int], tuple[Packet, Tenant]] = {}
        self._poll = select.poll()
        self._by_fd: dict[int, Tenant] = {}
        for fd in (program.socket.fileno(), program.process, program.lifeline):
            self._listen(program, fd)
        self._shares = Shares(self._tables)
        #: Where processes come in that were not forked, once the program has opened it.
        self._door = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._secret = -1
        self._report_to = config.report
        self._deaths = 0
        self._faults = -1
        self._suspicion = Suspicion()
        #: Pages that no pager moves any more. One stays in here when its array is freed: its address is then a page of
        #: another array that does not sink, which costs a frame.
        self._held: set[int] = set()

    def run(self) -> int:
        """Serve until nobody uses the memory any more -> exit status."""
        while True:
            status = self._with_pager()
            if status is None:
                self._report()
                return 0
            if not self._worth_another(status):
                self._kill_everybody(status)
                self._report()
                return 1

    # -- the pager ----------------------------------------------------------------------------------------------------

    def _with_pager(self) -> int | None:
        """Run one pager -> its wait status if it died, None when it is over."""
        pager, self._pager = self._start_pager()
        sentinel = os.pidfd_open(pager)
        for fd in (sentinel, self._pager.fileno()):
            self._poll.register(fd, select.POLLIN)
        try:
            self._catch_up()
            while len(self._tenants):
                for fd, _ in self._poll.poll():
                    if fd == sentinel:
                        self._tables.header[Tables.HEADER_DIED_AT] = time.monotonic_ns()
                        return os.waitpid(pager, 0)[1]
                    if fd == self._pager.fileno():
                        self._hear_pager()
                    elif fd == self._door.fileno():
                        self._open_door()
                    elif self._hear(self._by_fd[fd], fd):
                        break  # what else was heard may be of somebody who is gone
            self._end_pager(pager, sentinel)
            return None
        finally:
            self._poll.unregister(sentinel)
            self._forget(self._pager.fileno())
            os.close(sentinel)
            self._pager.close()

    def _start_pager(self) -> tuple[int, socket.socket]:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        pid = os.fork()
        if pid:
            theirs.close()
            return pid, ours
        status = 1
        try:
            setproctitle("thermocline-pager")
            ours.close()
            self._door.close()
            attached = []
            for tenant in self._tenants:
                # Lifelines must hang up when the supervisor dies, whether or not the pager lives.
                tenant.socket.close()
                if tenant.attached is not None:
                    os.close(tenant.lifeline)
                    if not tenant.leaving and ("attach", tenant.number) not in self._unanswered:
                        attached.append(tenant.attached)
            status = pager_process.main(self.config, theirs, attached, self._sources.values(), self._held)
        except BaseException:
            sys.excepthook(*sys.exc_info())
        finally:
            sys.stderr.flush()
            os._exit(status)

    def _catch_up(self) -> None:
        """Deal with what a dead pager has left unanswered: the new one was born with all that had settled."""
        unanswered, self._unanswered = self._unanswered, {}
        for packet, tenant in unanswered.values():
            if packet.word == "attach":
                self._ask_pager(packet, tenant)
            else:
                self._settle(packet, tenant)

    def _ask_pager(self, packet: Packet, tenant: Tenant) -> None:
        """Tell the pager something that somebody waits for."""
        self._unanswered[packet.word, packet.numbers[0]] = packet, tenant
        _tell(self._pager, packet)

    def _hear_pager(self) -> None:
        answer = control.receive(self._pager)
        if answer is None:
            self._forget(self._pager.fileno())  # its sentinel tells the rest
            return
        asked = self._unanswered.pop((answer.word, answer.numbers[0]), None)
        if asked is not None:
            self._settle(*asked)

    def _settle(self, packet: Packet, tenant: Tenant) -> None:
        """The pager knows what it was told."""
        if packet.word == "detach":
            self._tenants.remove(tenant)
        else:
            _tell(tenant.socket, Packet(packet.word, packet.numbers))

    def _end_pager(self, pager: int, sentinel: int) -> None:
        _tell(self._pager, Packet("close"))
        if not select.select([sentinel], [], [], _CLOSE_SECONDS)[0]:
            os.kill(pager, signal.SIGKILL)
        os.waitpid(pager, 0)

    # -- the processes ------------------------------------------------------------------------------------------------

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
                return False
        elif fd != tenant.process:
            packet = control.receive(tenant.socket)
            if packet is None:
                self._forget(fd)
                if tenant.attached is not None:
                    return False
            elif packet.word != "close":
                self._obey(tenant, packet)
                return False
        self._depart(tenant)
        return True

    def _obey(self, tenant: Tenant, packet: Packet) -> None:
        """Do what a process asks for. Where descriptors are missing, this process may not open more."""
        if not (tenant.welcome or (packet.word == "join" and packet.numbers[0] == self._secret)):
            self._refuse(tenant, packet)
            return
        {
            "source": self._take_source,
            "drop": self._drop_source,
            "listen": self._take_door,
            "share": self._share,
            "unshare": self._share,
            "hold": self._hold,
            "release": self._hold,
            "join": self._welcome,
            "child": self._expect,
            "attach": self._attach,
        }[packet.word](tenant, packet)

    def _take_source(self, tenant: Tenant, packet: Packet) -> None:
        if not packet.fds:
            self._refuse(tenant, packet)
            return
        self._sources[packet.numbers[0]] = packet
        self._ask_pager(packet, tenant)

    def _drop_source(self, _: Tenant, packet: Packet) -> None:
        os.close(self._sources.pop(packet.numbers[0]).fds[0])
        _tell(self._pager, packet)

    def _share(self, tenant: Tenant, packet: Packet) -> None:
        if packet.word == "unshare":
            self._shares.unshare(*packet.numbers)
        else:
            self._shares.share(*packet.numbers)
            _tell(tenant.socket, packet)

    def _hold(self, tenant: Tenant, packet: Packet) -> None:
        if packet.word == "release":
            self._shares.release(tenant.number, *packet.numbers)
            return
        held = self._shares.hold(tenant.number, *packet.numbers)
        if held is None:
            self._refuse(tenant, packet)
        else:
            _tell(tenant.socket, Packet(packet.word, held))

    def _take_door(self, tenant: Tenant, packet: Packet) -> None:
        if not packet.fds:
            self._refuse(tenant, packet)
            return
        self._door.close()
        self._door, self._secret = socket.socket(fileno=packet.fds[0]), packet.numbers[0]
        self._poll.register(self._door, select.POLLIN)
        _tell(tenant.socket, Packet(packet.word))

    def _welcome(self, tenant: Tenant, packet: Packet) -> None:
        tenant.welcome = True
        _tell(tenant.socket, Packet(packet.word, (self.config.pages, self.config.page_size), (self.config.arena,)))

    def _attach(self, tenant: Tenant, packet: Packet) -> None:
        if len(packet.fds) < _ATTACH_DESCRIPTORS:
            self._refuse(tenant, packet)
            return
        attach = self._tenants.attach(tenant, packet.numbers[0], *packet.fds)
        for fd in (tenant.process, tenant.lifeline):
            self._listen(tenant, fd)
        self._ask_pager(attach, tenant)

    @staticmethod
    def _refuse(tenant: Tenant, packet: Packet) -> None:
        for fd in packet.fds:
            os.close(fd)
        _tell(tenant.socket, Packet("refused"))

    def _open_door(self) -> None:
        """Somebody wants to join. Processes of other users are sent away, root's too: it need not ask."""
        try:
            peer, _ = self._door.accept()
        except OSError:  # this process may not open more, and would be told so again at once
            self._poll.unregister(self._door)
            return
        _, user, _ = _CREDENTIALS.unpack(peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
        if user != os.getuid():
            peer.close()
            return
        guest = self._tenants.expect(peer, row=0)
        guest.welcome = False
        self._listen(guest, peer.fileno())

    def _expect(self, tenant: Tenant, packet: Packet) -> None:
        """A process is about to fork."""
        (row,) = packet.numbers
        for fd in packet.fds:
            child = self._tenants.expect(socket.socket(fileno=fd), row)
            self._shares.inherit(child.number, tenant.number)
            self._listen(child, fd)
        if not packet.fds:
            self._tenants.strike(row)

    def _depart(self, tenant: Tenant) -> None:
        """A process is gone, or has closed the memory. It may unmap it when the pager knows that."""
        if tenant is self._program:
            self._report()
        self._forget(tenant.socket.fileno())
        if tenant.attached is not None:
            self._forget(tenant.process)
            self._forget(tenant.lifeline)
        self._unanswered = {key: asked for key, asked in self._unanswered.items() if asked[1] is not tenant}
        self._shares.leave(tenant.number)
        tenant.leaving = True
        if tenant.attached is None or all(other.leaving for other in self._tenants):
            self._tenants.remove(tenant)
        else:
            self._ask_pager(Packet("detach", (tenant.number,)), tenant)

    # -- deaths -------------------------------------------------------------------------------------------------------

    def _worth_another(self, status: int) -> bool:
        """Whether the pager that died with this wait status should have a successor."""
        faults = self._tables.counters[vmstat.INDEX["pgfault"]]
        self._deaths = self._deaths + 1 if faults == self._faults else 1
        self._faults = faults
        # Of one that had nothing left to do it cannot be said that it has answered nothing: nobody has asked.
        rested = self._tables.header[Tables.HEADER_RESTED] == self._tables.header[Tables.HEADER_PAGER_STARTS]
        if rested and from_outside(status):
            self._deaths = 0
        note = self._tables.header[Tables.HEADER_NOTE]
        self._tables.header[Tables.HEADER_NOTE] = 0
        hopeless = self._deaths > _DEATHS
        if self._suspicion.convicts(note, status, hopeless=hopeless):
            self._convict(note, status)
            self._deaths = 0
            return True
        return not hopeless

    def _convict(self, note: int, status: int) -> None:
        """Pagers die at this page: let the next one give it up, or keep its hands off it."""
        page, down = read_note(note)
        address = self.config.arena_address + page * self.config.page_size
        said = f"the pager ended {CONVICTED_AFTER} times or more ({_how(status)}) at page {page} (address {address:#x})"
        if down:
            self._held.add(page)
            say(f"{said} while moving it down; it stays where it is from now on")
        else:
            self._tables.header[Tables.HEADER_DOOMED] = page + 1
            say(f"{said}; that page is lost, and whoever touches it gets a SIGBUS")

    def _kill_everybody(self, status: int) -> None:
        say(
            f"the pager ended {self._deaths} times ({_how(status)}) without answering a fault; "
            "the program is ended, its tiered memory cannot be served"
        )
        for tenant in self._tenants:
            if tenant.attached is not None:
                with contextlib.suppress(ProcessLookupError):
                    signal.pidfd_send_signal(tenant.process, signal.SIGKILL)
                select.select([tenant.process], [], [])

    def _report(self) -> None:
        if self._report_to >= 0:
            books = statistics.collect(self._tables, [spec.name for spec in self.config.nodes])
            report_to, self._report_to = self._report_to, -1
            with os.fdopen(report_to, "w") as report, contextlib.suppress(BrokenPipeError):
                json.dump(books, report)


def _how(status: int) -> str:
    """A wait status, for people."""
    return f"signal {os.WTERMSIG(status)}" if os.WIFSIGNALED(status) else f"status {os.WEXITSTATUS(status)}"


def _tell(peer: socket.socket, packet: Packet) -> None:
    """Pass something on, to whom it may concern no longer."""
    with contextlib.suppress(OSError):
        control.send(peer, packet.word, *packet.numbers, fds=packet.fds)


def main(configuration: str) -> NoReturn:
    """Become the supervisor of a memory. Never returns."""
    libc.hide_process()  # the pager, too, which is forked from this one: it has pages and keys in its memory
    config = Config.loads(configuration)
    os.chdir("/")
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(null, 1)
    os.close(null)
    # Every source that the program has open is open here and in the pager, too.
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM, signal.SIGPIPE):
        signal.signal(number, signal.SIG_IGN)
    # If the program ignores SIGCHLD, so did this process, and the kernel would not say how a pager has ended.
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    setproctitle("thermocline-supervisor")
    status = 1
    try:
        status = Supervisor(config).run()
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stderr.flush()
        os._exit(status)
