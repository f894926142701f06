"""Reclaim: making room in a node by sending its coldest pages down (``mm/vmscan.c``).

kswapd does it in the background between the low and the high watermark; an allocation that finds no room does it for
itself (direct reclaim); a group over its limit does it to its own pages. Nothing is ever dropped for lack of room: a
page leaves a node when its bytes are safe in another, or were there all along.

Locks: reclaim tries page locks and never waits for one, so its caller may hold one.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from typing import TYPE_CHECKING

from thermocline.protocol.effects import (
    Commit,
    DropClean,
    Protocol,
    Punch,
    Release,
    Resched,
    Reserve,
    SleepKswapd,
    TryLock,
    Unlock,
)
from thermocline.protocol.fill import fill
from thermocline.protocol.group import GroupReclaim
from thermocline.protocol.lazyfree import shrink_lazyfree
from thermocline.protocol.node import Kind
from thermocline.protocol.page import PARTIAL, RESIDENT, SHADOWED, SLOTTED
from thermocline.protocol.scan_control import Cause, ScanControl
from thermocline.protocol.verdict import Verdict, verdict_on

if TYPE_CHECKING:
    from thermocline.protocol.group import Group
    from thermocline.protocol.lru import Lruvec
    from thermocline.protocol.mm import Mm
    from thermocline.protocol.node import Node

_DRAM = 0
#: Pages that reclaim takes off a list together.
SWAP_CLUSTER_MAX = 32
#: A fruitless round scans ``size >> priority`` pages; each one lowers the priority; at 0 the whole list was looked at.
DEF_PRIORITY = 12


def kswapd(mm: Mm, node: Node) -> Protocol[None]:
    """Background reclaim of one node: sleeps until woken, then reclaims up to the high watermark. Never returns."""
    while True:
        yield SleepKswapd(node.index)
        mm.vmstat.add("kswapd_wakeups")
        while not node.balanced and not node.failed:
            mm.vmstat.add("pageoutrun")
            if not (yield from shrink_node(mm, node, Cause.KSWAPD)):
                break  # nothing to be had: an allocation that needs room will wake us again
            yield Resched()


def shrink_node(mm: Mm, node: Node, cause: Cause, group: Group | None = None) -> Protocol[int]:
    """Make room for about a cluster of pages in a node (``shrink_node``) -> slots' worth of room made.

    With a ``group``, it is that group's limit which asks, and its own pages go. Rounds look at ever more of the lists
    until one succeeds; 0 means that no page could be moved.
    """
    enough = _cluster(mm, node)
    if cause is Cause.KSWAPD:
        enough = max(node.watermarks.high // mm.page_size, enough)
    if node.index == _DRAM and (freed := (yield from shrink_lazyfree(mm, enough, group))):
        return freed  # their bytes are not wanted, so nothing else goes before them
    freed = yield from _drop_shadows(mm, node, group)
    priority = DEF_PRIORITY
    # Where touches are seen, all of the inactive list may have been touched once and none of it twice: it is looked at
    # two times before active pages have to go.
    spare_active = mm.links.accessed is not None
    while not freed and priority >= 0:
        scanned = False
        for lruvec in mm.lruvecs(node.index, group):
            if not len(lruvec):
                continue
            scanned = True
            if priority == 0 and not spare_active:
                # Nothing inactive can go: what is active may (``force_deactivate``).
                while len(lruvec.active):
                    _shrink_active_list(mm, lruvec)
            size = len(lruvec)
            count = max(_cluster(mm, node), size >> priority)
            if priority == 0:
                count = 2 * len(lruvec.inactive) if spare_active else size
            sc = ScanControl(node, lruvec.group, cause, for_group=group is not None, nr_to_reclaim=enough)
            freed += yield from _shrink_lruvec(mm, lruvec, count, sc)
        if not scanned:
            break
        if priority == 0 and spare_active:
            spare_active = False
        else:
            priority -= 4
    return freed


def shrink_group(mm: Mm, group: Group, excess: int) -> Protocol[int]:
    """Reclaim a group's own pages until ``excess`` bytes are reclaimed -> bytes that count as reclaimed.

    Those are the bytes that left what is limited: a page that went from DRAM to compressed memory still weighs its
    compressed bytes on the group's total. (:class:`~thermocline.protocol.group.GroupReclaim` has what the kernel did
    before.) DRAM is drained first; if the total is still over, compressed memory is. Where only the limit on DRAM is
    over, and pages of DRAM cannot go now, what is compressed stays.
    """
    before = group.excess(mm.page_size)
    reclaimed = 0
    for node in mm.nodes:
        if not node.charged_to_memory or mm.path.next_node(node.index) is None:
            continue
        if node.index != _DRAM and not group.must_leave_memory(mm.page_size):
            continue
        while reclaimed < excess:
            used = group.used[node.index]
            freed = yield from shrink_node(mm, node, Cause.DIRECT, group)
            if mm.policy.group_reclaim is GroupReclaim.DEMOTED:
                reclaimed += freed * mm.page_size
            else:
                reclaimed = before - group.excess(mm.page_size)
            if not freed or group.used[node.index] >= used:
                break
    return reclaimed


def has_outlet(mm: Mm, group: Group) -> bool:
    """Whether a group that is over its limit could send a page to where the limit does not count it."""
    below = [mm.nodes[node] for node in mm.path.from_node(0)[1:]]
    if group.must_leave_memory(mm.page_size):
        below = [node for node in below if not node.charged_to_memory]
    return any(node.has_room for node in below)


def reclaim_pages(mm: Mm, pages: Sequence[int]) -> Protocol[int]:
    """Demote these pages of DRAM now, because the user said they are cold (``reclaim_pages``) -> pages that left."""
    freed = 0
    dram = mm.nodes[0]
    for start in range(0, len(pages), SWAP_CLUSTER_MAX):
        isolated: dict[int, list[int]] = {}
        for page in pages[start : start + SWAP_CLUSTER_MAX]:
            if mm.node_of(page) == dram.index and mm.links.isolate(page):
                mm.links.referenced[page] = 0
                isolated.setdefault(mm.group_of(page).index, []).append(page)
        for group, cluster in isolated.items():
            freed += yield from _shrink_list(mm, cluster, ScanControl(dram, group, Cause.PROACTIVE))
        yield Resched()
    return freed


def _cluster(mm: Mm, node: Node) -> int:
    """Pages to move together: in flight they hold source and target at once, so in a small node they are few."""
    return min(SWAP_CLUSTER_MAX, max(node.capacity // mm.page_size // 8, 1))


def _drop_shadows(mm: Mm, node: Node, group: Group | None) -> Protocol[int]:
    """Give up clean copies of resident pages: room that costs no move.

    The youngest first, as where the kernel frees the swap of what comes up when little is left (``vm_swap_full``): the
    oldest are of pages that reclaim comes to next, and whose way down would be free.
    """
    freed = 0
    for page in list(islice(node.shadows, SWAP_CLUSTER_MAX)):
        if group is not None and mm.group_of(page) is not group:
            continue
        if not (yield TryLock(page)):
            continue
        entry = mm.table.read(page)
        if entry.state == SHADOWED and entry.node == node.index:
            node.shadows.discard(page)
            # It stays write-protected: the next write faults, finds RESIDENT and just goes on.
            yield Commit(page, RESIDENT)
            yield Release(entry.node, entry.slot, mm.group_of(page).index)
            mm.vmstat.add("shadow_dropped")
            freed += 1
        yield Unlock(page)
    return freed


def _shrink_lruvec(mm: Mm, lruvec: Lruvec, count: int, sc: ScanControl) -> Protocol[int]:
    """Look at ``count`` pages of one group's lists (``shrink_lruvec``) -> pages that left the node.

    It ends when enough have left. A round that looks at a whole list, because all that came first was in use, would
    otherwise empty it of everything that is not.
    """
    freed = 0
    while count > 0 and freed < sc.nr_to_reclaim:
        if lruvec.inactive_is_low or not len(lruvec.inactive):
            _shrink_active_list(mm, lruvec)
        isolated = _isolate(lruvec, min(count, _cluster(mm, sc.node)))
        if not isolated:
            break
        mm.vmstat.add("pgscan_kswapd" if sc.cause is Cause.KSWAPD else "pgscan_direct", len(isolated))
        count -= len(isolated)
        freed += yield from _shrink_list(mm, isolated, sc)
    return freed


def _shrink_active_list(mm: Mm, lruvec: Lruvec) -> None:
    """Move a cluster from the tail of the active list to the inactive one (``shrink_active_list``).

    Where touches can be seen all of them move, as in the kernel: one that is touched again before reclaim gets to it
    comes back at its first look. Where they cannot, a page that faulted while it was here has another round.
    """
    accessed = mm.links.accessed
    for _ in range(SWAP_CLUSTER_MAX):
        page = lruvec.active.tail()
        if page is None:
            return
        lruvec.active.remove(page)
        mm.vmstat.add("pgrefill")
        if accessed is not None:
            accessed[page] = 0
            lruvec.inactive.add(page)
            mm.vmstat.add("pgdeactivate")
        elif mm.links.referenced[page]:
            mm.links.referenced[page] = 0
            lruvec.active.add(page)
        else:
            lruvec.inactive.add(page)
            mm.vmstat.add("pgdeactivate")


def _isolate(lruvec: Lruvec, count: int) -> list[int]:
    """Take up to ``count`` pages off the tail of the inactive list (``isolate_lru_folios``)."""
    isolated: list[int] = []
    while len(isolated) < count:
        page = lruvec.inactive.tail()
        if page is None:
            break
        lruvec.inactive.remove(page)
        isolated.append(page)
    return isolated


def _shrink_list(mm: Mm, isolated: Sequence[int], sc: ScanControl) -> Protocol[int]:
    """Send isolated pages down, and put back what could not go (``shrink_folio_list``) -> pages that left the node.

    When demotion fails for some, a second pass looks at those again without demotion: a clean page may still be
    dropped. A page that is nowhere else stays.
    """
    target = _demotion_target(mm, sc)
    freed, left = yield from _shrink_pass(mm, isolated, target, sc)
    while left and not freed and sc.cause is Cause.DIRECT and target is not None and _is_closed(mm.nodes[target]):
        # An emergency: the target is full, and what is in it cannot move, perhaps because the allocation that we
        # reclaim for holds its lock. Or the kernel moves no frame there. Only now, and never in the background, a tier
        # is skipped.
        target = mm.path.next_node(target)
        if target is not None:
            freed, left = yield from _shrink_pass(mm, left, target, sc)
    if left and sc.node.kind is Kind.MAPPED:
        dropped, left = yield from _shrink_pass(mm, left, None, sc)
        freed += dropped
    mm.putback(left)
    if freed:
        mm.vmstat.add("pgsteal_kswapd" if sc.cause is Cause.KSWAPD else "pgsteal_direct", freed)
    return freed


def _is_closed(node: Node) -> bool:
    """Whether a node that took none of the pages is not going to take any: a store would have said why."""
    return not node.has_room or node.kind is Kind.MAPPED


def _demotion_target(mm: Mm, sc: ScanControl) -> int | None:
    """The node that pages go to (``can_demote``, ``next_demotion_node``), or None."""
    below = mm.path.from_node(sc.node.index)[1:]
    if sc.for_group and mm.policy.group_reclaim is GroupReclaim.NEVER:
        below = [node for node in below if not mm.nodes[node].charged_to_memory]
    return below[0] if below else None


def _shrink_pass(
    mm: Mm, isolated: Sequence[int], target_index: int | None, sc: ScanControl
) -> Protocol[tuple[int, list[int]]]:
    """One pass over isolated pages, without demotion if there is no target -> (that left, that are still isolated)."""
    design = mm.policy.design
    target = None if target_index is None else mm.nodes[target_index]
    freed = 0
    if mm.takes_lists and sc.node.index == _DRAM and design.preallocate is None:
        freed, isolated = yield DropClean(isolated, sc.cause.value)
    spare: int | None = None
    may_preallocate = design.preallocate is not None and target is not None
    kept: list[int] = []
    clean: list[int] = []
    demote: list[int] = []
    for page in isolated:
        if may_preallocate and spare is None:
            assert design.preallocate is not None and target is not None
            freed += yield from _drop_clean(mm, clean, sc)  # no lock of a source is held across what may sleep
            clean = []
            spare = yield from design.preallocate(mm, target, sc)
            may_preallocate = spare is not None
        if not (yield TryLock(page)):
            kept.append(page)
            continue
        verdict = verdict_on(mm, page, target, sc)
        if verdict is Verdict.CLEAN:
            clean.append(page)  # stays locked until its hole is punched with the others'
            continue
        if verdict is not Verdict.DEMOTE:
            if verdict is Verdict.KEEP:
                kept.append(page)
            yield Unlock(page)
            continue
        if design.migrate_locked is not None and target is not None:
            freed += yield from _drop_clean(mm, clean, sc)  # no other lock is held across what may sleep
            clean = []
            # As in the June 2020 RFC: reclaim decides under the page lock, and migrates under the same lock.
            moved = yield from design.migrate_locked(mm, page, target, sc, spare)
            spare = None
            if moved:
                freed += 1
            else:
                kept.append(page)
            continue
        demote.append(page)
        yield Unlock(page)
    freed += yield from _drop_clean(mm, clean, sc)
    if spare is not None and target is not None:
        yield Release(target.index, spare, sc.group)
    gone, failed = yield from _migrate(mm, demote, target, sc)
    return freed + gone, kept + failed


def _migrate(mm: Mm, pages: Sequence[int], target: Node | None, sc: ScanControl) -> Protocol[tuple[int, list[int]]]:
    """Move isolated, unlocked pages as the design does, or complete them -> (how many, that are still isolated)."""
    if target is None:
        freed = 0
        for page in pages:
            freed += yield from _complete(mm, page)
        return freed, []
    if not pages:
        return 0, []
    assert mm.policy.design.migrate_list is not None
    failed = yield from mm.policy.design.migrate_list(mm, pages, target, sc)
    return len(pages) - len(failed), failed


def _complete(mm: Mm, page: int) -> Protocol[int]:
    """Bring up the rest of an isolated page -> 1 if that gave back its slot, which another page can have now.

    Written since it came, it can only go down to another slot than its own, for that one is half of what it is. Where
    every slot is taken, by pages like it and others, this is the way to a free one; the reserve of DRAM is there for
    it.
    """
    completed = 0
    if (yield TryLock(page)):
        size = mm.bytes_of(mm.missing(page))
        wanted = mm.table.state(page) == PARTIAL
        if wanted and (yield Reserve(0, mm.group_of(page).index, size, urgent=True)) is not None:
            yield from fill(mm, [page], True)
            mm.vmstat.add("partial_completed")
            completed = 1
        else:
            yield Unlock(page)
    mm.putback([page])
    return completed


def _drop_clean(mm: Mm, pages: Sequence[int], sc: ScanControl) -> Protocol[int]:
    """Free the frames of locked, clean pages: their shadows become what they are."""
    if not pages:
        return 0
    for page in pages:
        entry = mm.table.read(page)
        node = mm.nodes[entry.node]
        node.shadows.discard(page)
        yield Commit(page, SLOTTED, entry.node, entry.slot)
        mm.note_eviction(page, mm.nodes[0])
        if node.kind is Kind.SOURCE:
            mm.vmstat.add("pgdiscard")
        else:
            mm.vmstat.add(f"pgdemote_{sc.cause.value}")
    yield Punch(pages)
    for page in pages:
        mm.lru_add(page)
        yield Unlock(page)
    return len(pages)
