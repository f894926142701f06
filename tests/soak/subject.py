"""The program of ``program.py`` as seen from outside: told what to do, robbed of its pagers, and timed."""

from __future__ import annotations

import contextlib
import json
import os
import re
import select
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

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
    kills: int = 0
    stops: int = 0
    deaths_injected: int = 0
    disturbed_calls: int = 0
    lost_pages: int = 0
    wrong: int = 0
    hangs: int = 0


@dataclass
class Subject:
    """A running program, with at most one memory at a time.

    Attributes
    ----------
    trace : list
        What it was told since its memory was made: step, arguments, and what was planned for its pagers meanwhile.
    limit : float
        Seconds that a step may take.
    """

    tally: Tally
    trace: list[Any] = field(default_factory=list)
    limit: float = LIMIT

    def __post_init__(self) -> None:
        self._stderr = tempfile.TemporaryFile("w+")  # noqa: SIM115
        self._last_words: bytes | None = None
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(
            [sys.executable, str(PROGRAM)],
            stdin=pipe,
            stdout=pipe,
            stderr=self._stderr,
            text=True,
            start_new_session=True,  # Ctrl-C is for whoever watches
        )
        self.supervisor = self._pager = -1
        self._faults: memoryview | None = None
        self._faults_then = self._kills_since = 0
        #: What is to be done to pagers while the next step is under way: milliseconds, and what.
        self.plan: list[tuple[int, str]] = []

    @property
    def running(self) -> bool:
        """Whether it can be told something."""
        return self.process.poll() is None

    def tell(self, what: str, **arguments: Any) -> dict[str, Any]:
        """Let it do one thing, with its pagers dying as planned -> its answer. It is ended if anything is wrong."""
        self.trace.append([what, arguments, self.plan])
        try:
            return self._tell(what, arguments)
        except BaseException:
            self.end()
            raise

    def _tell(self, what: str, arguments: dict[str, Any]) -> dict[str, Any]:
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(json.dumps([what, arguments]) + "\n")
        self.process.stdin.flush()
        plan, self.plan = self.plan, []
        for milliseconds, how in plan:
            self._answers_within(milliseconds / 1000)  # it is this instant that is random
            self._do_to_pager(how)
        if not self._answers_within(self.limit):
            raise HangError(f"{what} hangs\n{self.state()}")
        line = self.process.stdout.readline()
        if not line:
            raise AssertionError(f"{what} ended the program, status {self.process.wait()}\n{self.said()}")
        answer: dict[str, Any] = json.loads(line)
        if "wrong" in answer:
            raise AssertionError(f"{what}: {answer['wrong']}\n{self.said()}")
        return answer

    def _answers_within(self, seconds: float) -> bool:
        return bool(select.select([self.process.stdout], [], [], seconds)[0])

    # -- its pagers ---------------------------------------------------------------------------------------------------

    def find_helpers(self) -> None:
        """Look at the helpers of the memory that it has just made."""
        self.supervisor = find_supervisor(self.process.pid)
        self._faults = open_fault_counter(self.process.pid)
        self._faults_then = self._kills_since = 0

    def _do_to_pager(self, how: str) -> None:
        """Kill it, or stop it for a moment, or both; unless that would be too much, or there is none any more."""
        assert self._faults is not None
        self._kills_since = 0 if self._faults[0] != self._faults_then else self._kills_since
        if self._kills_since == MOST_KILLS:
            return
        found = wait_for_pager(self.supervisor, self._pager, self.process)
        if found is None:
            return
        pager, handle = found
        with contextlib.suppress(ProcessLookupError):
            if "stop" in how:
                signal.pidfd_send_signal(handle, signal.SIGSTOP)
                self.tally.stops += 1
                self._answers_within(STOPPED)
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

    def state(self) -> str:
        """Where everybody is: the stacks of the program, and what its processes wait for, says the kernel."""
        before = self.position()
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(signal.SIGUSR1)
        self._answers_within(1)
        lines = [self.said(before)]
        for name, pid in (("program", self.process.pid), ("supervisor", self.supervisor), *self._pagers()):
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
        """Kill it; its helpers go with it."""
        self.process.kill()
        self.process.communicate()
        self._last_words = self.said().encode()
        self._stderr.close()
        self._faults = None
        with contextlib.suppress(OSError):  # there is none, or none any more
            handle = os.pidfd_open(self.supervisor)
            select.select([handle], [], [], LIMIT)
            os.close(handle)
