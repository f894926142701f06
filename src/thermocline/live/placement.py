"""Which of the machine's memory nodes the frames of an arena are on: asked of the kernel, and changed by it.

A node of ours that the program addresses is one of the machine's (``numa:1``), or several (``dram``, which is whatever
fast nodes the spec names as nothing else). The kernel moves what a process has mapped, so it is asked for the pages of
each process of the memory in turn; what none of them has mapped at the time, this process maps for a moment itself.
Pages that two of them have mapped are moved only for those who may (CAP_SYS_NICE); others find them refused.

It moves base pages, each for itself. A page of ours of which only some could be moved is moved back, as far as that
goes: what is left over there is room that is not accounted for until recovery or the next move, and no byte of it is.
"""

from __future__ import annotations

import errno
import mmap
import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress

from thermocline.errors import SpecError, StoreError, is_ours
from thermocline.live import libc, numa
from thermocline.live.arena import Arena
from thermocline.live.mapping import Mapping
from thermocline.protocol.mm import DRAM
from thermocline.protocol.page import runs
from thermocline.spec import Dram, NodeSpec, Numa
from thermocline.topology import Topology

#: Pages whose places are asked for in one call.
_LOOKED_UP_AT_ONCE = 256
#: How often base pages are tried that the kernel could not isolate: somebody was just using them.
_PASSES = 3
_BASE = mmap.PAGESIZE


#: What the user is told of a node that refuses.
_REASONS = {
    errno.ENODEV: "there is no such memory node any more; the kernel has moved what was on it to others",
    errno.EPERM: "move_pages(2) is not allowed; run with CAP_SYS_NICE, or allow it in the seccomp profile",
    errno.EACCES: (
        "several processes have it mapped, which takes CAP_SYS_NICE, or the cpuset forbids the node (cpuset.mems)"
    ),
    errno.ENOMEM: "that memory node has no memory free; write a smaller size for it",
    errno.EBUSY: "somebody holds it, for direct I/O perhaps",
}


def reason(code: int) -> str:
    """Why the kernel does not move a page."""
    return _REASONS.get(code, os.strerror(code))


def homes_of(nodes: Sequence[NodeSpec], machine: Callable[[], Topology]) -> dict[int, tuple[int, ...]]:
    """The machine's nodes that each mapped node of a spec stands for; empty if the spec names none."""
    if not any(isinstance(spec, Numa) or (isinstance(spec, Dram) and spec.node is not None) for spec in nodes):
        return {}
    homes: dict[int, tuple[int, ...]] = {
        index: (spec.node,) for index, spec in enumerate(nodes) if isinstance(spec, Numa)
    }
    taken = {node for home in homes.values() for node in home}
    dram = next(spec for spec in nodes if isinstance(spec, Dram))
    if dram.node is None:
        homes[DRAM] = tuple(node for node in machine().fast if node not in taken)
    else:
        homes[DRAM] = (dram.node,)
    return homes


def place_arena(nodes: Sequence[NodeSpec], address: int, length: int) -> None:
    """In the program: let pages of a fresh arena appear in its DRAM, whoever makes them appear.

    Raises
    ------
    SpecError
        This process may not say so.
    """
    homes = homes_of(nodes, Topology.read)
    if not homes:
        return
    try:
        numa.prefer(address, length, homes[DRAM])
        numa.locate(os.getpid(), [address])
    except OSError as error:
        if not is_ours(error):
            raise
        names = " and ".join(spec.name for spec in nodes if isinstance(spec, Numa)) or "dram@NODE"
        raise SpecError(
            f"{error.strerror}, so {names} cannot be used here; allow mbind(2) and move_pages(2) in the seccomp profile"
            " (CAP_SYS_NICE does in Docker), or leave it out of the spec"
        ) from None


