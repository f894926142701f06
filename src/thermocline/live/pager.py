"""The pager: the process that answers faults.

It waits for faults on the userfaultfd, requests on the ring, and its workers, and runs a protocol for each. It must
be a process of its own: a thread that holds the GIL and faults would wait for a handler that needs the GIL.

It holds nothing that may be lost: what must survive it is in the shared tables or in a store.
"""

from __future__ import annotations

import contextlib
import errno
import gc
import mmap
import os
import select
import signal
import sys
import time
from collections.abc import Iterable
from functools import partial

from thermocline.errors import StoreError
from thermocline.live import control, statistics
from thermocline.live.arena import Arena
from thermocline.live.books import Books
from thermocline.live.buffer import sparse_column
from thermocline.live.channel import Channel
from thermocline.live.config import Config
from thermocline.live.control import Packet
from thermocline.live.copier import Copier
from thermocline.live.copies import Copies
from thermocline.live.descriptor import Descriptor
from thermocline.live.doorbell import Doorbell
from thermocline.live.engine import Engine, Miss
from thermocline.live.injection import Injection
from thermocline.live.interpreter import LiveInterpreter
from thermocline.live.jobs import Jobs
from thermocline.live.known_regions import KnownRegions
from thermocline.live.mapping import Mapping, SharedRanges
from thermocline.live.messages import say
from thermocline.live.pidfd import has_ended
from thermocline.live.placement import Placement, homes_of
from thermocline.live.processes import Processes
from thermocline.live.ring import Bell
from thermocline.live.sampling import Sampler
from thermocline.live.service import Service
from thermocline.live.sources import Sources
from thermocline.live.stores import STORES, Store
from thermocline.live.suspicion import note_of
from thermocline.live.tables import NODE_WORDS, Tables
from thermocline.live.workers import Workers
from thermocline.protocol.demotion import DemotionPath
from thermocline.protocol.effects import Protocol
from thermocline.protocol.fault import fault
from thermocline.protocol.fill import go_on
from thermocline.protocol.first_touch import FirstTouch
from thermocline.protocol.group import GroupReclaim
from thermocline.protocol.interpreter import THROTTLE_TICK
from thermocline.protocol.migrate import DESIGNS
from thermocline.protocol.mm import DRAM, Mm, Policy, parts_of
from thermocline.protocol.node import Kind, nodes_of
from thermocline.protocol.page import PageTable
from thermocline.protocol.promote import task_numa_work
from thermocline.protocol.reclaim import kswapd
from thermocline.protocol.recovery import Presence, recover, slots_in_use
from thermocline.protocol.region import Region
from thermocline.protocol.scheduler import Scheduler
from thermocline.protocol.stopwatch import Stopwatch
from thermocline.protocol.vmstat import VmStat
from thermocline.topology import Topology

#: Seconds of idleness after which released slots are given back to the kernel, a little at a time.
_TRIM_AFTER = 0.02


