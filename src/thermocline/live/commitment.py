"""How much may be allocated: no more than the nodes can hold in the worst case, or what the kernel would grant.

Strict commitment is the former: memory runs out in an allocation, where programs expect it, and not in an access,
where none does. The worst case is a page that does not compress in each slot of compressed memory, and a disk that has
what is free on it now.

Programs that were written for Linux allocate more than they touch, because the kernel lets them (proc(5),
``overcommit_memory``). Heuristic commitment is for those. What the nodes cannot hold is granted if the kernel would
grant it, so that an allocation fails where it fails without us; and the pager counts the pages that are touched
(:mod:`thermocline.protocol.first_touch`).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from thermocline.live.descriptor import Descriptor
from thermocline.live.stores import STORES
from thermocline.protocol.first_touch import SLACK
from thermocline.spec import NodeSpec

#: st_blocks counts these (stat(2)).
_BLOCK = 512


@dataclass
class _Watched:
    """A file whose disk is looked at."""

    file: Descriptor
    directory: str | os.PathLike[str]
    written: int = 0
    device: int = -1


class Commitment:
    """Counts committed pages against what the nodes can hold.

    Parameters
    ----------
    grants : callable, optional
        Whether so many bytes may be allocated that the nodes cannot hold: never, if not given.

    Attributes
    ----------
    overcommits : bool
        Whether any may.
    limit : int
        The most pages that the nodes can hold.
    committed : int
        Pages that are.
    """

    def __init__(self, nodes: Sequence[NodeSpec], page_size: int, grants: Callable[[int], bool] | None = None) -> None:
        self._page_size = page_size
        self._grants = grants or (lambda size: False)
        self.overcommits = grants is not None
        self._pages = [spec.capacity // worst_case(spec, page_size) for spec in nodes]
        self._in_memory = sum(pages for spec, pages in zip(nodes, self._pages, strict=True) if spec.in_memory)
        #: The nodes that are out of use now, as bits.
        self.failed_nodes: Callable[[], int] = lambda: 0
        self.limit = max(sum(self._pages) - SLACK, 1)
        self.committed = 0
        #: Of each file, what was written when it was last looked at, and where its directory is.
        self._files: list[_Watched] = []

    def watch(self, fd: int, directory: str | os.PathLike[str]) -> None:
        """Look at the disk of this file before pages are committed that may have to be on it. Keeps a duplicate."""
        self._files.append(_Watched(Descriptor.opened(os.dup(fd)), directory))

    def close(self) -> None:
        """Close the duplicates. Doing it again is nothing."""
        for watched in self._files:
            watched.file.close()

    def take(self, pages: int, *, granted: bool) -> bool:
        """Commit pages, if they can be held, or with ``granted`` if the kernel would grant them all the same."""
        wanted = self.committed + pages
        failed = self.failed_nodes()
        lost = sum(count for index, count in enumerate(self._pages) if failed >> index & 1)
        held = wanted <= self.limit - lost and self._disk_holds((wanted - self._in_memory) * self._page_size)
        if not held and not (granted and self._grants(pages * self._page_size)):
            return False
        self.committed = wanted
        return True

    def _disk_holds(self, size: int) -> bool:
        """Whether ``size`` bytes are on the disks already, or free there."""
        if size <= 0 or not self._files:
            return True
        devices: dict[int, int] = {}
        written = 0
        for watched in self._files:
            if watched.file.is_ours:
                status, disk = os.fstat(watched.file.number), os.fstatvfs(watched.file.number)
                watched.written, watched.device = status.st_blocks * _BLOCK, status.st_dev
            else:  # the program has closed it: at least as much is written as was then
                disk = os.statvfs(watched.directory)
            written += watched.written
            devices[watched.device] = disk.f_bavail * disk.f_frsize
        return size <= written + sum(devices.values())

    def give(self, pages: int) -> None:
        """The opposite of :meth:`take`."""
        self.committed -= pages


def worst_case(spec: NodeSpec, page_size: int) -> int:
    """Bytes of a node that a page takes at most."""
    return page_size if spec.is_mapped else STORES[type(spec)].worst_case(page_size)
