"""Protocols with one mistake each, which was made before in some code; the checker has to catch them all.

Each is the right protocol with a few lines moved or left out. The first four are those of the linux-mm thread and of
the kernel's later history.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from thermocline.check.cases import cases
from thermocline.check.configuration import Actor, Configuration, Placed
from thermocline.check.forks import forks
from thermocline.check.ingredients import either, file
from thermocline.check.layout import Layout
from thermocline.protocol import allocate, fault, fill, lazyfree, promote, reclaim, recovery, region, verdict
from thermocline.protocol import effects as e
from thermocline.protocol.allocate import allocate_target
from thermocline.protocol.effects import Protocol
from thermocline.protocol.migrate import DESIGNS, Design, batch, deferred, frames
from thermocline.protocol.migrate import move as move_module
from thermocline.protocol.migrate.move import move
from thermocline.protocol.mm import Mm
from thermocline.protocol.node import Kind, Node
from thermocline.protocol.page import EMPTY, PARTIAL, POISONED, RESIDENT, SHADOWED, SLOTTED
from thermocline.protocol.region import Region
from thermocline.protocol.scan_control import Cause, ScanControl


class Broken(NamedTuple):
    """A wrong protocol.

    Attributes
    ----------
    patches : tuple of (module, name, function)
        What takes the place of the right one.
    kinds : set of str
        What may be found: which invariant breaks first is a matter of the schedule.
    case : str
        The configuration that shows it.
    """

    name: str
    case: str
    kinds: set[str]
    design: Design = DESIGNS["deferred"]
    patches: tuple[tuple[Any, str, Callable[..., Any]], ...] = ()
    crashes: int = 0
    cooperative: bool = True


# -- designs ----------------------------------------------------------------------------------------------------------


def naive(mm: Mm, page: int, target: Node, sc: ScanControl, _: int | None = None) -> Protocol[bool]:
    """A migrate that locks the page, called from a reclaim that has locked it already."""
    yield e.Lock(page)
    return (yield from deferred.migrate_deferred(mm, page, target, sc))


def greedy(mm: Mm, pages: Sequence[int], target: Node, sc: ScanControl) -> Protocol[list[int]]:
    """A batch that waits for each lock in turn, whatever it holds already, or its caller does."""
    slots: list[int] = []
    for _ in pages:
        slot = yield from allocate_target(mm, target, sc)
        if slot is None:
            break
        slots.append(slot)
    locked = []
    for page in pages[: len(slots)]:
        yield e.Lock(page)
        locked.append(page)
    ours = [page for page in locked if mm.is_movable(page, sc.node)]
    for page in set(locked) - set(ours):
        yield e.Unlock(page)
    for slot in slots[len(ours) :]:
        yield e.Release(target.index, slot, 0)
    failed = (yield from move(mm, ours, slots[: len(ours)], target, sc)) if ours else []
    return failed + list(pages[len(slots) :])


def moving(*steps: str) -> Callable[..., Protocol[list[int]]]:
    """A move of its steps in another order, or without some."""

    def wrong(mm: Mm, pages: Sequence[int], slots: Sequence[int], target: Node, sc: ScanControl) -> Protocol[list[int]]:
        old = [mm.table.read(page) for page in pages]
        mapped = sc.node.kind is Kind.MAPPED
        for step in steps:
            if step == "unmap" and mapped:
                yield e.Unmap(pages)
            elif step == "copy":
                yield e.CopyList(pages, target.index, slots, sc.group)
            elif step == "commit":
                for page, slot, entry in zip(pages, slots, old, strict=True):
                    if entry.node:
                        mm.nodes[entry.node].shadows.discard(page)
                    yield e.Commit(page, SLOTTED, target.index, slot)
            elif step == "punch" and mapped:
                yield e.Punch(pages)
            elif step == "release":
                for page, entry in zip(pages, old, strict=True):
                    if entry.node:
                        yield e.Release(entry.node, entry.slot, mm.group_of(page).index)
            elif step == "unlock":
                for page in pages:
                    mm.lru_add(page)
                for page in pages:
                    yield e.Unlock(page)
        return []

    return wrong


def with_move(*steps: str) -> tuple[tuple[Any, str, Callable[..., Any]], ...]:
    return ((deferred, "move", moving(*steps)), (batch, "move", moving(*steps)))


# -- faults -----------------------------------------------------------------------------------------------------------


def writable_before_the_shadow_is_gone(mm: Mm, page: int, state: int, write: bool) -> Protocol[None]:
    mm.links.referenced[page] = 1
    if not write:
        yield e.Wake(page)
        return
    yield e.Remap([page])
    if state == SHADOWED:
        yield from fault.drop_shadow(mm, page)


def a_late_message_is_ignored(mm: Mm, page: int, state: int, write: bool) -> Protocol[None]:
    mm.links.referenced[page] = 1
    if state == SHADOWED and write:
        yield from fault.drop_shadow(mm, page)
        yield e.Remap([page])


def filling(*steps: str) -> Callable[..., Protocol[None]]:
    """A fill of one page, writable, of its steps in another order, or without some."""

    def wrong(mm: Mm, pages: Sequence[int], writable: bool, parts: int = 0) -> Protocol[None]:
        (page,) = pages
        entry = mm.table.read(page)
        for step in steps:
            if step == "filling":
                yield e.Commit(page, PARTIAL, entry.node, entry.slot)
            elif step == "fill":
                yield e.Fill(pages, True)
            elif step == "resident":
                mm.links.present[page] = mm.all_parts
                yield e.Commit(page, RESIDENT)
                mm.lru_add(page)
            elif step == "release" and entry.node:
                yield e.Release(entry.node, entry.slot, mm.group_of(page).index)
            elif step == "unlock":
                yield e.Unlock(page)

    return wrong


def a_shadow_that_is_writable(mm: Mm, pages: Sequence[int], writable: bool, parts: int = 0) -> Protocol[None]:
    (page,) = pages
    entry = mm.table.read(page)
    yield e.Commit(page, PARTIAL, entry.node, entry.slot)
    yield e.Fill(pages, True)
    mm.links.present[page] = mm.all_parts
    if entry.node and not writable:
        yield e.Commit(page, SHADOWED, entry.node, entry.slot)
        mm.nodes[entry.node].shadows.add(page)
    else:
        yield e.Commit(page, RESIDENT)
        if entry.node:
            yield e.Release(entry.node, entry.slot, mm.group_of(page).index)
    mm.lru_add(page)
    yield e.Unlock(page)


def the_frame_is_not_reserved(mm: Mm, group: Any, size: int, *, may_wait: bool = True) -> Protocol[bool]:
    yield e.Reserve(0, group.index, size)
    return True


def pages_are_let_in_without_room(mm: Mm, group: int, *, may_wait: bool = True) -> Protocol[bool]:
    assert mm.first_touch is not None
    mm.first_touch.entering += 1
    yield e.Resched()
    return True


def a_page_that_was_let_in_is_counted_for_ever(mm: Mm) -> None:
    pass


def a_written_part_is_taken_for_clean(mm: Mm, page: int, *, demotion: bool) -> bool:
    return mm.table.state(page) in (SHADOWED, PARTIAL)


def nothing_is_completed(mm: Mm, page: int) -> Protocol[int]:
    yield e.Resched()
    mm.putback([page])
    return 0


# -- the rest ---------------------------------------------------------------------------------------------------------


def slots_are_released_before_the_commit(mm: Mm, freed: Any, pages: list[int]) -> Protocol[None]:
    for page in pages:
        entry = mm.table.read(page)
        if entry.node:
            mm.nodes[entry.node].shadows.discard(page)
            yield e.Release(entry.node, entry.slot, freed.group)
        framed = entry.state in (RESIDENT, SHADOWED)
        yield e.Commit(page, EMPTY)
        mm.links.isolate(page)
        if framed:
            yield e.Punch([page])
        yield e.Unlock(page)


def frames_are_forgotten(mm: Mm, freed: Any, pages: list[int]) -> Protocol[None]:
    for page in pages:
        entry = mm.table.read(page)
        yield e.Commit(page, EMPTY)
        mm.links.isolate(page)
        if entry.node:
            mm.nodes[entry.node].shadows.discard(page)
            yield e.Release(entry.node, entry.slot, freed.group)
        yield e.Unlock(page)


def half_filled_pages_are_taken_for_resident(mm: Mm, page: int, entry: Any, present: Any, frame: int) -> Protocol[None]:
    if entry.state in (EMPTY, SLOTTED) and present(page):
        yield e.Punch([page])
    elif entry.state == PARTIAL:
        yield e.Commit(page, RESIDENT)
        if entry.node:
            yield e.Release(entry.node, entry.slot, mm.group_of(page).index)


def holes_are_not_punched_again(mm: Mm, page: int, entry: Any, present: Any, frame: int) -> Protocol[None]:
    if entry.state == PARTIAL:
        yield from recovery_finish(mm, page, entry, present, frame)


recovery_finish = recovery._finish


def the_page_is_not_looked_at_again(mm: Mm, page: int, target: Node, sc: ScanControl, _: Any = None) -> Protocol[bool]:
    """A relock that trusts what it saw under the first lock."""
    yield e.Unlock(page)
    slot = yield from allocate_target(mm, target, sc)
    if slot is None:
        return False
    if not (yield e.TryLock(page)):
        yield e.Release(target.index, slot, sc.group)
        return False
    failed = yield from move(mm, [page], [slot], target, sc)
    return not failed


def a_spare_is_forgotten(mm: Mm, page: int, target: Node, sc: ScanControl, _: int | None) -> Protocol[bool]:
    """A prealloc that allocates under the lock after all, and never uses what it has."""
    return (yield from deferred.migrate_deferred(mm, page, target, sc))


def nobody_gives_up(mm: Mm, page: int) -> None:
    """A transaction that is committed whatever was written meanwhile."""


def pins_are_not_looked_at(mm: Mm, page: int, node: Node) -> bool:
    return mm.node_of(page) == node.index and not mm.links.list_of[page]


def a_dead_node_stays_in_use(mm: Mm, node: Node) -> None:
    """What refuses every write is tried for ever, and what is below it never."""


def a_dead_node_takes_those_below_it_along(mm: Mm, node: Node) -> None:
    node.failed = True
    while (below := mm.path.next_node(node.index)) is not None:
        mm.path.remove(below)
    mm.path.remove(node.index)


def what_a_dead_node_refuses_is_given_up(
    mm: Mm, pages: Sequence[int], slots: Sequence[int], sizes: Sequence[int], target: Node, sc: ScanControl
) -> Protocol[list[int]]:
    for page, size in zip(pages, sizes, strict=True):
        if size == e.FAILED:
            yield e.Commit(page, POISONED)
    return (yield from right_commit_copies(mm, pages, slots, sizes, target, sc))


right_commit_copies = move_module.commit_copies


def giving_up(*steps: str) -> Callable[..., Protocol[None]]:
    """The end of a doomed page, of its steps in another order, or without some."""

    def wrong(mm: Mm, page: int, entry: Any, frame: int) -> Protocol[None]:
        group = mm.group_of(page).index
        for step in steps:
            if step == "commit":
                yield e.Commit(page, POISONED)
            elif step == "punch" and mm.links.present[page]:
                yield e.Punch([page], frame)
            elif step == "poison":
                yield e.Poison(page)
            elif step == "slot" and entry.node:
                yield e.Release(entry.node, entry.slot, group)

    return wrong


def every_page_is_given_up(mm: Mm, page: int, entry: Any, present: Any, frame: int) -> Protocol[None]:
    return (yield from recovery._give_up(mm, page, entry, frame))


def the_kernel_is_not_asked(mm: Mm, page: int, found: Any) -> Protocol[None]:
    """The page table is believed, wherever a killed pager's move has left the frame."""
    yield e.Resched()


