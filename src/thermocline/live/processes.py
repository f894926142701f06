"""The processes that use a memory, as its pager knows them: where they have mapped the arena, and which are children.

The supervisor knows them as tenants (:mod:`thermocline.live.tenants`), and tells the pager of each.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

from thermocline.live.arena import Arena
from thermocline.live.control import Packet
from thermocline.live.copies import Copies
from thermocline.live.known_regions import KnownRegions
from thermocline.live.mapping import Mapping, SharedRanges
from thermocline.live.tables import Tables
from thermocline.live.userfaultfd import UserFaultFd
from thermocline.protocol.child import Child
from thermocline.protocol.cow import attach_child, begin_fork, forget_child
from thermocline.protocol.effects import Protocol
from thermocline.protocol.mm import Mm
from thermocline.protocol.scheduler import Scheduler

#: Called when what was begun is done.
Done = Callable[[], None]


class Processes:
    """Attaches processes to an arena, and detaches them. What takes protocols is spawned, and ends with ``done``."""

    def __init__(
        self, mm: Mm, arena: Arena, copies: Copies, scheduler: Scheduler, tables: Tables, regions: KnownRegions
    ) -> None:
        self._mm = mm
        self._arena = arena
        self._copies = copies
        self._scheduler = scheduler
        self._tables = tables
        self._regions = regions

    def expect(self, packet: Packet) -> None:
        """Know of a child that a predecessor was told to expect."""
        number, fork, of_program = packet.numbers
        self._note_fork(fork)
        self._mm.children[number] = Child(number, fork, inherits=not of_program)

    def begin_fork(self, packet: Packet, done: Done) -> None:
        """Let a process fork: from when this is done on, what the program writes is not its child's."""
        number, fork, of_program = packet.numbers
        self._regions.read_shares()

        def begin() -> Protocol[None]:
            # Before anything is protected, so that what a worker is about to install comes up protected as well.
            self._note_fork(fork)
            yield from begin_fork(self._mm, Child(number, fork), self._pinned(), of_program=bool(of_program))

        self._scheduler.spawn(begin(), done=lambda _: done())

    def attach(self, packet: Packet) -> Mapping:
        """Take the mapping of a process that is there -> what its faults come from."""
        number, address, fork = packet.numbers
        uffd, process = packet.fds
        page_size = self._arena.page_size
        faulting = Mapping(number, UserFaultFd(uffd), address, page_size, process, fork)
        mappings = [faulting]
        if fork:
            self._note_fork(fork)
            self._mm.children.setdefault(number, Child(number, fork, expected=False))
            ranges = tuple(self._shared_at(fork))
            if ranges:
                mappings.append(SharedRanges(number, faulting.uffd, address, page_size, process, ranges=ranges))
        for mapping in mappings:
            self._arena.attach(mapping)
        return faulting

    def admit(self, packet: Packet, done: Done) -> None:
        """Give a process that was just attached what was saved for it, if it is a child that sees copies."""
        number, _, fork = packet.numbers
        if fork:
            self._scheduler.spawn(attach_child(self._mm, number), done=lambda _: done())
        else:
            done()

    def detach(self, number: int) -> None:
        """Forget the mapping of a process that is gone, and close its descriptors."""
        gone = [mapping for mapping in self._arena.mappings if mapping.number == number]
        for mapping in gone:
            self._arena.detach(mapping)
            self._copies.forget(mapping)
        for mapping in gone[:1]:  # ranges that are shared by name have the same descriptors
            os.close(mapping.uffd.fd)
            os.close(mapping.process)

    def forget(self, number: int, done: Done) -> None:
        """Owe nothing any more to a process that is gone."""

        def forgotten(_: None) -> None:
            if not self._mm.children:
                self._arena.newest_fork = 0
            done()

        self._scheduler.spawn(forget_child(self._mm, number), done=forgotten)

    def child_at(self, mapping: Mapping, page: int) -> int:
        """Which child sees a page as it was, of those that a mapping may be of; 0: its process shares the page."""
        if not mapping.is_private:
            return 0
        region = self._mm.region_of(page)
        return mapping.number if region is None or not 0 < region.shared <= mapping.fork else 0

    def _note_fork(self, fork: int) -> None:
        self._arena.newest_fork = max(fork, self._arena.newest_fork)

    def _shared_at(self, fork: int) -> Iterator[tuple[int, int]]:
        """The regions that children of a fork share by name."""
        if not any(self._tables.shares):
            return
        for start, pages in self._tables.regions():
            if 0 < self._tables.region_shared[start] <= fork:
                yield start, pages

    def _pinned(self) -> Iterator[int]:
        """The pages that are pinned, at the time that they are asked for."""
        return (page for page, pins in self._tables.written_rows("pins") if pins)
