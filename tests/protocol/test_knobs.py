"""Every setting is read: changing it changes what happens (a kernel patch once defined a knob that no code read)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields

import pytest
from machines import FILE, held, machine, read, states, write

from thermocline.check.layout import Extent, Limits, Place
from thermocline.protocol.child import Child
from thermocline.protocol.effects import Commit, Effect, Lock, Protocol, Reserve
from thermocline.protocol.fault import fault
from thermocline.protocol.group import Group, GroupReclaim
from thermocline.protocol.mm import Policy
from thermocline.protocol.node import Kind, Node
from thermocline.protocol.reclaim import reclaim_pages, shrink_node
from thermocline.protocol.region import Advice, Region
from thermocline.protocol.scan_control import Cause


def locks_held_in_allocation(design: str) -> int:
    """How many page locks are held when reclaim asks for a target."""
    made = machine(2, 2, design=design)
    write(made, 0)
    held_then: list[int] = []

    def watched(protocol: Protocol[int]) -> Protocol[int]:
        value = None
        while True:
            try:
                effect: Effect = protocol.send(value)
            except StopIteration as stop:
                return int(stop.value)
            if isinstance(effect, Reserve):
                held_then.append(len(made.owners))
            value = yield effect

    made.run(watched(reclaim_pages(made.mm, [0])))
    return held_then[0]


def discards(discard: bool) -> int:
    made = machine(2, 2, extents=(Extent(0, 2, source=True),), discard_clean=discard)
    read(made, 0)
    made.run(reclaim_pages(made.mm, [0]))
    return made.vmstat["pgdiscard"]


def reads_ahead(pages: int) -> int:
    made = machine(20, 16, readahead_pages=pages)
    write(made, 0, 1)
    return made.vmstat["readahead_pages"]


def holds(**settings: object) -> list[int]:
    place = Place("zstd", **{"slots": 2, "packed": 10, **settings})  # type: ignore[arg-type]
    made = machine(5, 2, place, FILE)
    write(made, *range(5))
    return held(made, 1)


def goes_down(keep: bool) -> list[int]:
    place = Place("zstd", 4, keep_incompressible=keep, incompressible=frozenset([0]))
    made = machine(2, 2, place, FILE)
    write(made, 0)
    made.run(reclaim_pages(made.mm, [0]))
    return held(made, 1)


def weighs(charged: bool) -> list[str]:
    made = machine(
        3, 3, Place("zstd", 4, charged_to_memory=charged), FILE,
        extents=(Extent(0, 3, group=1),), groups=(Limits(1, memory=2),),
    )  # fmt: skip
    write(made, 0, 1, 2)
    return [str(made.entry(page).node) for page in range(3)]


def demotes_from(kind: Kind) -> bool:
    """Whether moving a page out of a node stops its writers."""
    made = machine(2, 2)
    write(made, 0)
    made.nodes[0].kind = kind
    task = made.spawn("reclaim", reclaim_pages(made.mm, [0]))
    while made.arena.protected[0] == [False, False] and not task.finished:
        made.step(task)
    return made.arena.protected[0] == [True, True]


def shrinks(failed: bool) -> bool:
    made = machine(3, 2, Place("zstd", 2), FILE)
    write(made, 0)
    made.nodes[1].failed = failed
    return bool(made.run(shrink_node(made.mm, made.nodes[0], Cause.KSWAPD)))


def limited(**limit: int) -> list[str]:
    made = machine(3, 3, extents=(Extent(0, 3, group=1),), groups=(Limits(1, **limit),))
    write(made, 0, 1, 2)
    return states(made)


def advised(advice: int) -> int:
    made = machine(20, 16, extents=(Extent(0, 20, advice=advice),), readahead_pages=2)
    write(made, 0)
    return made.vmstat["readahead_pages"]


def comes_up(reserve: int, reads_parts: bool) -> tuple[int, int]:
    """What of a page, and whether what was there has to go."""
    zstd = Place("zstd", 4, reads_parts=True)
    made = machine(2, 2, zstd, extents=(Extent(0, 2, advice=Advice.RANDOM),))
    made.nodes[0].reserve, made.nodes[1].reads_parts = reserve, reads_parts
    made.place(0, 1)
    made.place(1, 0)
    made.run(fault(made.mm, 0, False))
    return made.nodes[0].used, made.entry(1).state


def filled_from(source: bool) -> list[int]:
    made = machine(2, 2, extents=(Extent(0, 2, source=source),))
    read(made, 0)
    return [version or 0 for version in made.arena.versions[0]]


def sinks_to(group_reclaim: GroupReclaim) -> list[int]:
    made = machine(
        2, 2, Place("zstd", 2), FILE, group_reclaim=group_reclaim,
        extents=(Extent(0, 2, group=1),), groups=(Limits(1, dram=1),),
    )  # fmt: skip
    write(made, 0, 1)
    return [made.entry(page).node for page in range(2)]


def deactivates(inactive_ratio: int) -> int:
    made = machine(8, 8, inactive_ratio=inactive_ratio)
    write(made, *range(6))
    for page in range(4):
        made.mm.lru_add(page, active=True)
    made.run(shrink_node(made.mm, made.nodes[0], Cause.DIRECT))
    return made.vmstat["pgdeactivate"]


def charged_to(group: int) -> list[int]:
    made = machine(2, 2, extents=(Extent(0, 2, group=group),), groups=(Limits(1, dram=2),))
    write(made, 0)
    return [group.used[0] for group in made.mm.groups.values()]


def owes(shared: int) -> object:
    """Which of two forks' children are owed a page of a region."""
    made = machine(1, 1)
    made.regions[1].shared = shared
    for number in (1, 2):
        made.mm.children[number] = Child(number, number)
    return [child.number for child in made.mm.owed(0)]


