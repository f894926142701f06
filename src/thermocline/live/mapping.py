"""The program's side of a tiered memory: the arena as it is mapped here, its regions, and requests to the pager.

Everything here runs in the user's process, under the user's GIL, inside the user's allocations. So it is quick: an
allocation is bookkeeping in the shared tables and asks nobody; freeing writes a request and does not wait for its
answer. The addresses of a freed region, and its share of the commitment, return when the answer is there.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import weakref
from array import array
from collections import deque
from collections.abc import Callable, Iterator, Sequence

from thermocline.errors import ClosedError, ThermoclineError
from thermocline.live import launch, libc, statistics
from thermocline.live.address_space import AddressSpace, address_space
from thermocline.live.commitment import Commitment
from thermocline.live.config import Config
from thermocline.live.extents import Extents
from thermocline.live.ring import PENDING, REFUSED, Bell, Ring, What
from thermocline.live.sources import CLOSE, MESSAGE_BYTES, source_message
from thermocline.live.stores import STORES
from thermocline.live.tables import MAX_GROUPS, RING_ENTRIES, Tables
from thermocline.live.userfaultfd import UserFaultFd, open_userfaultfd
from thermocline.protocol.page import SLOTTED, pack
from thermocline.spec import File, NodeSpec

#: Address range of the arena, in multiples of what can be committed: holes between arrays are not worth moving for.
_SPREAD = 4
#: Answer of :meth:`Mapping.allocate_block` when it is called from within itself (by a signal handler, or a finalizer).
DECLINED = -1


class Mapping:
    """A tiered memory as the program has it mapped.

    Parameters
    ----------
    nodes : sequence of NodeSpec
        The demotion path, DRAM first.
    page_size : int
        Bytes.
    report : int
        Descriptor that the last statistics are written to, -1 for none. It is closed here.
    """

    def __init__(
        self,
        nodes: Sequence[NodeSpec],
        page_size: int,
        *,
        design: str,
        discard_clean: bool,
        readahead_pages: int,
        report: int = -1,
    ) -> None:
        self.nodes = tuple(nodes)
        self.page_size = page_size
        self.commitment = Commitment(self.nodes, page_size)
        self.pages = _SPREAD * self.commitment.limit + 1
        self.size = self.pages * page_size
        self._lock = threading.Lock()
        self._owner: int | None = None
        self._waiting = threading.Lock()
        self._extents = Extents(self.pages)
        self._to_free: deque[int] = deque()
        self._freeing: deque[tuple[int, int, int]] = deque()
        self._sources = 0
        self._groups = 1
        self._process = os.getpid()
        self.closed = False
        self._closing = False
        #: Called when the memory is really closed, before anything is given back.
        self.before_close: list[Callable[[], object]] = []
        with contextlib.ExitStack() as undo:
            opened = open_userfaultfd()
            undo.callback(os.close, opened.fd)
            self.serves_system_calls = opened.serves_system_calls
            self._arena = os.memfd_create("thermocline-arena", os.MFD_CLOEXEC)
            undo.callback(os.close, self._arena)
            os.ftruncate(self._arena, self.size)
            stores = []
            for spec in self.nodes[1:]:
                fds = STORES[type(spec)].create(spec, page_size, self.pages)
                stores.append(list(fds))
                for fd in fds:
                    undo.callback(os.close, fd)
                if isinstance(spec, File):
                    self.commitment.watch(fds[0])
            self._tables = Tables.create(self.pages)
            undo.callback(self._tables.close)
            self._ring = Ring(self._tables)
            self._request_bell = Bell(Bell.create(blocking=False))
            undo.callback(os.close, self._request_bell.fd)
            self._answer_bell = Bell(Bell.create(blocking=True))
            undo.callback(os.close, self._answer_bell.fd)
            space = address_space()
            self.address = space.take(self.size)
            undo.callback(space.give, self.address, self.size)
            libc.mmap(
                self.address,
                self.size,
                libc.PROT_READ | libc.PROT_WRITE,
                libc.MAP_SHARED | libc.MAP_NORESERVE | libc.MAP_FIXED,
                self._arena,
            )
            # A child would share the frames without our seeing its faults: it gets nothing there (see _in_child).
            libc.madvise(self.address, self.size, libc.MADV_DONTFORK)
            libc.madvise(self.address, self.size, libc.MADV_DONTDUMP)
            self._uffd = UserFaultFd(opened.fd)
            self._uffd.register(self.address, self.size)
            self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            undo.callback(self._control.close)
            self._lifeline, their_lifeline = socket.socketpair()
            undo.callback(self._lifeline.close)
            pidfd = os.pidfd_open(self._process)
            try:
                launch.start(
                    Config(
                        nodes=self.nodes,
                        page_size=page_size,
                        pages=self.pages,
                        arena_address=self.address,
                        program=pidfd,
                        design=design,
                        discard_clean=discard_clean,
                        readahead_pages=readahead_pages,
                        uffd=opened.fd,
                        arena=self._arena,
                        tables=self._tables.fd,
                        request_bell=self._request_bell.fd,
                        answer_bell=self._answer_bell.fd,
                        control=theirs.fileno(),
                        lifeline=their_lifeline.fileno(),
                        report=report,
                        stores=stores,
                    )
                )
            finally:
                os.close(pidfd)
                theirs.close()
                their_lifeline.close()
                if report >= 0:
                    os.close(report)
            launch.hold_lifeline(self._lifeline)
            for store in stores:
                for fd in store:
                    os.close(fd)
            undo.pop_all()
        _mappings.add(self)

    # -- blocks -------------------------------------------------------------------------------------------------------

    def allocate_block(self, nbytes: int, group: int = 0, source: int = 0) -> int:
        """Commit memory of at least ``nbytes`` bytes -> its address; 0 when the nodes cannot hold it.

        It holds zeros, or the source's bytes. ``DECLINED`` when called from within itself, or in a forked child.
        """
        if self._owner == threading.get_ident() or self._closing or os.getpid() != self._process:
            return DECLINED
        pages = max(-(-nbytes // self.page_size), 1)
        with self._owned():
            start = self._take(pages)
            if start is None:
                return 0
            tables = self._tables
            tables.region_group[start] = group
            tables.region_source[start] = source
            tables.region_advice[start] = 0
            tables.region_pages[start] = pages
            tables.page_columns["region"][start : start + pages] = array("I", [start + 1]) * pages
            if source:
                node = len(self.nodes)
                entries = array("Q", range(pack(SLOTTED, node, 1), pack(SLOTTED, node, 1) + pages))
                tables.page_columns["entry"][start : start + pages] = entries
        return self.address + start * self.page_size

    def _take(self, pages: int) -> int | None:
        """Commit pages and find addresses for them -> the first page, or None."""
        self._collect()
        while not self.commitment.take(pages):
            if not self._freeing:
                return None
            self._wait_for(self._freeing[0][0])
            self._collect()
        start = self._extents.allocate(pages)
        while start is None and self._freeing:
            self._wait_for(self._freeing[0][0])
            self._collect()
            start = self._extents.allocate(pages)
        if start is None:
            self.commitment.give(pages)
        return start

    def free_block(self, address: int) -> None:
        """Give a block back. May be called at any time by any thread, from a finalizer too: it never waits."""
        if os.getpid() != self._process:
            return
        self._to_free.append((address - self.address) // self.page_size)
        self._drain()
        if self._closing:
            self.close_when_unused()

    def _drain(self) -> None:
        """Request the frees that are queued, unless somebody holds the lock: who does looks again after it lets go."""
        while self._to_free and self._lock.acquire(blocking=False):
            try:
                self._owner = threading.get_ident()
                self._collect()
                if len(self._freeing) >= RING_ENTRIES // 2:
                    self._wait_for(self._freeing[0][0])
            finally:
                self._owner = None
                self._lock.release()

    def _free_some(self) -> None:
        """Request the frees that are queued, as far as the ring has room. The lock is held."""
        while self._to_free and (not self._freeing or self._ring.head - self._freeing[0][0] < RING_ENTRIES // 2):
            start = self._to_free.popleft()
            pages = self._tables.region_pages[start]
            number = self._ring.submit(What.FREE, start + 1)
            self._freeing.append((number, start, pages))
            self._request_bell.ring()

    def _collect(self) -> None:
        """Take back what the pager has freed. The lock is held."""
        self._free_some()
        while self._freeing and self._ring.answer_of(self._freeing[0][0]) != PENDING:
            _, start, pages = self._freeing.popleft()
            self._tables.region_pages[start] = 0
            self._tables.page_columns["region"][start : start + pages] = array("I", bytes(4)) * pages
            self._extents.free(start, pages)
            self.commitment.give(pages)

    def block_size(self, address: int) -> int:
        """Bytes of a block."""
        return int(self._tables.region_pages[(address - self.address) // self.page_size]) * self.page_size

    @property
    def live(self) -> bool:
        """Whether any block is still held."""
        with self._owned():
            self._collect()
            return self.commitment.committed > sum(pages for _, _, pages in self._freeing)

    @contextlib.contextmanager
    def _owned(self) -> Iterator[None]:
        self._lock.acquire()
        try:
            self._owner = threading.get_ident()
            yield
        finally:
            self._owner = None
            self._lock.release()
        self._drain()

    # -- requests -----------------------------------------------------------------------------------------------------

    def request(self, what: What, first: int = 0, second: int = 0, *, wait: bool = True) -> bool:
        """Ask the pager for something -> False when it refused.

        Raises
        ------
        ClosedError
            The memory is closed, or this is a forked child.
        """
        if self.closed or os.getpid() != self._process:
            raise ClosedError("this memory is closed here; a forked child cannot use its parent's")
        with self._owned():
            self._collect()
            number = self._ring.submit(what, first, second)
        self._request_bell.ring()
        if not wait:
            return True
        self._wait_for(number)
        return self._ring.answer_of(number) != REFUSED

    def _wait_for(self, number: int) -> None:
        while self._ring.answer_of(number) == PENDING:
            with self._waiting:
                if self._ring.answer_of(number) == PENDING:
                    self._answer_bell.wait()

    def pages_of(self, address: int, nbytes: int) -> tuple[int, int]:
        """The pages that hold a range of addresses: first, and how many."""
        first = (address - self.address) // self.page_size
        last = (address + max(nbytes, 1) - 1 - self.address) // self.page_size
        return first, last - first + 1

    def region_at(self, address: int) -> int:
        """The number of the region that an address lies in; 0: none."""
        return int(self._tables.page_columns["region"][(address - self.address) // self.page_size])

    def set_advice(self, address: int, advice: int) -> None:
        """Say how the region at an address will be used."""
        number = self.region_at(address)
        self._tables.region_advice[number - 1] = advice
        self.request(What.ADVICE, number)

    def add_group(self, dram_limit: int, memory_limit: int) -> int:
        """A new group with limits in bytes (0: none) -> its index."""
        with self._owned():
            if self._groups == MAX_GROUPS:
                raise ThermoclineError(f"a memory has at most {MAX_GROUPS - 1} groups; make another Memory")
            index = self._groups
            self._groups += 1
            self._tables.group_limits[2 * index] = dram_limit
            self._tables.group_limits[2 * index + 1] = memory_limit
        self.request(What.GROUP, index)
        return index

    def add_source(self, fd: int, offset: int, length: int) -> int:
        """Make a stretch of an open file known to the pager -> its source number."""
        with self._owned():
            self._sources += 1
            number = self._sources
            socket.send_fds(self._control, [source_message(number, offset, length)], [fd])
            self._control.recv(MESSAGE_BYTES)
        return number

    def statistics(self) -> dict[str, object]:
        """See :func:`thermocline.live.statistics.collect`."""
        with self._owned():
            self._collect()
            for number, _, _ in self._freeing:
                self._wait_for(number)
        self.request(What.STAT)
        return statistics.collect(self._tables, [spec.name for spec in self.nodes])

    def resident(self) -> int:
        """Bytes of the arena that are in memory now, by the kernel's account."""
        return os.fstat(self._arena).st_blocks * 512

    def fileno(self) -> int:
        """The arena's memfd, for those who judge its size from outside."""
        return self._arena

    # -- the end ------------------------------------------------------------------------------------------------------

    def close_when_unused(self) -> None:
        """Close now, or when the last block is freed; nothing more is allocated from now on."""
        self._closing = True
        if not self.closed and not self.live:
            self.close()

    def close(self) -> None:
        """End the helper processes and give back all memory. No block may be held any more."""
        if self.closed:
            return
        self.closed = True
        for callback in self.before_close:
            callback()
        launch.let_go_of_lifeline(self._lifeline)
        AddressSpace.fence(self.address, self.size)
        with contextlib.suppress(OSError):
            self._control.send(CLOSE)
            self._lifeline.recv(1)  # it hangs up when the supervisor is gone, and with it all that it held
        self._control.close()
        self._lifeline.close()
        os.close(self._uffd.fd)
        os.close(self._arena)
        os.close(self._request_bell.fd)
        os.close(self._answer_bell.fd)
        self._tables.close()
        self.commitment.close()
        address_space().give(self.address, self.size)

    def _in_child(self) -> None:
        """In a forked child: nothing is mapped where the arena was, and nothing may come to be."""
        if not self.closed:
            AddressSpace.fence(self.address, self.size)
            self._lifeline.close()
            self._control.close()


#: Every mapping of this process, for a child that is forked from it.
_mappings: weakref.WeakSet[Mapping] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for mapping in list(_mappings):
        mapping._in_child()


os.register_at_fork(after_in_child=_after_fork_in_child)
