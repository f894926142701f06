"""Blocks that are freed lazily: their frames go first, are written nowhere, and are left alone once they are taken."""

from __future__ import annotations

from machines import at_rest, counts, machine, states, watched, write

from thermocline.check.layout import Extent, Limits
from thermocline.check.machine import Machine
from thermocline.protocol.effects import CopyList, Effect, ScanDelay, Unmap
from thermocline.protocol.lazyfree import age_lazyfree, holds_lazyfree, shrink_lazyfree
from thermocline.protocol.reclaim import shrink_group, shrink_node
from thermocline.protocol.scan_control import Cause


def freed(made: Machine, *starts: int) -> None:
    """Let the program free the blocks that start at these pages, the oldest first."""
    for place, start in enumerate(starts):
        made.lazyfree_blocks[place] = start + 1
        made.table.lazyfree[start] = place + 1
        region = made.regions[start + 1]
        for page in range(region.start, region.end):
            made.arena.discard(page)


def taken(made: Machine, start: int) -> None:
    made.table.lazyfree[start] = 0


def pair(**settings: object) -> Machine:
    """A block of two pages, and one of two that is in use; all in DRAM."""
    made = machine(4, 4, extents=(Extent(0, 2), Extent(2, 2)), **settings)  # type: ignore[arg-type]
    write(made, 0, 1, 2, 3)
    return made


def test_reclaim_takes_a_freed_block_first_and_writes_nothing() -> None:
    made = pair()
    freed(made, 0)
    seen: list[Effect] = []
    assert made.run(watched(shrink_node(made.mm, made.nodes[0], Cause.DIRECT), seen)) == 2
    assert states(made) == ["EMPTY", "EMPTY", "RESIDENT", "RESIDENT"]
    assert not any(isinstance(effect, CopyList) for effect in seen)
    assert counts(made)["pglazyfreed"] == 2
    assert "pgdemote_direct" not in counts(made)
    at_rest(made)


def test_a_block_in_use_goes_when_there_is_no_freed_one() -> None:
    made = pair()
    freed(made, 0)
    made.run(shrink_lazyfree(made.mm, 8))
    assert states(made) == ["EMPTY", "EMPTY", "RESIDENT", "RESIDENT"]
    assert made.run(shrink_node(made.mm, made.nodes[0], Cause.DIRECT)) > 0
    assert "SLOTTED" in states(made)
    at_rest(made)


def test_a_block_of_which_nothing_is_left_is_passed_over_until_it_is_freed_again() -> None:
    made = pair()
    freed(made, 0)
    assert made.run(shrink_lazyfree(made.mm, 8)) == 2
    assert made.run(shrink_lazyfree(made.mm, 8)) == 0
    made.footprint.clear()
    assert made.run(shrink_lazyfree(made.mm, 8)) == 0
    looked_at = made.footprint.reads
    made.footprint.clear()
    made.table.read(0)
    assert not looked_at & made.footprint.reads, "its pages are not gone through for each page that reclaim wants"
    taken(made, 0)
    write(made, 0, 1)
    freed(made, 0)
    made.table.lazyfree[0] = 2  # as the program does: another number each time
    assert made.run(shrink_lazyfree(made.mm, 8)) == 2
    at_rest(made)


def test_the_oldest_goes_first_and_no_more_than_is_needed() -> None:
    made = machine(80, 80, extents=(Extent(0, 40), Extent(40, 40)))
    write(made, *range(80))
    freed(made, 40, 0)
    assert made.run(shrink_lazyfree(made.mm, 8)) == 32
    assert states(made) == ["RESIDENT"] * 40 + ["EMPTY"] * 32 + ["RESIDENT"] * 8
    at_rest(made)


def test_a_block_that_is_taken_before_its_writers_are_stopped_keeps_its_frames() -> None:
    made = pair()
    freed(made, 0)
    protocol = shrink_lazyfree(made.mm, 8)
    effect = next(protocol)
    while not isinstance(effect, Unmap):
        effect = protocol.send(True)
    taken(made, 0)
    assert type(protocol.send(None)).__name__ == "Remap"
    protocol.close()


def test_a_pinned_page_stays() -> None:
    made = pair()
    freed(made, 0)
    made.table.pins[0] = 1
    assert made.run(shrink_lazyfree(made.mm, 8)) == 1
    assert states(made)[:2] == ["RESIDENT", "EMPTY"]


def test_a_group_takes_only_its_own() -> None:
    extents = (Extent(0, 1), Extent(1, 2, group=1))
    made = machine(3, 3, extents=extents, groups=(Limits(1, dram=2),))
    write(made, 0, 1, 2)
    freed(made, 0, 1)
    group = made.mm.groups[1]
    made.run(shrink_group(made.mm, group, made.mm.page_size))
    assert states(made)[0] == "RESIDENT"
    assert "EMPTY" in states(made)[1:]
    at_rest(made)


def test_what_nobody_asks_for_is_given_back_at_the_second_look() -> None:
    made = pair()
    freed(made, 0)
    seen: list[Effect] = []
    made.run(watched(age_lazyfree(made.mm), seen))
    assert states(made) == ["EMPTY", "EMPTY", "RESIDENT", "RESIDENT"]
    assert sum(isinstance(effect, ScanDelay) for effect in seen) == 2
    assert not holds_lazyfree(made.mm)
    at_rest(made)


def test_a_block_that_is_used_again_and_again_is_not_given_back() -> None:
    made = pair()
    freed(made, 0)
    protocol = age_lazyfree(made.mm)
    for number in range(2, 6):
        effect = next(protocol)
        assert isinstance(effect, ScanDelay)
        made.table.lazyfree[0] = number  # taken and freed
    taken(made, 0)
    assert next(protocol, None) is None
    assert states(made)[0] == "RESIDENT"


def test_a_stale_list_is_not_believed() -> None:
    made = pair()
    made.lazyfree_blocks[0] = 1  # taken since
    assert made.run(shrink_lazyfree(made.mm, 8)) == 0
    made.lazyfree_blocks[0] = 2  # no region has this number
    made.table.lazyfree[1] = 1
    assert made.run(shrink_lazyfree(made.mm, 8)) == 0
    assert states(made) == ["RESIDENT"] * 4
