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
import gc
import json
import os
import select
import signal
import socket
import sys
import time
from typing import NoReturn

from setproctitle import setproctitle

from thermocline.live import control, injection, libc, limits, statistics
from thermocline.live import pager as pager_process
from thermocline.live.channel import Channel
from thermocline.live.config import Config
from thermocline.live.descriptor import Descriptor
from thermocline.live.messages import say
from thermocline.live.pidfd import has_ended
from thermocline.live.reception import Reception
from thermocline.live.suspicion import CONVICTED_AFTER, Despair, Suspicion, read_note
from thermocline.live.tables import Tables
from thermocline.protocol import vmstat

#: Seconds that a pager which was told to close may take for it.
_CLOSE_SECONDS = 5.0
#: Milliseconds after which it looks at processes that may have left without a word.
_LOOK_MILLISECONDS = 1000
#: Seconds for which pagers may be killed, from outside, before they have answered a fault.
_PATIENCE = 30.0


class Supervisor:
    """One tiered memory's supervisor."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self._tables = Tables(Descriptor(config.tables), config.pages)
        self._tables.header[Tables.HEADER_SUPERVISOR] = os.getpid()
        self._poll = select.poll()
        self._report_to = config.report
        self._reception = Reception(config, self._tables, self._poll, self._report)
        self._suspicion = Suspicion()
        self._despair = Despair(injection.patience_of(config.inject) or _PATIENCE)
        #: Pages that no pager moves any more. One stays in here when its array is freed: its address is then a page of
        #: another array that does not sink, which costs a frame.
        self._held: set[int] = set()

    def run(self) -> int:
        """Serve until nobody uses the memory any more -> exit status."""
        while True:
            died = self._with_pager()
            if died is None:
                self._report()
                return 0
            if not self._worth_another(*died):
                self._kill_everybody(died[1])
                self._report()
                return 1

    # -- the pager ----------------------------------------------------------------------------------------------------

    def _with_pager(self) -> tuple[int, int] | None:
        """Run one pager -> its pid and wait status if it died, None when it is over."""
        pager, peer = self._start_pager()
        sentinel = os.pidfd_open(pager)
        self._poll.register(sentinel, select.POLLIN)
        self._reception.meet_pager(peer)
        try:
            silent = self._reception.look()
            while self._reception.is_needed:
                for fd, _ in self._poll.poll(_LOOK_MILLISECONDS if silent else None):
                    if fd == sentinel:
                        self._tables.header[Tables.HEADER_DIED_AT] = time.monotonic_ns()
                        return os.waitpid(pager, 0)
                    if self._reception.hear(fd):
                        break  # what else had news may be closed by now
                silent = self._reception.look()
            with contextlib.suppress(OSError):
                control.send(peer, "close")
            if not has_ended(sentinel, _CLOSE_SECONDS):
                os.kill(pager, signal.SIGKILL)
            os.waitpid(pager, 0)
            return None
        finally:
            self._reception.part_with_pager()
            self._poll.unregister(sentinel)
            os.close(sentinel)

    def _start_pager(self) -> tuple[int, Channel]:
        ours, theirs = Channel.pair(socket.SOCK_SEQPACKET)
        pid = os.fork()
        if pid:
            theirs.close()
            return pid, ours
        status = 1
        try:
            setproctitle("thermocline-pager")
            ours.close()
            if self._report_to >= 0:
                os.close(self._report_to)
            known = self._reception.keep_in_pager()
            status = pager_process.main(self.config, theirs, known, self._reception.sources.values(), self._held)
        except BaseException:
            sys.excepthook(*sys.exc_info())
        finally:
            sys.stderr.flush()
            os._exit(status)

    # -- deaths -------------------------------------------------------------------------------------------------------

    def _worth_another(self, pager: int, status: int) -> bool:
        """Whether the pager that died with this wait status should have a successor."""
        rested = self._tables.header[Tables.HEADER_RESTED] == pager
        faults = self._tables.counters[vmstat.INDEX["pgfault"]]
        hopeless = self._despair.grows(status, faults, time.monotonic(), rested=rested)
        note = self._tables.header[Tables.HEADER_NOTE]
        self._tables.header[Tables.HEADER_NOTE] = 0
        if self._suspicion.convicts(note, status, hopeless=hopeless):
            self._convict(note, status)
            self._despair.end()
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
            say(f"{said}; that page is lost, and a thread that touches it gets SIGBUS")

    def _kill_everybody(self, status: int) -> None:
        say(
            f"the pager ended {self._despair.deaths} times ({_how(status)}) without answering a fault; "
            "the program is ended, its tiered memory cannot be served"
        )
        for process in self._reception.processes:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(process, signal.SIGKILL)
            has_ended(process)

    def _report(self) -> None:
        if self._report_to >= 0:
            books = statistics.collect(self._tables, [spec.name for spec in self.config.nodes])
            books["replaced"] = self._reception.replaced
            report_to, self._report_to = self._report_to, -1
            # Whoever wanted to know may be gone; the file is flushed when it is closed, and says so then.
            with contextlib.suppress(OSError), os.fdopen(report_to, "w") as report:
                report.write(json.dumps(books) + "\n")


def _how(status: int) -> str:
    """A wait status, for people."""
    return f"signal {os.WTERMSIG(status)}" if os.WIFSIGNALED(status) else f"status {os.WEXITSTATUS(status)}"


def _settle_standard_streams() -> None:
    """Leave none of them closed: what is opened next, or received from a process, would stand in for it."""
    null = os.open(os.devnull, os.O_RDWR)
    try:
        os.fstat(2)
    except OSError:
        os.dup2(null, 2)
    for standard in (0, 1):
        os.dup2(null, standard)
    if null > 2:
        os.close(null)
    if sys.stderr is None:  # it was closed when the interpreter started
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115 - for as long as this process lives


def main(configuration: str) -> NoReturn:
    """Become the supervisor of a memory. Never returns."""
    libc.hide_process()  # the pager, too, which is forked from this one: it has pages and keys in its memory
    config = Config.loads(configuration)
    os.chdir("/")
    _settle_standard_streams()
    limits.raise_all()  # every source that the program has open, for one, is open here and in the pager, too
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM, signal.SIGPIPE):
        signal.signal(number, signal.SIG_IGN)
    # If the program ignores SIGCHLD, so did this process, and the kernel would not say how a pager has ended.
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    setproctitle("thermocline-supervisor")
    gc.freeze()  # a collection would write to each object, and so copy the pages that pagers share with this process
    status = 1
    try:
        status = Supervisor(config).run()
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stderr.flush()
        os._exit(status)