class Placement:
    """Moves frames between the mapped nodes of one memory.

    Its methods may be called in any thread.

    Parameters
    ----------
    homes : dict of int to tuple of int
        As :func:`homes_of` gives it.
    """

    def __init__(self, arena: Arena, page_size: int, homes: dict[int, tuple[int, ...]]) -> None:
        self._arena = arena
        self._page_size = page_size
        self._homes = homes
        self._node_at = {home: node for node, (home, *_) in homes.items() if node != DRAM}
        #: Whether pages that several processes have mapped may be moved: found out when the first is refused.
        self._moves_shared = True

    def move(self, pages: Sequence[int], sources: Sequence[int], node: int) -> list[int]:
        """Let the kernel move frames from where they are charged to a node -> of each page, 0 or a negative errno.

        ``-ENOMEM``: the node is full. ``-EACCES``: see :func:`thermocline.live.numa.move`. ``-EBUSY``: it is in use.

        Raises
        ------
        StoreError
            ENODEV: the machine has no such node any more. EPERM, EACCES: it may not be used.
        """
        found = self._move([base for page in pages for base in self._bases_of(page)], self._homes[node])
        parts = self._page_size // _BASE
        results = []
        for index, (page, source) in enumerate(zip(pages, sources, strict=True)):
            statuses = found[index * parts : (index + 1) * parts]
            elsewhere = [status for status in statuses if not self._is_on(status, node)]
            refusals = [status for status in elsewhere if status < 0]
            results.append(refusals[0] if refusals else -errno.EBUSY if elsewhere else 0)
            if elsewhere and len(elsewhere) < parts:
                with suppress(StoreError):
                    self._move(self._bases_of(page), self._homes[source])
        return results

    def whereabouts(self, pages: Sequence[int]) -> dict[int, set[int]]:
        """The nodes of ours that frames are on, by page: several if a move was cut short. Not asked if there is one."""
        if len(self._homes) < 2:
            return {}
        found: dict[int, set[int]] = {}
        for start in range(0, len(pages), _LOOKED_UP_AT_ONCE):
            some = pages[start : start + _LOOKED_UP_AT_ONCE]
            bases = [base for page in some for base in self._bases_of(page)]
            for base, status in zip(bases, self._locate(bases), strict=True):
                if status >= 0:
                    found.setdefault(base // self._page_size, set()).add(self._node_at.get(status, DRAM))
        return found

    def mapped(self, pages: Sequence[int]) -> list[bool]:
        """Of each page, whether any process of the memory has any of it mapped."""
        bases = [base for page in pages for base in self._bases_of(page)]
        found = [False] * len(bases)
        for mapping in self._arena.mappings:
            pid = _pid_of(mapping)
            if pid is not None:
                with suppress(OSError):
                    statuses = numa.locate(pid, [mapping.address + base for base in bases])
                    found = [was or status >= 0 for was, status in zip(found, statuses, strict=True)]
        parts = self._page_size // _BASE
        return [any(found[start : start + parts]) for start in range(0, len(found), parts)]

    # -- moving -------------------------------------------------------------------------------------------------------

    def _bases_of(self, page: int) -> range:
        """The base pages of a page, as offsets in the arena."""
        return range(page * self._page_size, (page + 1) * self._page_size, _BASE)

    def _is_on(self, status: int, node: int) -> bool:
        """Whether a status is that of a base page on a node of ours. One that is a hole is wherever it should be."""
        return status == -errno.ENOENT or (status >= 0 and self._node_at.get(status, DRAM) == node)

    def _move(self, bases: Sequence[int], homes: Sequence[int]) -> list[int]:
        """Move base pages to the first of some of the machine's nodes that takes them -> their statuses."""
        found = dict.fromkeys(bases, -errno.ENOENT)
        for home in homes:
            left = [base for base in bases if found[base] not in homes]
            for _ in range(_PASSES):
                if not left:
                    break
                found.update(self._move_once(left, home))
                left = [base for base in left if found[base] in (numa.UNTRIED, -errno.EBUSY)]
        return [found[base] for base in bases]

    def _move_once(self, bases: Sequence[int], home: int) -> dict[int, int]:
        """Ask for each base page in the process that has it mapped -> statuses."""
        found: dict[int, int] = {}
        left = list(bases)
        for mapping in self._arena.mappings:
            if not left:
                return found
            pid = _pid_of(mapping)
            if pid is None:
                continue
            with suppress(ProcessLookupError):
                found.update(zip(left, self._call(pid, [mapping.address + base for base in left], home), strict=True))
            left = [base for base in left if found.get(base, -errno.ENOENT) == -errno.ENOENT]
        for bases_here, address in self._map_here(left):
            found.update(zip(bases_here, self._call(os.getpid(), _addresses(bases_here, address), home), strict=True))
        return found

    def _call(self, pid: int, addresses: Sequence[int], home: int) -> list[int]:
        try:
            if self._moves_shared:
                try:
                    return numa.move(pid, addresses, home, shared=True)
                except PermissionError as error:
                    if error.errno != errno.EPERM:
                        raise
                    self._moves_shared = False
            return numa.move(pid, addresses, home, shared=False)
        except ProcessLookupError:
            raise
        except OSError as error:
            raise StoreError(error.errno or errno.EIO, reason(error.errno or 0)) from error

    # -- looking ------------------------------------------------------------------------------------------------------

    def _locate(self, bases: Sequence[int]) -> list[int]:
        """On which of the machine's nodes base pages are; ``-ENOENT`` for holes."""
        found = dict.fromkeys(bases, -errno.ENOENT)
        for mapping in self._arena.mappings:
            left = [base for base in bases if found[base] < 0]
            pid = _pid_of(mapping)
            if left and pid is not None:
                with suppress(OSError):
                    found.update(zip(left, numa.locate(pid, [mapping.address + base for base in left]), strict=True))
        left = [base for base in bases if found[base] < 0]
        found.update(dict.fromkeys(left, -errno.ENOENT))
        for bases_here, address in self._map_here(left):
            found.update(zip(bases_here, numa.locate(os.getpid(), _addresses(bases_here, address)), strict=True))
        return [found[base] for base in bases]

    def _map_here(self, bases: Sequence[int]) -> Iterator[tuple[range, int]]:
        """Base pages that nobody has mapped, in stretches, each mapped here for a moment at an address. No holes."""
        for first, count in runs(sorted(base // _BASE for base in bases)):
            # To touch a hole would fill it.
            for begin, end in libc.data_extents(self._arena.fd, first * _BASE, (first + count) * _BASE):
                address = libc.mmap(None, end - begin, libc.PROT_READ, libc.MAP_SHARED, self._arena.fd, begin)
                try:
                    libc.madvise(address, end - begin, libc.MADV_POPULATE_READ)
                    yield range(begin, end, _BASE), address
                finally:
                    libc.munmap(address, end - begin)


def _addresses(bases: range, address: int) -> list[int]:
    """Where base pages are whose first is at an address."""
    return [address + base - bases.start for base in bases]


def _pid_of(mapping: Mapping) -> int | None:
    """The process of a mapping; None if it is gone (proc(5), ``fdinfo`` of a pidfd)."""
    try:
        with open(f"/proc/self/fdinfo/{mapping.process}") as info:
            found = re.search(r"^Pid:\s*(-?\d+)$", info.read(), re.MULTILINE)
    except OSError:
        return None
    return int(found[1]) if found and int(found[1]) > 0 else None