def answers_a_child(born: int) -> str:
    """What a child gets that touches a page it is not owed: zeros, or nothing where the region came after its fork."""
    made = machine(1, 1)
    made.regions[1].born = born
    made.mm.children[1] = Child(1, 1)
    made.table.given[0] = 1
    protocol = fault(made.mm, 0, False, child=1)
    assert type(protocol.send(None)) is Lock
    return type(protocol.send(None)).__name__


#: Class -> its settings, each with what happens under either of two values. State that is no setting is named last.
KNOBS: dict[type, tuple[dict[str, tuple[Callable[[], object], Callable[[], object]]], set[str]]] = {
    Policy: (
        {
            "design": (lambda: locks_held_in_allocation("batch"), lambda: locks_held_in_allocation("deferred")),
            "discard_clean": (lambda: discards(False), lambda: discards(True)),
            "readahead_pages": (lambda: reads_ahead(0), lambda: reads_ahead(2)),
            "group_reclaim": (lambda: sinks_to(GroupReclaim.LEFT), lambda: sinks_to(GroupReclaim.NEVER)),
            "inactive_ratio": (lambda: deactivates(2), lambda: deactivates(1)),
        },
        set(),
    ),
    Node: (
        {
            "capacity": (lambda: holds(slots=2), lambda: holds(slots=1)),
            "slot_bytes": (lambda: holds(slot_bytes=64), lambda: holds(slot_bytes=128, slots=1)),
            "keep_incompressible": (lambda: goes_down(True), lambda: goes_down(False)),
            "charged_to_memory": (lambda: weighs(True), lambda: weighs(False)),
            "reads_parts": (lambda: comes_up(0, True), lambda: comes_up(0, False)),
            "reserve": (lambda: comes_up(0, True), lambda: comes_up(64, True)),
            "kind": (lambda: demotes_from(Kind.MAPPED), lambda: demotes_from(Kind.UNMAPPED)),
            "failed": (lambda: shrinks(False), lambda: shrinks(True)),
        },
        {"index", "name", "used", "peak", "watermarks", "shadows"},
    ),
    Region: (
        {
            "advice": (lambda: advised(Advice.NORMAL), lambda: advised(Advice.SEQUENTIAL)),
            "source": (lambda: filled_from(False), lambda: filled_from(True)),
            "group": (lambda: charged_to(0), lambda: charged_to(1)),
            "born": (lambda: answers_a_child(0), lambda: answers_a_child(1)),
            "shared": (lambda: owes(0), lambda: owes(1)),
        },
        {"index", "start", "pages", "stream", "drained"},
    ),
    Group: (
        {
            "dram_limit": (lambda: limited(dram=3), lambda: limited(dram=1)),
            "memory_limit": (lambda: limited(memory=3), lambda: limited(memory=1)),
        },
        {"index", "name", "nodes"},
    ),
}


@pytest.mark.parametrize(("owner", "knob"), [(owner, knob) for owner in KNOBS for knob in KNOBS[owner][0]])
def test_a_setting_changes_what_happens(owner: type, knob: str) -> None:
    one, other = KNOBS[owner][0][knob]
    assert one() != other()
    assert one() == one()


@pytest.mark.parametrize("owner", KNOBS)
def test_no_setting_is_forgotten(owner: type) -> None:
    known, state = KNOBS[owner]
    if owner is Group:
        defined = set(Group.__init__.__annotations__) - {"return"}
    else:
        defined = {field.name for field in fields(owner)}
    assert defined == known.keys() | state


def test_effects_print_what_they_ask_for() -> None:
    assert repr(Commit(3, 1, 2, 7)) == "Commit(node=2, page=3, slot=7, state=1)"
