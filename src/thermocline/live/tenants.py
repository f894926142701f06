"""The processes that use a memory, as its supervisor knows them: the program that made it, and whoever shares it.

A process comes in two steps. Before a fork, its parent makes a connection for it; the child says on it that it is
there, with all that it takes to serve it. A child that never says so has never touched anything.

A process is gone when the kernel says so of its pidfd, or when its end of the lifeline is closed and its address space
is gone: it runs another program then. One that has merely closed descriptors that it did not know still has its arrays.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from thermocline.live.channel import Channel
from thermocline.live.control import Packet, close_all
from thermocline.live.tables import MAX_CHILDREN, Tables
from thermocline.live.userfaultfd import UserFaultFd


@dataclass(eq=False)
class Tenant:
    """A process that uses the memory, or is about to.

    Attributes
    ----------
    channel : Channel
        What it says comes from here.
    row : int
        Of the table of children; 0 is the program, and processes that were sent a handle.
    fork : int
        Which of the program's forks it comes from; 0: none.
    parent_is_program : bool
        Whether it is a child of the program itself, and not of one of its children.
    copies : bool
        Whether it sees the arrays as they were at that fork, or shares them.
    expected : bool
        Its fork is under way: it has not been attached.
    attached : Packet or None
        How the pager is told of it: number, address, fork (0: it shares the arrays), userfaultfd, pidfd.
    lifeline : int
        Closing it kills the process (see :func:`thermocline.live.launch.hold_lifeline`), unless it has let go.
    leaving : bool
        It does not use the memory any more, but the pager may not know that yet.
    welcome : bool
        It was forked, or knows the secret.
    is_silent : bool
        It has closed its end of the lifeline, which tells that it runs another program.
    """

    number: int
    channel: Channel
    row: int
    fork: int = 0
    copies: bool = False
    parent_is_program: bool = False
    expected: bool = False
    attached: Packet | None = None
    lifeline: int = -1
    leaving: bool = False
    welcome: bool = True
    is_silent: bool = False

    @property
    def process(self) -> int:
        """Its pidfd, -1 when it has not said that it is there."""
        return self.attached.fds[1] if self.attached is not None else -1

    @property
    def has_left(self) -> bool:
        """Whether an attached process has ended, or runs another program now."""
        return self.attached is not None and UserFaultFd(self.attached.fds[0]).is_orphaned

    @property
    def runs_another(self) -> bool:
        """Whether it runs another program now, and has not ended since. One that is ending has no address space."""
        if not self.has_left:
            return False
        try:
            with open(f"/proc/{pid_of(self.process)}/statm", encoding="ascii") as sizes:
                return sizes.read().split()[0] != "0"
        except OSError:
            return False

    def close(self) -> None:
        """Close everything of its. Nothing of it is mapped any more."""
        self.channel.close()
        close_all((self.lifeline, *(self.attached.fds if self.attached is not None else ())))


def pid_of(process: int) -> int:
    """The process that a pidfd is of (proc(5), ``fdinfo``); -1 if it has ended."""
    with open(f"/proc/self/fdinfo/{process}", encoding="ascii") as lines:
        return next((int(line.split()[1]) for line in lines if line.startswith("Pid:")), -1)


class Tenants:
    """All of them, and the table of children, of which the supervisor strikes those that are gone."""

    def __init__(self, tables: Tables, *, copies: bool) -> None:
        self._tables = tables
        self._copies = copies
        self._forks = 0
        self._by_number: dict[int, Tenant] = {}
        self._rows: Counter[int] = Counter()
        self._next = 0

    def __iter__(self) -> Iterator[Tenant]:
        return iter(list(self._by_number.values()))

    def get(self, number: int) -> Tenant | None:
        """The process with a number, if it is there."""
        return self._by_number.get(number)

    def expect(self, peer: Channel) -> Tenant:
        """A process that is going to speak on a socket."""
        tenant = Tenant(self._next, peer, row=0)
        self._next += 1
        self._rows[0] += 1
        self._by_number[tenant.number] = tenant
        return tenant

    def fork(self, child: Tenant, parent: Tenant) -> bool:
        """A process is about to fork -> False: there are too many children at once."""
        of_program = parent.number == 0
        if of_program:
            row = next((row for row in range(1, MAX_CHILDREN) if not self._tables.children[row]), None)
            if row is None:
                return False
            self._forks += 1
            child.fork = self._tables.children[row] = self._forks
        else:
            row, child.fork = parent.row, parent.fork
        self._rows[0] -= 1
        self._rows[row] += 1
        child.row = row
        child.parent_is_program = of_program
        child.copies = self._copies and (of_program or parent.copies)
        child.expected = True
        self._publish()
        return True

    @property
    def expects_copy(self) -> bool:
        """Whether a fork is under way whose child is to see the arrays as they were: one at a time is."""
        return any(tenant.expected and tenant.copies for tenant in self._by_number.values())

    def arrived(self, child: Tenant) -> None:
        """A child is attached."""
        child.expected = False

    def _publish(self) -> None:
        """Tell the program how its forks stand."""
        header = self._tables.header
        header[Tables.HEADER_FORKS_BEGUN] = self._forks
        header[Tables.HEADER_NEWEST_FORK] = max(self._tables.children)

    def attach(self, tenant: Tenant, address: int, uffd: int, process: int, lifeline: int) -> Packet:
        """Somebody is there -> what the pager is told of it."""
        fork = tenant.fork if tenant.copies else 0
        tenant.attached = Packet("attach", (tenant.number, address, fork), (uffd, process))
        tenant.lifeline = lifeline
        self._tables.header[Tables.HEADER_ATTACHED] += 1
        return tenant.attached

    def remove(self, tenant: Tenant) -> None:
        """Somebody is gone, and with the last process of a fork the hold that this fork had on what was freed since."""
        del self._by_number[tenant.number]
        tenant.close()
        if tenant.attached is not None:
            self._tables.header[Tables.HEADER_ATTACHED] -= 1
        self._rows[tenant.row] -= 1
        if not self._rows[tenant.row]:
            del self._rows[tenant.row]
            self._tables.children[tenant.row] = 0
        self._publish()
        self._tables.header[Tables.HEADER_DEPARTED] += 1  # behind what it is the sign of