class Pager:
    """One tiered memory's pager. See :func:`main`."""

    def __init__(
        self,
        config: Config,
        peer: Channel,
        known: Iterable[Packet] = (),
        sources: Iterable[Packet] = (),
        held: Iterable[int] = (),
    ) -> None:
        self.config = config
        self.tables = Tables(Descriptor(config.tables), config.pages)
        #: Wakes this process: its workers ring it, and :meth:`hear_requests` has the kernel's word passed on to it.
        self.bell = Bell(Bell.create(blocking=False))
        self._sources = Sources(config.page_size)
        for source in sources:
            self._sources.open(source)
        self._peer = peer
        self._pid = os.getpid()
        table = PageTable(config.pages, self.tables.page_columns)
        jobs = Jobs(self.bell) if config.engine == "native" else None
        self.arena = Arena(config.arena, config.page_size, (), table.given, jobs)
        copies = Copies(config.saved, self.arena)
        lower_nodes = range(1, len(config.nodes))
        stores: dict[int, Store] = {
            index: STORES[type(spec)](tuple(fds), spec, config.page_size, config.pages)
            for index, (spec, fds) in enumerate(zip(config.nodes[1:], config.stores, strict=True), start=1)
            if not spec.is_mapped
        }
        slot_bytes = [stores[index].slot_bytes if index in stores else config.page_size for index in lower_nodes]
        self._books = Books()
        nodes = nodes_of(config.nodes, slot_bytes, config.page_size, self._books.node)
        self.mm = Mm(
            config.page_size,
            nodes,
            DemotionPath.through(len(config.nodes)),
            table,
            Policy(
                DESIGNS[config.design],
                config.discard_clean,
                config.readahead_pages,
                GroupReclaim(config.group_reclaim),
            ),
            self._find_region,
            VmStat(self.tables.counters),
            sparse_column,
            set(held),
            parts=parts_of(config.page_size, mmap.PAGESIZE, nodes) if config.parts else 1,
            make_group=self._books.group,
        )
        self.mm.lazyfree_blocks = self.tables.lazyfree_blocks
        if config.commit == "heuristic":
            self.mm.first_touch = FirstTouch(nodes)
        self._regions = KnownRegions(self.mm, self.tables)
        self.stopwatch = Stopwatch(time.perf_counter_ns, self.tables.histograms)
        self.scheduler = Scheduler(self.stopwatch, sparse_column("B", config.pages))
        self.scheduler.noted = self.tables.word(Tables.HEADER_NOTE)
        self.placement = Placement(self.arena, config.page_size, homes_of(config.nodes, Topology.read))
        self.workers = Workers([node.name for node in nodes], self.scheduler, self.bell, jobs)
        self.copier = Copier(
            self.mm, self.arena, self.scheduler, stores, self._sources.__getitem__, self.workers, self.placement
        )
        sampler = Sampler(self.arena, self.placement, config.page_size)
        self.interpreter = LiveInterpreter(
            self.mm, self.arena, self.scheduler, stores, self.copier, self.workers, sampler, copies
        )
        self.interpreter.condemned = self.tables.word(Tables.HEADER_CONDEMNED)
        self.interpreter.poisons = self.tables.word(Tables.HEADER_POISONS)
        self.copier.peak_resident = self.tables.word(Tables.HEADER_PEAK_RESIDENT)
        self.engine = self.interpreter.engine = self._make_engine(stores)
        for index in range(1, len(nodes)):
            if self.tables.header[Tables.HEADER_FAILED_NODES] >> index & 1:
                self.mm.fail_node(nodes[index])
        self.copier.node_failed = self._note_failed_node
        self._service = Service(self.interpreter, self.tables, self._regions)
        self._stores = stores
        self._faulting: dict[int, Mapping] = {}
        self._bell_poll = select.poll()
        self._bell_poll.register(self.bell.fd, select.POLLIN)
        self._processes = Processes(self.mm, self.arena, copies, self.scheduler, self.tables, self._regions)
        for packet in known:
            if packet.word == "fork":
                self._processes.expect(packet)
            else:
                self._processes.attach(packet)

    def _make_engine(self, stores: dict[int, Store]) -> Engine:
        """The native half, and in front of it what the pager was told to do to itself."""
        native, kill_in = self.config.engine == "native", 0
        if self.config.inject:
            starts = self.tables.header[Tables.HEADER_PAGER_STARTS]
            injection = Injection(self.config.inject, starts, self.tables.header)
            injection.install(self.scheduler, stores, self.mm.nodes, self.arena, self.interpreter, self.copier)
            native, kill_in = native and injection.concerns_native, injection.kill_in
        engine = Engine(
            self.mm,
            self.tables,
            self.arena,
            self.scheduler,
            self._regions,
            self._books,
            stores,
            self.copier.peak_resident,
            native=native,
            polls=self.config.poll,
        )
        engine.row.kill_in = kill_in
        return engine

    def _find_region(self, number: int) -> Region | None:
        return self._regions.find(number)  # which are made of what the memory manager has, and behind it

    def _note_failed_node(self, index: int) -> None:
        """Tell the program, and a successor, that a node is out of use."""
        self.tables.header[Tables.HEADER_FAILED_NODES] |= 1 << index

    # -- the loop -----------------------------------------------------------------------------------------------------

    def hear_requests(self) -> None:
        """Be woken by requests from now on, for as long as this process lives."""
        Doorbell(self.tables, Tables.HEADER_RING_HEAD).relay(self.bell.fd)

    def run(self) -> None:
        """Answer faults until the supervisor says that it is over."""
        self._recover()
        for node in self.mm.nodes:
            if self.mm.path.next_node(node.index) is not None:
                self.scheduler.spawn(kswapd(self.mm, node), background=True)
            if node.kind is Kind.MAPPED and node.index != DRAM:
                self.scheduler.spawn(task_numa_work(self.mm, node), background=True)
        self._service.take_over()
        while self._turn():
            pass
        statistics.publish(self.mm, self.tables)

    def _turn(self) -> bool:
        """Wait for news, and run what it makes ready -> False when it is over."""
        scheduler, interpreter = self.scheduler, self.interpreter
        if scheduler.idle:
            self.tables.header[Tables.HEADER_RESTED] = self._pid
        ordinary = not self.mm.children and not interpreter.unpoisoned
        ready, misses = self.engine.wait(interpreter.until_alarm(self._longest_wait()), serves=ordinary)
        interpreter.settle()
        interpreter.ring_alarms()
        for miss in misses:
            self._take_miss(miss)
        for fd in ready:
            if fd in self._faulting:
                self._take_faults(self._faulting[fd])
            elif fd == self.bell.fd:
                self.bell.quiet()
                self.workers.resume_finished()
                self._service.serve()
            elif fd == self._peer.number and not self._obey(control.receive(self._peer)):
                return False
        if interpreter.throttled:
            interpreter.retry_throttled()
        elif not (ready or misses) and scheduler.idle and interpreter.untrimmed:
            interpreter.untrimmed = any([store.trim() for store in self._stores.values()])
        scheduler.run_foreground()
        scheduler.run_background()
        return True

    def _longest_wait(self) -> float | None:
        """Seconds after which there is something to do, whatever comes."""
        if not self.scheduler.idle:
            return 0.0
        if self.interpreter.throttled:
            return THROTTLE_TICK
        return _TRIM_AFTER if self.interpreter.untrimmed else None

    def _recover(self) -> None:
        """Take up what a killed predecessor left: nothing at all, in a fresh memory."""
        starts = self.tables.header[Tables.HEADER_PAGER_STARTS]
        self.tables.header[Tables.HEADER_PAGER_STARTS] = starts + 1
        if starts:
            presence, nothing = self.arena.presence(self.mm.parts), Presence(0, 0)
            noted = self.tables.header[Tables.HEADER_DOOMED]
            doomed = (noted - 1,) if noted else ()
            pages = self.tables.touched([*presence, *doomed])
            slots = slots_in_use(self.mm, pages)
            for index, store in self._stores.items():
                store.recover(slots.get(index, ()))
                self.mm.nodes[index].peak = self.tables.nodes[index * NODE_WORDS + 2]
            recovered: list[None] = []

            def present(page: int) -> Presence:
                return presence.get(page, nothing)

            where = self.placement.whereabouts([page for page in pages if page in presence])
            self.scheduler.spawn(
                recover(
                    self.mm,
                    pages,
                    present,
                    lambda node, slot: self._stores[node].size(slot),
                    doomed,
                    where.get,
                ),
                done=recovered.append,
            )
            self.scheduler.run_foreground()
            while not recovered:
                self._bell_poll.poll()
                self.bell.quiet()
                self.workers.resume_finished()
                self.scheduler.run_foreground()
            # Not before it is done: its page may be another array's by the time the next pager looks.
            self.tables.header[Tables.HEADER_DOOMED] = 0
            self.bell.ring()  # a request's ring may have been taken for a worker's
        for mapping in self.arena.mappings:
            if not isinstance(mapping, SharedRanges):
                self._hear_faults(mapping)
        for fd in (self.bell.fd, self._peer.number):
            self.engine.poll.register(fd, select.EPOLLIN)
        statistics.publish(self.mm, self.tables)
        self.arena.wake(0, self.config.pages)
        if starts:
            header = self.tables.header
            taken = time.monotonic_ns() - header[Tables.HEADER_DIED_AT]
            header[Tables.HEADER_LONGEST_REPLACEMENT] = max(taken, header[Tables.HEADER_LONGEST_REPLACEMENT])

    def _hear_faults(self, mapping: Mapping) -> None:
        self._faulting[mapping.uffd.fd] = mapping
        self.engine.poll.register(mapping.uffd.fd, select.EPOLLIN)

    def _take_faults(self, mapping: Mapping) -> None:
        now = self.stopwatch.clock()
        self.arena.last_faulted = mapping
        unpoisoned = self.interpreter.unpoisoned
        for message in mapping.uffd.read():
            page, part = mapping.part_at(message.address, self.mm.part_size)
            if page in unpoisoned:
                unpoisoned[page].append(mapping)
            child = self._processes.child_at(mapping, page)
            self._answer_fault(fault(self.mm, page, message.write, part, child), page, now)

    def _take_miss(self, miss: Miss) -> None:
        """Run the protocol for a fault of the program that the native half has left to it."""
        mapping = self.arena.mappings[0]
        self.arena.last_faulted = mapping
        page, part = mapping.part_at(miss.address, self.mm.part_size)
        answer = go_on(self.mm, page, miss.write, miss.stuck) if miss.stuck else fault(self.mm, page, miss.write, part)
        self._answer_fault(answer, page, miss.since)

    def _answer_fault(self, answer: Protocol[None], page: int, since: int) -> None:
        def answered(_: None) -> None:
            self.stopwatch.fault.add(self.stopwatch.clock() - since)

        self.scheduler.spawn(answer, done=answered, note=note_of(page))

    # -- what the supervisor says ------------------------------------------------------------------------------------

    def _obey(self, packet: Packet | None) -> bool:
        """Do what the supervisor asks for -> False when it is over."""
        if packet is None:
            self._end_everybody()
        if packet is None or packet.word == "close":
            return False
        if packet.word == "source":
            self._sources.open(packet)
            self._answer(packet)
        elif packet.word == "drop":
            self._sources.drop(*packet.numbers)
        elif packet.word == "fork":
            self._processes.begin_fork(packet, partial(self._answer, packet))
        elif packet.word == "attach":
            mapping = self._processes.attach(packet)
            self._hear_faults(mapping)
            self._processes.admit(packet, partial(self._admit, packet, mapping))
        elif packet.word == "cover":
            self.arena.cover(*packet.numbers)
            self._answer(packet)
        elif packet.word == "detach":
            (number,) = packet.numbers
            self._detach(number)
            self._processes.forget(number, partial(self._answer, packet))
        return True

    def _admit(self, packet: Packet, mapping: Mapping) -> None:
        """Let a process that was attached run; or end it, which waits for that, before it has seen anything."""
        if self.interpreter.condemned[0] == mapping.number:
            self.interpreter.kill(mapping)
        else:
            self._answer(packet)

    def _answer(self, packet: Packet) -> None:
        """Tell the supervisor that it is so. If it is gone, that is found out elsewhere."""
        with contextlib.suppress(OSError):
            control.send(self._peer, packet.word, packet.numbers[0], token=packet.token)

    def _end_everybody(self) -> None:
        """The supervisor is gone. Kill the processes of this memory before the last userfaultfd is closed.

        The kernel does that, too, through their lifelines; but a program may have closed its own, and its userfaultfd.
        Whatever it touched then would be zeros.
        """
        say("the supervisor has ended; every process of this memory is killed, its faults cannot be answered")
        for mapping in self.arena.mappings:
            if mapping.uffd.is_orphaned:  # it has ended, or runs another program
                continue
            with contextlib.suppress(ProcessLookupError, PermissionError):
                signal.pidfd_send_signal(mapping.process, signal.SIGKILL)
                has_ended(mapping.process)

    def _detach(self, number: int) -> None:
        # Its descriptor is not looked at any more when it is closed, or its number another's.
        for fd in [fd for fd, mapping in self._faulting.items() if mapping.number == number]:
            del self._faulting[fd]
            self.engine.poll.unregister(fd)
        self._processes.detach(number)

    def close(self) -> None:
        """Stop the workers. The descriptors belong to the supervisor, but for the bell's."""
        self.workers.close()
        self.engine.close()


def main(config: Config, peer: Channel, known: Iterable[Packet], sources: Iterable[Packet], held: Iterable[int]) -> int:
    """Run a pager in this process until its memory is closed -> exit status.

    Parameters
    ----------
    peer : Channel
        To the supervisor.
    known, sources : iterable of Packet
        The processes and the source files that its predecessor knew, as they were made known to that one.
    held : iterable of int
        Pages that it must not move.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    # A cycle collection in the middle of a fault is a stall for nothing: the pager makes no cycles.
    gc.disable()
    sys.setswitchinterval(0.0005)
    try:
        pager = Pager(config, peer, known, sources, held)
        pager.hear_requests()
        pager.run()
        pager.close()
    except StoreError as error:
        print(f"thermocline-pager: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        if error.errno == errno.ESRCH:
            return 0  # the program is gone, and its memory with it
        raise
    return 0
