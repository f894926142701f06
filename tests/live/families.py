"""Forked children of a test, and what they wait for."""

from __future__ import annotations

import os
import select
import signal
import sys
from collections.abc import Callable

from test_processes import helpers

from thermocline import Memory
from thermocline.live.tables import Tables
from thermocline.protocol.vmstat import INDEX


def forked(action: Callable[[], object]) -> int:
    """Run something in a forked child -> its pid. The status says whether it was true."""
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        status = 0 if action() else 1
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stderr.flush()
        os._exit(status)


def status_of(pid: int) -> int:
    """How a child ended."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def starts(memory: Memory) -> int:
    """How many pagers there were."""
    count: int = memory.stat()["pager"]["starts"]
    return count


def wait_for(memory: Memory, processes: int) -> None:
    """Wait until so many processes use a memory: the supervisor learns of an end as we do, and may be slower."""
    while memory.stat()["processes"] != processes:
        os.sched_yield()
    memory.stat()


def kill_pagers(memory: Memory, program: int, kills: int) -> bool:
    """Kill one pager after the other, each when it has answered a fault."""
    header, counters = memory._regions.session.tables.header, memory._regions.session.tables.counters
    for _ in range(kills):
        began, faults = header[Tables.HEADER_PAGER_STARTS], counters[INDEX["pgfault"]]
        while counters[INDEX["pgfault"]] == faults:
            os.sched_yield()
        os.kill(helpers(program)["thermocline-pager"], signal.SIGKILL)
        while header[Tables.HEADER_PAGER_STARTS] == began:
            os.sched_yield()
    return True


class Steps:
    """Makes a child wait for its turn, and the parent for the child's."""

    def __init__(self) -> None:
        self._go, self._done = os.pipe(), os.pipe()

    @property
    def descriptors(self) -> list[int]:
        """What a child needs for it."""
        return [*self._go, *self._done]

    def close(self) -> None:
        """In the parent."""
        for fd in self.descriptors:
            os.close(fd)

    def turn(self) -> None:
        """In the child: wait until the parent lets it go on."""
        assert os.read(self._go[0], 1)

    def done(self) -> None:
        """In the child: let the parent go on."""
        os.write(self._done[1], b".")

    def let(self) -> None:
        """In the parent: let the child take its turn, and wait until it is done."""
        self.go_on()
        self.wait()

    def wait(self) -> None:
        """In the parent: wait until the child is done."""
        assert select.select([self._done[0]], [], [], 30)[0], "the child does not answer"
        os.read(self._done[0], 1)

    def go_on(self) -> None:
        """In the parent: let the child go on."""
        os.write(self._go[1], b".")
