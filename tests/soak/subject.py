"""The program of ``program.py`` as seen from outside: told what to do, robbed of its pagers, and timed."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import select
import signal
import socket
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from member import GoneError, Member

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from pagers import children, find_supervisor, open_fault_counter, wait_for_pager

PROGRAM = Path(__file__).with_name("program.py")
#: Seconds that a step may take: more is a hang.
LIMIT = 30
#: Seconds that a stopped pager stays so, if the step does not end before.
STOPPED = 0.01
#: Pagers killed in a row without a fault in between. Six would be the end of the program; injection may add two.
MOST_KILLS = 2


class HangError(AssertionError):
    """A step takes for ever."""


@dataclass
class Tally:
    """What has been done so far."""

    examples: int = 0
    steps: int = 0
    forks: int = 0
    guests: int = 0
    members_killed: int = 0
    programs_outlived: int = 0
    descriptors_lost: int = 0
    executions: int = 0
    limits: int = 0
    refusals: int = 0
    kills: int = 0
    stops: int = 0
    deaths_injected: int = 0
    disturbed_calls: int = 0
    lost_pages: int = 0
    wrong: int = 0
    hangs: int = 0


class Step(NamedTuple):
    """What a process is told."""

    what: str
    arguments: dict[str, Any]


@dataclass
class Subject:
    """A running program, with at most one memory at a time, and those that share it.

    Attributes
    ----------
    members : dict of int to Member
        The program is number 0, as long as it is there.
    trace : list
        What they were told since the memory was made: steps by number, and what was planned for the pagers meanwhile.
    limit : float
        Seconds that a step may take.
    plan : list
        What is to be done to pagers while the next step is under way: milliseconds, and what.
    """

    tally: Tally
    trace: list[Any] = field(default_factory=list)
    limit: float = LIMIT
    members: dict[int, Member] = field(default_factory=dict)
    plan: list[tuple[int, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._stderr = tempfile.TemporaryFile("w+")  # noqa: SIM115
        self._last_words: bytes | None = None
        address = f"thermocline-soak-{secrets.token_hex(8)}"
        self._door = socket.socket(socket.AF_UNIX)
        self._door.bind("\0" + address)
        self._door.listen()
        #: Starts all others.
        self._first = subprocess.Popen(
            [sys.executable, str(PROGRAM), address],
            stdin=subprocess.DEVNULL,
            stderr=self._stderr,
            start_new_session=True,  # Ctrl-C is for whoever watches
            env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
        )
        self._parent = self._let_in("first process")
        self.supervisor = self._pager = -1
        self._faults: memoryview | None = None
        self._faults_then = self._kills_since = 0

    @property
    def running(self) -> bool:
        """Whether it can be told something."""
        return self._last_words is None

    # -- its processes ------------------------------------------------------------------------------------------------

    def _let_in(self, name: str) -> Member:
        if not select.select([self._door], [], [], self.limit)[0]:
            raise HangError(f"the {name} does not come to be\n{self.state()}")
        connection, _ = self._door.accept()
        return Member(name, connection)

    def start(self, number: int, directory: str, *, lossy: bool, page: int) -> None:
        """Start a process that has nothing: the program, which is number 0, or a guest. It may still be there."""
        if number not in self.members:
            self._ask_parent("fork")
            self.members[number] = member = self._let_in(f"guest {number}" if number else "program")
            self._hear(member, "fork")
        self.tell("meet", number, directory=directory, lossy=lossy, page=page)

    def fork(self, parent: int, number: int, others: dict[int, Step]) -> dict[int, dict[str, Any]]:
        """Let a process fork, and others do something meanwhile -> answers; the child's are the parent's, too."""
        answers = self.tell_all({parent: Step("fork", {}), **others})
        self.members[number] = child = self._let_in(f"child {number}")
        answers[number] = self._hear(child, "fork")
        return answers

    def execute(self, number: int, others: dict[int, Step]) -> dict[int, dict[str, Any]]:
        """Let a process run its program anew in its place, and others do something meanwhile -> their answers."""
        self.tally.executions += 1
        self.trace.append([{number: Step("execute", {}), **others}, self.plan])
        try:
            before = self.members[number]
            before.begin("execute", {})
            for other, (what, arguments) in others.items():
                self.members[other].begin(what, arguments)
            self._disturb(number)
            self.members[number] = after = self._let_in(f"{before.name} that was run anew")
            before.close()
            if after.pid != before.pid:
                raise AssertionError(f"{after.pid} speaks for the {before.name}, {before.pid}")
            return {other: self._hear(self.members[other], what) for other, (what, _) in others.items()}
        except BaseException:
            self.end()
            raise

    def dismiss(self, number: int, how: str) -> None:
        """Let a process end, or end it."""
        self.trace.append([{number: Step(how, {})}, []])
        member = self.members[number]
        if how == "kill":
            self.tally.members_killed += 1
            member.kill()
        else:
            member.begin(how, {})
        self._await_end(number, 0 if how != "kill" else -signal.SIGKILL)

    def _await_end(self, number: int, status: int) -> None:
        member = self.members[number]
        if not member.gone_within(self.limit):
            raise HangError(f"the {member.name} does not end\n{self.state()}")
        del self.members[number]
        got = self._status_of(member)
        member.close()
        if got not in (None, status):
            raise AssertionError(f"the {member.name} has ended with status {got}\n{self.said()}")

    def _status_of(self, member: Member) -> int | None:
        """How a process has ended, if the first one has started it."""
        said: int | None = self._ask_parent("status", pid=member.pid)
        return said

    def _ask_parent(self, what: str, **arguments: Any) -> Any:
        self._parent.begin(what, arguments)
        return self._hear(self._parent, what)["said"]

    # -- what they do -------------------------------------------------------------------------------------------------

    def tell(self, what: str, number: int = 0, **arguments: Any) -> dict[str, Any]:
        """Let a process do one thing, with its pagers dying as planned -> its answer."""
        return self.tell_all({number: Step(what, arguments)})[number]

    def tell_all(
        self, steps: dict[int, Step], killed: int | None = None, milliseconds: int = 0
    ) -> dict[int, dict[str, Any]]:
        """Let processes do something at the same time -> their answers.

        One may be killed at it, so many milliseconds after the beginning. It is gone, and seldom has an answer.
        Everything is ended if anything is wrong.
        """
        self.trace.append([steps, self.plan, killed, milliseconds])
        try:
            for number, (what, arguments) in steps.items():
                self.members[number].begin(what, arguments)
            self._disturb(next(iter(steps)))
            answers = {}
            if killed is not None:
                member = self.members[killed]
                if member.answers_within(milliseconds / 1000):
                    answers[killed] = self._hear(member, steps[killed].what)
                self.tally.members_killed += 1
                member.kill()
                self._await_end(killed, -signal.SIGKILL)
            for number, (what, _) in steps.items():
                if number != killed:
                    answers[number] = self._hear(self.members[number], what)
            return answers
        except BaseException:
            self.end()
            raise

    def _hear(self, member: Member, what: str) -> dict[str, Any]:
        if not member.answers_within(self.limit):
            raise HangError(f"{what}, {member.name}, hangs\n{self.state()}")
        try:
            return member.answer(what, self.said)
        except GoneError as gone:
            # Children of others are nobody's.
            status = self._status_of(member) if member.name != "first process" else None
            raise AssertionError(f"{gone}, status {status}\n{self.said()}") from None

    # -- its pagers ---------------------------------------------------------------------------------------------------

    def find_helpers(self) -> None:
        """Look at the helpers of the memory that it has just made."""
        program = self.members[0].pid
        self.supervisor = find_supervisor(program)
        self._faults = open_fault_counter(program)
        self._faults_then = self._kills_since = 0

    def await_helpers(self) -> None:
        """See that they end, now that nobody uses the memory."""
        with contextlib.suppress(OSError):  # gone already
            handle = os.pidfd_open(self.supervisor)
            ended = select.select([handle], [], [], self.limit)[0]
            os.close(handle)
            if not ended:
                raise HangError(f"the supervisor does not end\n{self.state()}")

    def _disturb(self, number: int) -> None:
        """Do to pagers what is planned, while a process is at work."""
        plan, self.plan = self.plan, []
        for milliseconds, how in plan:
            self.members[number].answers_within(milliseconds / 1000)  # it is this instant that is random
            self._do_to_pager(how, number)

    def _do_to_pager(self, how: str, number: int) -> None:
        """Kill it, or stop it for a moment, or both; unless that would be too much, or there is none any more."""
        assert self._faults is not None
        self._kills_since = 0 if self._faults[0] != self._faults_then else self._kills_since
        if self._kills_since == MOST_KILLS:
            return
        found = wait_for_pager(self.supervisor, self._pager, self._first)
        if found is None:
            return
        pager, handle = found
        with contextlib.suppress(ProcessLookupError):
            if "stop" in how:
                signal.pidfd_send_signal(handle, signal.SIGSTOP)
                self.tally.stops += 1
                self.members[number].answers_within(STOPPED)
            if "kill" in how:
                self._pager = pager
                self._faults_then = self._faults[0]
                self._kills_since += 1
                signal.pidfd_send_signal(handle, signal.SIGKILL)
                self.tally.kills += 1
            else:
                signal.pidfd_send_signal(handle, signal.SIGCONT)
        os.close(handle)

    # -- what it and its helpers say ----------------------------------------------------------------------------------

    def said(self, since: int = 0) -> str:
        """What is on stderr, from a position on."""
        if self._last_words is not None:
            return self._last_words[since:].decode()
        return os.pread(self._stderr.fileno(), self.position() - since, since).decode()

    def position(self) -> int:
        """How much is on stderr."""
        return os.fstat(self._stderr.fileno()).st_size

    def has_announced(self, page: int, since: int) -> bool:
        """Whether stderr says that a page cannot be read, or is lost."""
        said = self.said(since)
        return bool(re.search(rf"page {page} \(.*cannot be read|at page {page} \(.*that page is lost", said))

    def has_said_that_a_child_is_not_served(self, since: int) -> bool:
        """Whether stderr says so."""
        return "this forked child has touched a tiered array" in self.said(since)

    def state(self) -> str:
        """Where everybody is: the stacks of the program, and what its processes wait for, says the kernel."""
        before = self.position()
        for member in self.members.values():
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(member.handle, signal.SIGUSR1)
        for member in self.members.values():
            member.answers_within(1)
        lines = [self.said(before)]
        everybody = [(member.name, member.pid) for member in self.members.values()]
        for name, pid in (*everybody, ("supervisor", self.supervisor), *self._pagers()):
            for task in sorted(Path(f"/proc/{pid}/task").glob("*")):
                with contextlib.suppress(OSError):
                    status = dict(line.split(":\t", 1) for line in (task / "status").read_text().splitlines())
                    where = ", ".join(line.split()[-1] for line in (task / "stack").read_text().splitlines())
                    lines.append(f"{name} {task.name} ({status['Name']}): {status['State']}; {where}")
        return "\n".join([*lines, "said so far:", self.said()])

    def _pagers(self) -> list[tuple[str, int]]:
        return [("pager", pid) for pid in children(self.supervisor)]

    # -- its end ------------------------------------------------------------------------------------------------------

    def end(self) -> None:
        """Kill them all, those that have not come to be, too; the helpers go with them."""
        if not self.running:
            return
        os.killpg(self._first.pid, signal.SIGKILL)
        self._first.wait()
        for member in (*self.members.values(), self._parent):
            member.gone_within(LIMIT)
            member.close()
        self._door.close()
        self._last_words = self.said().encode()
        self._stderr.close()
        self._faults = None
        with contextlib.suppress(OSError):  # there is none, or none any more
            handle = os.pidfd_open(self.supervisor)
            select.select([handle], [], [], LIMIT)
            os.close(handle)
