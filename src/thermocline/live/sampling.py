"""Which pages of slow memory the program uses, though nothing faults there: they are unmapped, and looked at later.

Unmapped they are by the kernel's own reclaim: process_madvise(2) with ``MADV_PAGEOUT`` unmaps the pages of a memfd, and
where there is no swap they cannot go anywhere. A touch then maps the base page again, in the kernel: no message
reaches us, and nobody waits for the pager. Who has been mapped again, move_pages(2) tells.

Other ways were looked at. Minor faults of userfaultfd (``UFFDIO_CONTINUE``) cost a way to the pager and back for each
touch. Write protection sees writers only. ``MADV_DONTNEED`` unmaps without a privilege and with
swap, but only from inside: a thread of ours in the program would have to wait for the interpreter lock, and would make
every fork of the program one of a process with threads. ``MADV_PAGEOUT`` on a mapping of ours unmaps nothing that the
program has mapped, too.

What it takes is CAP_SYS_NICE, and that there is no swap. Without, pages stay where they are until a lower node wants
them, which the user is told.
"""

from __future__ import annotations

import errno
from collections.abc import Sequence

from thermocline.live import numa
from thermocline.live.arena import Arena
from thermocline.live.messages import say
from thermocline.live.placement import Placement
from thermocline.protocol.page import runs


class Sampler:
    """Unmaps pages from the processes of a memory, and tells which have been mapped again."""

    def __init__(self, arena: Arena, placement: Placement, page_size: int) -> None:
        self._arena = arena
        self._placement = placement
        self._page_size = page_size
        self._said = False

    def hint(self, pages: Sequence[int]) -> list[bool] | None:
        """Unmap pages -> of each, whether nobody has any of it mapped now; None if that cannot be done here."""
        if swap():
            self._say("there is swap (swapoff -a), and they would be written there")
            return None
        size = self._page_size
        for mapping in self._arena.mappings:
            ranges = [(mapping.address + start * size, count * size) for start, count in runs(sorted(pages))]
            try:
                numa.page_out(mapping.process, ranges)
            except OSError as error:
                if error.errno in (errno.ESRCH, errno.EBADF, errno.ENOMEM):
                    continue  # that process has just gone, and its descriptors with it; or it has not all of it mapped
                if error.errno in (errno.EPERM, errno.EINVAL, errno.ENOSYS, errno.EACCES):
                    self._say(f"{error.strerror}; run with CAP_SYS_NICE")
                    return None
                raise
        return [not mapped for mapped in self._placement.mapped(pages)]

    def used(self, pages: Sequence[int]) -> list[bool]:
        """Of each page that nobody had mapped, whether somebody has any of it mapped now."""
        return self._placement.mapped(pages)

    def _say(self, why: str) -> None:
        if not self._said:
            self._said = True
            say(f"pages in slow memory are not looked at, and so not promoted to DRAM: {why}")


def swap(path: str = "/proc/swaps") -> bool:
    """Whether this machine swaps (proc(5))."""
    try:
        with open(path) as swaps:
            return len(swaps.readlines()) > 1
    except OSError:
        return False