def moved_before_the_commit_is_known(
    mm: Mm, pages: Sequence[int], source: Node, target: Node, group: int
) -> Protocol[set[int]]:
    """The old frame's charge is given back before the kernel has moved it."""
    for page in pages:
        yield e.Release(source.index, 0, group)
        yield e.Commit(page, RESIDENT, target.index)
    yield e.CopyList(pages, target.index, [0] * len(pages), group)
    return set(pages)


def a_frame_goes_up_under_a_transaction(
    mm: Mm, pages: Sequence[int], source: Node, target: Node, group: int
) -> Protocol[set[int]]:
    """Whoever copies it further down is not told that it has moved."""
    yield e.CopyList(pages, target.index, [0] * len(pages), group)
    for page in pages:
        yield e.Commit(page, RESIDENT, target.index)
        yield e.Release(source.index, 0, group)
    return set(pages)


def dropping(*steps: str) -> Callable[..., Protocol[int]]:
    """The frame of one page of a freed block goes, by steps in another order, or without some."""

    def wrong(mm: Mm, region: Region, pages: Sequence[int]) -> Protocol[int]:
        (page,) = pages
        if not lazyfree._is_droppable(mm, page) or not (yield e.TryLock(page)):
            return 0
        goes = lazyfree._is_droppable(mm, page) and lazyfree._is_free(mm, region)
        stopped = False
        for step in steps:
            if not goes:
                break
            if step == "abort":
                mm.abort_transaction(page)
            elif step == "unmap":
                yield e.Unmap([page])
                stopped = True
            elif step == "look":
                goes = lazyfree._is_free(mm, region)
            elif step == "partial":
                yield e.Commit(page, PARTIAL)
            elif step == "punch":
                yield e.Punch([page])
            elif step == "empty":
                yield e.Commit(page, EMPTY)
                mm.links.isolate(page)
        if stopped and not goes:
            yield e.Remap([page])
        yield e.Unlock(page)
        return int(goes)

    return wrong


