"""Moving frames between mapped nodes: the bytes stay at their place in the arena, and the kernel moves them.

What the designs argue about is decided by then: the target is reserved and the pages are locked. The kernel's own
migration is transactional towards the program, which waits for it no longer than for a page table lock, so nothing has
to be unmapped and nothing can be torn.

A crash is harmless because both frames are charged until the entry is written: wherever the kernel has the page by
then, there is room for it, and :mod:`thermocline.protocol.recovery` asks where that is.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from thermocline.protocol.effects import FAILED, Commit, CopyList, Protocol, Release, Unlock
from thermocline.protocol.page import RESIDENT

if TYPE_CHECKING:
    from thermocline.protocol.mm import Mm
    from thermocline.protocol.node import Node
    from thermocline.protocol.scan_control import ScanControl


def move_frames(mm: Mm, pages: Sequence[int], target: Node, sc: ScanControl) -> Protocol[list[int]]:
    """Move locked pages from a mapped node to reserved frames of a lower one -> those that could not be moved.

    Locks, sleeps and outcome: those of :func:`thermocline.protocol.migrate.move.move`.
    """
    moved = yield from shift_frames(mm, pages, sc.node, target, sc.group)
    failed = [page for page in pages if page not in moved]
    for page in moved:
        mm.note_eviction(page, sc.node)
        mm.lru_add(page)
    mm.vmstat.add(f"pgdemote_{sc.cause.value}", len(moved))
    for page in pages:
        yield Unlock(page)
    return failed


def shift_frames(mm: Mm, pages: Sequence[int], source: Node, target: Node, group: int) -> Protocol[set[int]]:
    """Let the kernel move locked pages to reserved frames, down or up, and commit those that it moved -> those.

    A frame that was reserved in vain is released. A page that moved has no clean copy any more that it could fall back
    to: the entry has room for one node. Sleeps while the kernel moves; other tasks run.
    """
    sizes: list[int] = yield CopyList(pages, target.index, [0] * len(pages), group)
    moved: set[int] = set()
    for page, size in zip(pages, sizes, strict=True):
        if size == FAILED:
            yield Release(target.index, 0, group)
            continue
        entry = mm.table.read(page)
        # A transaction that copies it further down, unlocked, believes that its frame is still on the source.
        mm.abort_transaction(page)
        yield Commit(page, RESIDENT, target.index)
        if entry.names_slot:
            mm.nodes[entry.node].shadows.discard(page)
            yield Release(entry.node, entry.slot, group)
        yield Release(source.index, 0, group)
        moved.add(page)
    mm.vmstat.add("pgmigrate_success", len(moved))
    mm.vmstat.add("pgmigrate_fail", len(pages) - len(moved))
    return moved
