"""Promotion from slow memory that the program addresses: which pages are used there, although no access faults?

As NUMA balancing does (``task_numa_work``, ``do_numa_page``, ``should_numa_migrate_memory``): a slice of the node is
unmapped from the program, and looked at again a while later. What the program has mapped again, it has used: those
faults are the kernel's own, and never ours. What was used within the delay is hot, and is moved up
while DRAM has frames above its low watermark; where it has not, kswapd is woken and the page is marked as used, so that
reclaim of the slow node passes it over.

Its cost is bounded: a slice is :data:`SCAN_SIZE` at most, and the delay between two doubles while no page is used
again. It is reported as the kernel does: ``numa_pte_updates`` pages unmapped, ``numa_hint_faults`` of them used since.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from typing import TYPE_CHECKING

from thermocline.protocol.effects import (
    Hint,
    HintFaults,
    Protocol,
    Release,
    Resched,
    Reserve,
    ScanDelay,
    TryLock,
    Unlock,
    WakeKswapd,
)
from thermocline.protocol.migrate.frames import shift_frames

if TYPE_CHECKING:
    from thermocline.protocol.lru import LruList
    from thermocline.protocol.mm import Mm
    from thermocline.protocol.node import Node

_DRAM = 0
#: Bytes that are unmapped at once, at most. (The kernel's ``numa_balancing_scan_size_mb`` is 256, and its pages are
#: protected by flipping a bit.)
SCAN_SIZE = 32 << 20
#: Seconds between two looks (``scan_period_min_ms``, ``scan_period_max_ms``).
SCAN_PERIOD_MIN, SCAN_PERIOD_MAX = 1.0, 60.0
#: Pages that are unmapped, looked at, or moved in one step.
_BATCH = 32


def task_numa_work(mm: Mm, node: Node) -> Protocol[None]:
    """Look for hot pages in a slow mapped node, and promote them, now and then. Returns when that cannot be done.

    Locks: see :func:`promote_pages`. Sleeps between looks.
    """
    scan = NumaScan(node)
    period = SCAN_PERIOD_MIN
    while not node.failed:
        yield ScanDelay(period)
        hinted = yield from scan.hint(mm)
        if hinted is None:
            return
        yield ScanDelay(SCAN_PERIOD_MIN)
        hot = yield from scan.judge(mm, hinted)
        # An empty node is looked at as often as a busy one: it costs nothing, and its first pages are seen in time.
        period = min(2 * period, SCAN_PERIOD_MAX) if node.used and not hot else SCAN_PERIOD_MIN
        yield from promote_pages(mm, hot, node)


class NumaScan:
    """The hand that goes around a node (``mm->numa_scan_offset``)."""

    def __init__(self, node: Node) -> None:
        self.node = node
        #: Where it is in each list, by number of the list: the page it has last come to.
        self._last: dict[int, int] = {}

    def hint(self, mm: Mm) -> Protocol[list[int] | None]:
        """Unmap the next slice -> the pages that are unmapped now; None if it cannot be done here.

        Locks: none. A page that is moved or freed meanwhile is found out about when it is judged.
        """
        hinted: list[int] = []
        pages = self._slice(mm)
        for start in range(0, len(pages), _BATCH):
            batch = [page for page in pages[start : start + _BATCH] if mm.node_of(page) == self.node.index]
            done: list[bool] | None = (yield Hint(batch, self.node.index)) if batch else []
            if done is None:
                return None
            hinted += [page for page, unmapped in zip(batch, done, strict=True) if unmapped]
            yield Resched()
        mm.vmstat.add("numa_pte_updates", len(hinted))
        return hinted

    def _slice(self, mm: Mm) -> list[int]:
        """The pages behind the hand, from the coldest end of each list on."""
        most = max(SCAN_SIZE // mm.page_size, 1)
        found: list[int] = []
        for lruvec in mm.lruvecs(self.node.index):
            for pages in (lruvec.active, lruvec.inactive):
                found += self._advance(pages, most - len(found))
        return found

    def _advance(self, pages: LruList, count: int) -> list[int]:
        taken = list(islice(pages.from_tail(self._last.get(pages.number)), count))
        if taken:
            self._last[pages.number] = taken[-1]
        else:
            self._last.pop(pages.number, None)  # it has come around
        return taken

    def judge(self, mm: Mm, hinted: Sequence[int]) -> Protocol[list[int]]:
        """Which of the pages that were unmapped have been used since -> those that are still here."""
        hot: list[int] = []
        for start in range(0, len(hinted), _BATCH):
            batch = hinted[start : start + _BATCH]
            used: list[bool] = yield HintFaults(batch, self.node.index)
            for page, was_used in zip(batch, used, strict=True):
                if was_used and mm.node_of(page) == self.node.index:
                    mm.links.referenced[page] = 1
                    hot.append(page)
            yield Resched()
        mm.vmstat.add("numa_hint_faults", len(hot))
        return hot


def promote_pages(mm: Mm, pages: Sequence[int], source: Node) -> Protocol[int]:
    """Move used pages of a slow mapped node to DRAM, as long as it has frames to spare -> how many moved.

    Locks: tries those of a batch, and holds them while the kernel moves (``migrate_misplaced_folio``). Sleeps in that.
    """
    promoted = 0
    mm.vmstat.add("pgpromote_candidate", len(pages))
    for start in range(0, len(pages), _BATCH):
        for group, batch in (yield from _lock_with_frames(mm, pages[start : start + _BATCH], source)).items():
            moved = yield from shift_frames(mm, batch, source, mm.nodes[_DRAM], group)
            for page in moved:
                mm.lruvec(_DRAM, group).age += 1
                mm.lru_add(page, active=True)
            mm.vmstat.add("numa_pages_migrated", len(moved))
            mm.vmstat.add("pgpromote_success", len(moved))
            promoted += len(moved)
            for page in batch:
                yield Unlock(page)
        if not _may_promote(mm):
            break
        yield Resched()
    return promoted


def _may_promote(mm: Mm) -> bool:
    """Whether DRAM has a frame that no fault is going to miss (``migrate_balanced_pgdat``)."""
    dram = mm.nodes[_DRAM]
    return dram.free - mm.page_size >= dram.watermarks.low


def _lock_with_frames(mm: Mm, pages: Sequence[int], source: Node) -> Protocol[dict[int, list[int]]]:
    """Reserve a frame for each page that may go up, and lock it -> pages by group."""
    ready: dict[int, list[int]] = {}
    for page in pages:
        group = mm.group_of(page)
        if group.excess(mm.page_size):
            continue
        if not _may_promote(mm):
            yield WakeKswapd(_DRAM)
            break
        if (yield Reserve(_DRAM, group.index)) is None:
            yield WakeKswapd(_DRAM)
            break
        if not (yield TryLock(page)):
            yield Release(_DRAM, 0, group.index)
            continue
        pinned = mm.table.pins[page] or page in mm.held
        if mm.node_of(page) != source.index or mm.group_of(page) is not group or pinned:
            yield Unlock(page)
            yield Release(_DRAM, 0, group.index)
            continue
        ready.setdefault(group.index, []).append(page)
    return ready
