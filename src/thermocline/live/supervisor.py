"""The supervisor: the process that holds every descriptor, so that nothing is lost with the pager.

Closing the last userfaultfd descriptor would wake the waiters into pages of zeros. So this process does as little as
can be done: it starts the pager, passes on the program's messages, waits for either to end, and writes the last
statistics. It is not a child of the program (a program may wait for *its* children), and sits in a session of its
own, out of reach of the terminal's Ctrl-C.

Messages on the control socket (SOCK_SEQPACKET): ``source N OFFSET LENGTH`` with a descriptor, answered when the pager
has it; ``drop N``; ``close``. A pager inherits the sources that its predecessor knew, before it does anything: recovery
may have to read from them.

Who ends when:

- the program ends, or closes the memory: the pager is told, and both processes go.
- the supervisor ends: the program is killed by the kernel, through its *lifeline*, a socket whose other end this
  process holds, set to signal when it hangs up (fcntl(2), ``F_SETSIG``). A program whose faults nobody answers must
  not wait for ever, nor read zeros.
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
import sys
import time
from typing import NoReturn

from setproctitle import setproctitle

from thermocline.live import libc, statistics
from thermocline.live import pager as pager_process
from thermocline.live.config import Config
from thermocline.live.sources import CLOSE, MESSAGE_BYTES, REFUSED
from thermocline.live.suspicion import CONVICTED_AFTER, Suspicion, from_outside, read_note
from thermocline.live.tables import Tables
from thermocline.protocol import vmstat

#: Seconds that a pager which was told to close may take for it.
_CLOSE_SECONDS = 5.0
#: Pagers in a row that may die without having answered a fault.
_DEATHS = 5


class Supervisor:
    """One tiered memory's supervisor."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.program = socket.socket(fileno=config.control)
        self._tables = Tables(config.tables, config.pages)
        #: Every source that the program has opened, for the next pager, and those whose answer it waits for.
        self._sources: dict[int, tuple[bytes, int]] = {}
        self._unanswered: dict[bytes, None] = {}
        self._hung_up = False
        self._deaths = 0
        self._faults = -1
        self._suspicion = Suspicion()
        #: Pages that no pager moves any more. One stays in here when its array is freed: its address is then a page of
        #: another array that does not sink, which costs a frame.
        self._held: set[int] = set()

    def run(self) -> int:
        """Serve until the program or the memory ends -> exit status."""
        while True:
            status = self._with_pager()
            if status is None:
                self._report()
                return 0
            if not self._worth_another(status):
                self._kill_program(status)
                self._report()
                return 1

    def _with_pager(self) -> int | None:
        """Run one pager -> its wait status if it died, None when it is over."""
        pager, channel = self._start_pager()
        sentinel = os.pidfd_open(pager)
        poll = select.poll()
        for fd in (sentinel, self.config.program, self.program.fileno(), channel.fileno()):
            poll.register(fd, select.POLLIN)
        if self._hung_up:
            poll.unregister(self.program)
        try:
            # A pager is born with every source there is: what its predecessor had not answered is known to it.
            for message in self._unanswered:
                self._send(message)
            self._unanswered.clear()
            while True:
                for fd, _ in poll.poll():
                    if fd == sentinel:
                        self._tables.header[Tables.HEADER_DIED_AT] = time.monotonic_ns()
                        return os.waitpid(pager, 0)[1]
                    if fd == channel.fileno():
                        answer = _receive(channel)
                        if not answer:
                            poll.unregister(channel)  # its sentinel tells the rest
                        elif answer in self._unanswered:
                            del self._unanswered[answer]
                            self._send(answer)
                    elif fd == self.config.program or not self._pass_on(channel, poll):
                        self._end_pager(pager, sentinel, channel)
                        return None
        finally:
            os.close(sentinel)
            channel.close()

    def _end_pager(self, pager: int, sentinel: int, channel: socket.socket) -> None:
        with contextlib.suppress(OSError):
            channel.send(CLOSE)
        if not select.select([sentinel], [], [], _CLOSE_SECONDS)[0]:
            os.kill(pager, signal.SIGKILL)
        os.waitpid(pager, 0)

    def _start_pager(self) -> tuple[int, socket.socket]:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        pid = os.fork()
        if pid:
            theirs.close()
            return pid, ours
        status = 1
        try:
            setproctitle("thermocline-pager")
            # The lifeline must hang up when the supervisor dies, whether or not the pager lives.
            os.close(self.config.lifeline)
            ours.close()
            self.program.close()
            config = Config(**{**vars(self.config), "control": theirs.detach()})
            status = pager_process.main(config, self._held, self._sources.values())
        except BaseException:
            sys.excepthook(*sys.exc_info())
        finally:
            sys.stderr.flush()
            os._exit(status)

    def _pass_on(self, channel: socket.socket, poll: select.poll) -> bool:
        """Hand one message of the program to the pager -> False when it is the last."""
        message, fds, _, _ = socket.recv_fds(self.program, MESSAGE_BYTES, 1)
        if not message:
            # The program has closed its end, but a program that is still there has not closed the memory.
            self._hung_up = True
            poll.unregister(self.program)
            return True
        if message == CLOSE:
            return False
        number = int(message.split()[1])
        if message.startswith(b"drop"):
            os.close(self._sources.pop(number)[1])
        elif fds:
            self._sources[number] = (message, fds[0])
            self._unanswered[message] = None
        else:
            self._send(REFUSED)
            return True
        with contextlib.suppress(OSError):  # a pager that just died: its successor gets every source
            socket.send_fds(channel, [message], fds)
        return True

    def _send(self, answer: bytes) -> None:
        with contextlib.suppress(OSError):
            self.program.send(answer)

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
            self._say(f"{said} while moving it down; it stays where it is from now on")
        else:
            self._tables.header[Tables.HEADER_DOOMED] = page + 1
            self._say(f"{said}; that page is lost, and whoever touches it gets a SIGBUS")

    def _kill_program(self, status: int) -> None:
        self._say(
            f"the pager ended {self._deaths} times ({_how(status)}) without answering a fault; "
            "the program is ended, its tiered memory cannot be served"
        )
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.config.program, signal.SIGKILL)
        select.select([self.config.program], [], [])

    def _say(self, message: str) -> None:
        with contextlib.suppress(OSError):  # stderr may be gone, and the program not
            print(f"thermocline: {message}", file=sys.stderr, flush=True)

    def _report(self) -> None:
        if self.config.report >= 0:
            books = statistics.collect(self._tables, [spec.name for spec in self.config.nodes])
            with os.fdopen(self.config.report, "w") as report, contextlib.suppress(BrokenPipeError):
                json.dump(books, report)


def _how(status: int) -> str:
    """A wait status, for people."""
    return f"signal {os.WTERMSIG(status)}" if os.WIFSIGNALED(status) else f"status {os.WEXITSTATUS(status)}"


def _receive(channel: socket.socket) -> bytes:
    try:
        return channel.recv(MESSAGE_BYTES)
    except ConnectionError:
        return b""


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
    setproctitle("thermocline-supervisor")
    status = 1
    try:
        status = Supervisor(config).run()
    finally:
        sys.stderr.flush()
        os._exit(status)
