"""The processes that use a memory, as its supervisor knows them: the program that made it, and whoever shares it.

A process comes in two steps. Before a fork, its parent sends a socket; the child says on it that it is there, with all
that it takes to serve it. A child that never says so has never touched anything.

A process is gone when the kernel says so of its pidfd, or when its end of the lifeline is closed and its address space
is gone: it runs another program then. One that has merely closed descriptors that it did not know still has its arrays.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from thermocline.live.control import Packet
from thermocline.live.tables import Tables
from thermocline.live.userfaultfd import UserFaultFd


@dataclass(eq=False)
class Tenant:
    """A process that uses the memory, or is about to.

    Attributes
    ----------
    socket : socket
        What it says comes from here.
    row : int
        Of the table of children; 0 is the program.
    attached : Packet or None
        How the pager is told of it: number, address, userfaultfd, pidfd.
    lifeline : int
        Closing it kills the process (see :func:`thermocline.live.launch.hold_lifeline`), unless it has let go.
    leaving : bool
        It does not use the memory any more, but the pager may not know that yet.
    welcome : bool
        It was forked, or knows the secret.
    """

    number: int
    socket: socket.socket
    row: int
    attached: Packet | None = None
    lifeline: int = -1
    leaving: bool = False
    welcome: bool = True

    @property
    def process(self) -> int:
        """Its pidfd, -1 when it has not said that it is there."""
        return self.attached.fds[1] if self.attached is not None else -1

    @property
    def has_left(self) -> bool:
        """Whether an attached process that has let its lifeline go runs another program now."""
        return self.attached is not None and UserFaultFd(self.attached.fds[0]).is_orphaned

    def close(self) -> None:
        """Close everything of its. Nothing of it is mapped any more."""
        self.socket.close()
        for fd in (self.lifeline, *(self.attached.fds if self.attached is not None else ())):
            with contextlib.suppress(OSError):
                os.close(fd)


class Tenants:
    """All of them, and the table of children, of which the supervisor strikes those that are gone."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables
        self._by_number: dict[int, Tenant] = {}
        self._rows: Counter[int] = Counter()
        self._next = 0

    def __iter__(self) -> Iterator[Tenant]:
        return iter(list(self._by_number.values()))

    def expect(self, peer: socket.socket, row: int) -> Tenant:
        """Somebody who is going to speak on a socket."""
        tenant = Tenant(self._next, peer, row)
        self._next += 1
        self._rows[row] += 1
        self._by_number[tenant.number] = tenant
        return tenant

    def attach(self, tenant: Tenant, address: int, uffd: int, process: int, lifeline: int) -> Packet:
        """Somebody is there -> what the pager is told of it."""
        tenant.attached = Packet("attach", (tenant.number, address), (uffd, process))
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
        self.strike(tenant.row)

    def strike(self, row: int) -> None:
        """Take a row back for which nobody stands any more."""
        if not self._rows[row]:
            del self._rows[row]
            self._tables.children[row] = 0
            self._tables.header[Tables.HEADER_DEPARTED] += 1