def with_drop(*steps: str) -> tuple[tuple[Any, str, Callable[..., Any]], ...]:
    return ((lazyfree, "_drop", dropping(*steps)),)


RIGHT_DROP = ("abort", "unmap", "look", "partial", "punch", "empty")
RIGHT_MOVE = ("unmap", "copy", "commit", "punch", "release", "unlock")
RIGHT_FILL = ("filling", "fill", "resident", "release", "unlock")

BROKEN = (
    Broken(
        "the kernel is not asked where a frame is",
        "mapped node",
        {"budget"},
        patches=((recovery, "_settle_frame", the_kernel_is_not_asked),),
        crashes=1,
    ),
    Broken(
        "charged before the kernel has moved it",
        "mapped node",
        {"budget"},
        patches=((frames, "shift_frames", moved_before_the_commit_is_known),),
        crashes=1,
    ),
    Broken(
        "a frame goes up under a transaction",
        "promotion",
        {"budget", "lost", "leak"},
        DESIGNS["transactional"],
        patches=((promote, "shift_frames", a_frame_goes_up_under_a_transaction),),
    ),
    Broken("naive locking under reclaim", "direct reclaim", {"deadlock"}, Design("naive", migrate_locked=naive)),
    Broken(
        "waits for a second lock",
        "two batches",
        {"deadlock"},
        Design("greedy", migrate_list=greedy),
        cooperative=False,
    ),
    Broken(
        "commit before copy",
        "direct reclaim",
        {"lost"},
        patches=with_move("unmap", "commit", "copy", "punch", "release", "unlock"),
    ),
    Broken(
        "hole before commit",
        "direct reclaim",
        {"lost"},
        patches=with_move("unmap", "copy", "punch", "commit", "release", "unlock"),
    ),
    Broken("writers not stopped", "second reclaimer", {"lost"}, patches=with_move(*RIGHT_MOVE[1:])),
    Broken(
        "writers stopped after the copy",
        "second reclaimer",
        {"lost"},
        patches=with_move("copy", "unmap", "commit", "punch", "release", "unlock"),
    ),
    Broken("hole never punched", "direct reclaim", {"leak", "budget", "lost"}, patches=with_move(
        "unmap", "copy", "commit", "release", "unlock"
    )),
    Broken("lock never given back", "direct reclaim", {"leak", "deadlock"}, patches=with_move(*RIGHT_MOVE[:-1])),
    Broken(
        "old slot released before the commit",
        "tight target",
        {"slot", "owners"},
        patches=with_move("unmap", "copy", "release", "commit", "punch", "unlock"),
    ),
    Broken("old slot never released", "tight target", {"leak"}, patches=with_move(
        "unmap", "copy", "commit", "punch", "unlock"
    )),
    Broken(
        "writable before the shadow is gone",
        "shadow",
        {"lost"},
        patches=((fault, "_present", writable_before_the_shadow_is_gone),),
    ),
    Broken(
        "a late message is ignored",
        "shadow",
        {"wakeup"},
        patches=((fault, "_present", a_late_message_is_ignored),),
    ),
    Broken("a shadow that is writable", "kswapd", {"lost"}, patches=((fault, "fill", a_shadow_that_is_writable),)),
    Broken(
        "filled before the page table says so",
        "direct reclaim",
        {"lost"},
        patches=((fault, "fill", filling("fill", *RIGHT_FILL[2:])),),
    ),
    Broken(
        "slot released before the fill",
        "direct reclaim",
        {"slot"},
        patches=((fault, "fill", filling("filling", "release", "fill", "resident", "unlock")),),
    ),
    Broken(
        "slot released before the commit",
        "direct reclaim",
        {"slot"},
        patches=((fault, "fill", filling("filling", "fill", "release", "resident", "unlock")),),
    ),
    Broken(
        "unlocked before it is filled",
        "same page",
        {"unlock", "slot", "lost", "leak"},
        patches=((fault, "fill", filling("filling", "unlock", "fill", "resident", "release")),),
    ),
    Broken(
        "more frames than there are",
        "direct reclaim",
        {"budget"},
        patches=((allocate, "allocate_frame", the_frame_is_not_reserved),),
    ),
    Broken(
        "pages are let in without room",
        "first touch",
        {"budget"},
        patches=((allocate, "let_in", pages_are_let_in_without_room),),
    ),
    Broken(
        "a page that was let in is counted for ever",
        "first touch",
        {"leak"},
        patches=((fill, "entered", a_page_that_was_let_in_is_counted_for_ever),),
    ),
    Broken(
        "a written part is dropped",
        "last slots",
        {"lost"},
        patches=((verdict, "_is_clean", a_written_part_is_taken_for_clean),),
    ),
    Broken(
        "pages in part that are never completed",
        "last slots",
        {"lost", "deadlock"},
        patches=((reclaim, "_complete", nothing_is_completed),),
    ),
    Broken(
        "freed slots named",
        "free",
        {"slot"},
        patches=((region, "_free_locked", slots_are_released_before_the_commit),),
    ),
    Broken("freed frames forgotten", "free", {"leak"}, patches=((region, "_free_locked", frames_are_forgotten),)),
    Broken(
        "a freed block is not looked at again",
        "freed block",
        {"lost"},
        patches=with_drop("abort", "unmap", "partial", "punch", "empty"),
    ),
    Broken(
        "the writers of a freed block are not stopped",
        "freed block",
        {"lost"},
        patches=with_drop("abort", "look", "partial", "punch", "empty"),
    ),
    Broken(
        "the writers of a freed block are stopped behind the look",
        "freed block",
        {"lost"},
        patches=with_drop("abort", "look", "unmap", "partial", "punch", "empty"),
    ),
    Broken(
        "a page of a freed block is empty before its hole",
        "cleared block",
        {"lost", "stale"},
        patches=with_drop("abort", "unmap", "look", "empty", "punch"),
    ),
    Broken(
        "the hole of a freed block comes before the entry",
        "freed block",
        {"lost"},
        patches=with_drop("abort", "unmap", "look", "punch", "partial", "empty"),
        crashes=1,
    ),
    Broken(
        "a copy of a freed block goes on",
        "cleared block",
        {"lost"},
        DESIGNS["transactional"],
        patches=with_drop(*RIGHT_DROP[1:]),
    ),
    Broken(
        "half filled pages taken for resident",
        "direct reclaim",
        {"lost"},
        patches=((recovery, "_finish", half_filled_pages_are_taken_for_resident),),
        crashes=1,
    ),
    Broken(
        "holes not punched again",
        "direct reclaim",
        {"leak", "budget", "lost"},
        patches=((recovery, "_finish", holes_are_not_punched_again),),
        crashes=1,
    ),
    Broken(
        "not looked at again",
        "pin",
        {"pin", "budget", "slot", "lost", "leak", "owners"},
        Design("careless", migrate_locked=the_page_is_not_looked_at_again),
        cooperative=False,
    ),
    Broken(
        "a spare is forgotten",
        "direct reclaim",
        {"leak"},
        DESIGNS["prealloc"]._replace(migrate_locked=a_spare_is_forgotten),
    ),
    Broken(
        "a transaction is committed though the page was written",
        "second reclaimer",
        {"lost"},
        DESIGNS["transactional"],
        patches=((Mm, "abort_transaction", nobody_gives_up),),
    ),
    Broken(
        "a transaction moves a page that was pinned meanwhile",
        "pin",
        {"pin", "lost"},
        DESIGNS["transactional"],
        patches=((Mm, "abort_transaction", nobody_gives_up),),
    ),
    Broken(
        "a page is moved that was pinned meanwhile",
        "pin",
        {"pin"},
        DESIGNS["relock"],
        patches=((Mm, "is_movable", pins_are_not_looked_at),),
        cooperative=False,
    ),
    Broken(
        "a dead node stays in use",
        "dead device",
        {"lost"},
        patches=((Mm, "fail_node", a_dead_node_stays_in_use),),
    ),
    Broken(
        "a dead node takes those below it along",
        "dead device",
        {"lost"},
        patches=((Mm, "fail_node", a_dead_node_takes_those_below_it_along),),
    ),
    Broken(
        "what a dead node refuses is given up",
        "last device dead",
        {"lost"},
        patches=((move_module, "commit_copies", what_a_dead_node_refuses_is_given_up),),
    ),
    Broken(
        "a doomed page keeps its slot",
        "doomed page",
        {"leak"},
        patches=((recovery, "_give_up", giving_up("commit", "punch", "frame", "poison")),),
        crashes=1,
    ),
    Broken(
        "a doomed page keeps its bytes",
        "doomed page",
        {"leak", "lost", "budget"},
        patches=((recovery, "_give_up", giving_up("commit", "frame", "poison", "slot")),),
        crashes=1,
    ),
    Broken(
        "the slot of a doomed page is released before the commit",
        "doomed page",
        {"slot"},
        patches=((recovery, "_give_up", giving_up("slot", "commit", "punch", "frame", "poison")),),
        crashes=1,
    ),
    Broken(
        "more is given up than the doomed page",
        "doomed page",
        {"lost"},
        patches=((recovery, "_finish", every_page_is_given_up),),
        crashes=1,
    ),
)  # fmt: skip


def case(name: str, *, crashes: int, cooperative: bool) -> Configuration:
    """A configuration by name."""
    known = {made.name: made for made in [*cases(), *forks(), two_batches(), same_page()]}
    return replace(known[name], crashes=crashes, cooperative=cooperative)


def two_batches() -> Configuration:
    """Two batches move the same pages, each in its own order, as two callers of move_pages(2) would."""

    def batch_of(*pages: int) -> Actor:
        return lambda machine: greedy(
            machine.mm, pages, machine.mm.nodes[1], ScanControl(machine.mm.nodes[0], 0, Cause.PROACTIVE)
        )

    return Configuration(
        "two batches",
        Layout(2, 2, (file(4),)),
        placed=(Placed(0, 0), Placed(1, 0)),
        reclaimers={"batch of 0 and 1": batch_of(0, 1), "batch of 1 and 0": batch_of(1, 0)},
        kswapd=False,
    )


def same_page() -> Configuration:
    """Two threads want the same page."""
    script = (either(0),)
    return Configuration(
        "same page",
        Layout(1, 2, (file(2),)),
        {"thread A": script, "thread B": script},
        placed=(Placed(0, 1),),
        kswapd=False,
    )
