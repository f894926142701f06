"""A tiered memory, a program and a pager on a virtual clock."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from thermocline.errors import SpecError
from thermocline.protocol.child import Child
from thermocline.protocol.demotion import DemotionPath
from thermocline.protocol.fault import read_ahead
from thermocline.protocol.group import Group
from thermocline.protocol.migrate import DESIGNS
from thermocline.protocol.mm import DRAM, Mm, Policy, parts_of
from thermocline.protocol.node import Kind, nodes_of
from thermocline.protocol.page import EMPTY, RESIDENT, SLOTTED, PageTable, array_column
from thermocline.protocol.promote import task_numa_work
from thermocline.protocol.readahead import LONGEST_RUN
from thermocline.protocol.reclaim import SWAP_CLUSTER_MAX, kswapd
from thermocline.protocol.region import Advice, Region, free_region
from thermocline.protocol.scheduler import Scheduler
from thermocline.protocol.stopwatch import Stopwatch
from thermocline.protocol.vmstat import VmStat
from thermocline.spec import Dram, NodeSpec, check_minimum, check_page_size
from thermocline.virtual.child import ChildProgram
from thermocline.virtual.client import ColdClient
from thermocline.virtual.clock import NS, Clock
from thermocline.virtual.costs import Costs
from thermocline.virtual.inbox import Inbox
from thermocline.virtual.interpreter import VirtualInterpreter
from thermocline.virtual.mapping import Mapping
from thermocline.virtual.pager import Pager
from thermocline.virtual.program import Program
from thermocline.virtual.recorder import Recorder
from thermocline.virtual.result import Result, ThreadResult
from thermocline.virtual.store import VirtualStore, check_nodes, slot_bytes, total_pages
from thermocline.virtual.thread import ProgramThread

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

#: Pages that no region gets, as in `live`: what moves needs a place to move to.
_SLACK = 4
#: Bytes of a base page.
_BASE_PAGE = 4096


class VirtualMemory:
    """A tiered memory on a virtual clock: lay it out, give it threads, and run it once.

    The same arguments, calls and seed give the same run, bit for bit.

    Parameters
    ----------
    nodes : sequence of NodeSpec
        As :func:`thermocline.spec.parse_spec` gives them. Directories of files are not looked at.
    costs : Costs
        What each step takes.
    page_size : int
        Bytes.
    pages : int
        Pages of all regions together, at most.
    design : str
        The migration design.
    seed : int
        Of the variation of costs that have a spread.
    discard_clean : bool
        Drop clean pages of a source rather than demote them.
    readahead : int
        The largest readahead window, in pages; 0: none.
    promotion : bool
        Whether pages that are used in slow memory come back to DRAM.
    accessed_bits : bool
        Whether reclaim sees which pages were touched, as the kernel does and `live` cannot.
    inactive_ratio : int
        See :class:`~thermocline.protocol.mm.Policy`.
    parts : bool
        Whether a touch is of a word, the first of its page, for which a part of the page may come up by itself. If not,
        every touch needs the whole page.
    digest : bool
        Whether to digest everything that happens (see `Result`). Faults then take the simulation a third longer.
    trace : callable or None
        Called with a time in nanoseconds and a line for everything that happens.

    Raises
    ------
    SpecError
        The nodes are no demotion path or too small, their costs are not known, they hold fewer pages in the worst case,
        or there is no such design.

    Attributes
    ----------
    mm : Mm
        The protocols' own books.
    stopwatch : Stopwatch
        How long tasks waited for pages and locks.
    """

    def __init__(
        self,
        nodes: Sequence[NodeSpec],
        costs: Costs,
        *,
        page_size: int,
        pages: int,
        design: str = "batch",
        seed: int = 0,
        discard_clean: bool = False,
        readahead: int = 32,
        promotion: bool = True,
        accessed_bits: bool = False,
        inactive_ratio: int = 2,
        parts: bool = False,
        digest: bool = False,
        trace: Callable[[int, str], None] | None = None,
    ) -> None:
        if design not in DESIGNS:
            raise SpecError(f'the design "{design}" is unknown; write one of {", ".join(DESIGNS)}')
        check_page_size(page_size)
        check_nodes(tuple(nodes))
        for spec in nodes:
            check_minimum(spec, page_size)
        specs = tuple(replace(spec, capacity=spec.capacity // page_size * page_size) for spec in nodes)
        most = total_pages(specs, page_size) - _SLACK
        if not 0 < pages <= most:
            raise SpecError(f"{pages} pages are asked for; in the worst case the nodes hold {most}, and 1 is the least")
        self._costs = costs
        self._stores = {
            index: VirtualStore(spec, costs, page_size)
            for index, spec in enumerate(specs)
            if not isinstance(spec, Dram)
        }
        self._regions: dict[int, Region] = {}
        self._free_page = 0
        self._clock = Clock(seed)
        self._recorder = Recorder(digest=digest, trace=trace)
        self._mapping = Mapping(pages, accessed_bits=accessed_bits)
        self._inbox = Inbox()
        self._program = Program(self._mapping, self._clock, costs, self._recorder)
        self._cold: list[tuple[ColdClient, int]] = []
        self._promotion = promotion
        self._ran = False
        self._children: list[ChildProgram] = []
        self._forked_at = 0
        made = nodes_of(specs, [slot_bytes(spec, page_size) for spec in specs[1:]], page_size)
        self.mm = Mm(
            page_size,
            made,
            DemotionPath.through(len(specs)),
            PageTable(pages),
            Policy(
                DESIGNS[design],
                discard_clean,
                min(readahead, max(LONGEST_RUN, SWAP_CLUSTER_MAX)),
                inactive_ratio=inactive_ratio,
            ),
            self._regions.get,
            parts=parts_of(page_size, _BASE_PAGE, made) if parts else 1,
        )
        if self._mapping.accessed is not None:
            self.mm.links.accessed = self._mapping.accessed
        self.stopwatch = Stopwatch(self._clock.nanoseconds)
        self._scheduler = Scheduler(self.stopwatch, array_column("B", pages))
        self._interpreter = VirtualInterpreter(
            self.mm,
            self._scheduler,
            self._stores,
            costs=costs,
            clock=self._clock,
            mapping=self._mapping,
            program=self._program,
            inbox=self._inbox,
        )
        self._pager = Pager(
            self.mm,
            self._scheduler,
            self._interpreter,
            costs=costs,
            clock=self._clock,
            program=self._program,
            inbox=self._inbox,
        )

    # -- before the clock starts --------------------------------------------------------------------------------------

    def group(self, index: int, *, dram_limit: int | None = None, memory_limit: int | None = None) -> Group:
        """A group of regions with limits, in bytes."""
        group = Group(index, f"group {index}", len(self.mm.nodes), dram_limit=dram_limit, memory_limit=memory_limit)
        self.mm.add_group(group)
        return group

    def region(
        self, pages: int, *, group: int = 0, ratio: float | None = None, advice: str = "normal", source: bool = False
    ) -> Region:
        """The next free pages, as one array.

        Parameters
        ----------
        ratio : float or None
            Bytes of a page for each byte that it takes in compressed memory; 1 is a page that does not compress. None:
            as those did by which the costs were measured.
        advice : str
            ``"normal"``, ``"sequential"`` or ``"random"``.
        source : bool
            Whether the array was made from a file, and its pages are there. (Their reads cost what those of a file
            node cost.)

        Raises
        ------
        SpecError
            There are not so many pages left, or one of the arguments makes no sense.
        """
        if not 0 < pages <= self._mapping.pages - self._free_page:
            raise SpecError(f"a region of {pages} pages is asked for; {self._mapping.pages - self._free_page} are left")
        if group not in self.mm.groups:
            raise SpecError(f"there is no group {group}; make it first: group({group})")
        if ratio is not None and not ratio > 0:
            raise SpecError(f"the ratio is {ratio}; write a number above 0")
        if advice not in ("normal", "sequential", "random"):
            raise SpecError(f'the advice "{advice}" is none; write normal, sequential or random')
        if source and "file" not in self._costs.stores:
            raise SpecError("the costs have no stores.file, which a source needs; add it (thermocline calibrate)")
        start = self._free_page
        self._free_page += pages
        made = Region(start + 1, start, pages, group, int(source), Advice[advice.upper()])
        self._regions[made.index] = made
        for store in self._stores.values():
            store.expect(made.index, ratio)
        for page in range(start, made.end):
            self.mm.table.region[page] = made.index
            if source:
                self.mm.table.commit(page, SLOTTED, len(self.mm.nodes) - 1, page - start)
        self._mapping.written[start : made.end] = source
        return made

    def place(self, pages: Iterable[int], node: int) -> None:
        """Say where pages are when the clock starts: they were written before. In memory they may be written again.

        Raises
        ------
        SpecError
            The node has no room, or a page is in no region, or was placed already.
        """
        mm, mapping = self.mm, self._mapping
        if not 0 <= node <= len(self._stores):
            raise SpecError(f"there is no node {node}; write 0 (DRAM) to {len(self._stores)}")
        there = mm.nodes[node]
        for page in pages:
            if not 0 <= page < self._free_page or mm.table.state(page) != EMPTY:
                raise SpecError(f"page {page} cannot be placed: it is in no region, or was placed already")
            if not there.has_room:
                raise SpecError(f"page {page} cannot be placed: {there.name} has no room for it")
            mapping.written[page] = True
            if there.kind is Kind.MAPPED:
                mm.charge(there, mm.group_of(page), mm.page_size)
                mm.links.present[page] = mm.all_parts
                mm.table.commit(page, RESIDENT, node)
                mapping.install(page, 1, writable=True)
            else:
                store = self._stores[node]
                slot = store.reserve()
                mm.charge(there, mm.group_of(page), store.write(slot, mm.table.region[page]))
                mm.table.commit(page, SLOTTED, node, slot)
            mm.lru_add(page)

    def thread(
        self, trace: Iterable[NDArray[np.uint32]], *, think_ns: int = 0, keep_stalls: bool = False
    ) -> ProgramThread:
        """A thread of the program.

        Parameters
        ----------
        trace : iterable of arrays of uint32
            What it touches, in order: ``page << 1 | write``. Arrays are taken one by one, when they are needed.
        think_ns : int
            Nanoseconds to sleep before each touch.
        keep_stalls : bool
            Keep each stall, and not their distribution only.
        """
        return self._thread(trace, mapping=self._mapping, child=0, think_ns=think_ns, keep_stalls=keep_stalls)

    def _thread(
        self, trace: Iterable[NDArray[np.uint32]], *, mapping: Mapping, child: int, think_ns: int, keep_stalls: bool
    ) -> ProgramThread:
        made = ProgramThread(
            len(self._program.threads),
            trace,
            mapping,
            self._clock,
            think_ns=think_ns,
            think=self._costs.think,
            keep_stalls=keep_stalls,
            child=child,
        )
        self._program.threads.append(made)
        return made

    def fork(self, *, at_ns: int = 0) -> ChildProgram:
        """Let the program fork at that time -> the child, which wants threads. Forks are made in the order of time.

        The child sees the memory as it is then, and what it writes is its own. The time that the fork of a process
        takes without tiered memory is not counted.

        Raises
        ------
        SpecError
            An earlier call had a later time.
        """
        elder = self._children[-1] if self._children else None
        if elder is not None and at_ns < self._forked_at:
            raise SpecError(f"a fork at {at_ns} ns comes behind one at {self._forked_at} ns; give them in order")
        self._forked_at = at_ns
        number = len(self._children) + 1
        made = ChildProgram(Child(number, number), self._pager, self._mapping, self._thread, elder)
        self._children.append(made)
        self._interpreter.private[number] = made.mapping
        made.fork(at_ns * NS)
        return made

    def drive_cold(
        self, pages: Sequence[int], *, rounds: int | None = None, pause_ns: int = 0, start_ns: int = 0
    ) -> None:
        """Let a client say that pages are cold, wait for the answer, and say so again until all threads have ended.

        Parameters
        ----------
        rounds : int or None
            How often at most.
        pause_ns, start_ns : int
            Nanoseconds between an answer and the next request, and before the first.
        """
        self._cold.append((ColdClient(self._pager, pages, rounds, pause_ns * NS), start_ns * NS))

    def will_need(self, pages: Sequence[int], *, at_ns: int = 0) -> None:
        """Let the program say at that time that it will need pages."""

        def serve() -> None:
            self._scheduler.spawn(read_ahead(self.mm, pages, False), background=True)
            self._pager.answer()

        self._pager.request(at_ns * NS, serve)

    def free(self, region: Region, *, at_ns: int = 0) -> None:
        """Let the program free an array at that time."""

        def freed(_: None) -> None:
            self._regions.pop(region.index, None)
            self._pager.answer()

        self._pager.request(at_ns * NS, lambda: self._scheduler.spawn(free_region(self.mm, region), done=freed))

    # -- the run ------------------------------------------------------------------------------------------------------

    @property
    def now(self) -> int:
        """The pager's time, in nanoseconds."""
        return self._clock.nanoseconds()

    @property
    def vmstat(self) -> VmStat:
        """The counters."""
        return self.mm.vmstat

    def run(self) -> Result:
        """Start the clock, run until all threads have ended, then let everything come to rest.

        Raises
        ------
        Stalled
            A thread waits, and nothing is under way that could end it.
        """
        if self._ran:
            raise RuntimeError("a virtual memory runs once; make another")
        if not self._program.threads and any(client.endless for client, _ in self._cold):
            raise SpecError("without a thread drive_cold() would never end; give it a number of rounds")
        self._ran = True
        for node in self.mm.nodes:
            if self.mm.path.next_node(node.index) is not None:
                self._scheduler.spawn(kswapd(self.mm, node), background=True)
        while not self._scheduler.idle:
            self._scheduler.run_background()  # kswapd went to sleep long ago: that takes no time
        self._interpreter.charge_effects(self._recorder)
        for client, start in self._cold:
            client.begin(start)
        self._program.begin()
        for node in self.mm.nodes:
            if self._promotion and node.kind is Kind.MAPPED and node.index != DRAM:
                self._scheduler.spawn(task_numa_work(self.mm, node), background=True)
        if self._program.threads:
            self._pager.run(lambda: self._program.over)
        else:
            self._pager.run(lambda: not self._pager.requests)
        books = self._books()
        self._pager.run(lambda: False)
        return replace(books, digest=self._recorder.hexdigest())

    def _books(self) -> Result:
        stopwatch, program = self.stopwatch, self._program
        return Result(
            ns=program.ended // NS if program.threads else self.now,
            cpu_ns=self._clock.busy // NS,
            vmstat=self.vmstat.as_dict(),
            fault=stopwatch.fault.read(),
            lock_wait=stopwatch.lock_wait.read(),
            source_lock=stopwatch.source_lock.read(),
            allocating=stopwatch.allocating.read(),
            threads=tuple(
                ThreadResult(
                    thread.touches, thread.stalls.read(), thread.stall_ns, (thread.ended or 0) // NS, thread.killed
                )
                for thread in program.threads
            ),
            cold_requests=sum(client.answered for client, _ in self._cold),
            cold_pages=sum(client.reclaimed for client, _ in self._cold),
            digest=None,
        )
