"""Parts: pages of which only what is touched comes up, and what becomes of them."""

from __future__ import annotations

import pytest
from machines import at_rest, counts, held, is_lost, machine, states

from thermocline.check.layout import Extent, Place
from thermocline.check.machine import Machine
from thermocline.check.program import Access, Program
from thermocline.check.store import PAGE, PARTS
from thermocline.protocol.migrate import DESIGNS
from thermocline.protocol.pin import bring_up_pinned
from thermocline.protocol.reclaim import reclaim_pages
from thermocline.protocol.recovery import recover, slots_in_use
from thermocline.protocol.region import Advice, free_region

PART = PAGE // PARTS


def zstd(slots: int = 8) -> Place:
    return Place("zstd", slots, reads_parts=True)


def below(*pages: int, dram: int = 4, slots: int = 8, advice: int = Advice.RANDOM, design: str = "batch") -> Machine:
    """A machine of which these pages were written, and are in a node that parts come up from."""
    made = machine(4, dram, zstd(slots), extents=(Extent(0, 4, advice=advice),), design=design)
    for page in pages:
        made.place(page, 1)
    return made


def touch(made: Machine, page: int, part: int, *, write: bool = False) -> None:
    """Let the program touch a part of a page; what it reads is compared with what it wrote."""
    program = Program(made, {"program": ((Access(page, write, part),),)})
    program.settle()
    assert program.threads["program"].finished, f"the touch of page {page} is never answered"
    assert not program.threads["program"].killed
    at_rest(made)


def read_all(made: Machine, *pages: int) -> None:
    for page in pages:
        for part in range(PARTS):
            touch(made, page, part)


def test_of_a_page_that_is_touched_in_one_place_only_that_part_comes_up() -> None:
    made = below(0)
    touch(made, 0, 1)
    assert states(made)[0] == "PARTIAL"
    assert made.arena.versions[0][0] is None
    assert made.nodes[0].used == PART
    assert held(made, 1) == [0]
    assert counts(made)["pgpartial"] == 1


def test_the_rest_comes_up_when_it_is_touched_and_then_the_page_is_as_any_other() -> None:
    made = below(0)
    read_all(made, 0)
    assert states(made)[0] == "SHADOWED"
    assert made.nodes[0].used == PAGE
    made = below(0)
    touch(made, 0, 0, write=True)
    touch(made, 0, 1)
    assert (states(made)[0], held(made, 1)) == ("RESIDENT", [])


def test_a_page_that_is_there_in_part_and_was_not_written_is_dropped_and_nothing_is_copied() -> None:
    made = below(0)
    slot = made.entry(0).slot
    touch(made, 0, 1)
    assert made.run(reclaim_pages(made.mm, [0])) == 1
    assert (states(made)[0], made.entry(0).slot) == ("SLOTTED", slot)
    assert made.nodes[0].used == 0
    assert "pgmigrate_success" not in counts(made)
    read_all(made, 0)


@pytest.mark.parametrize("design", sorted(set(DESIGNS)))
@pytest.mark.parametrize("read_first", [False, True])
def test_what_was_written_goes_down_together_with_the_rest_of_its_page(design: str, read_first: bool) -> None:
    made = below(0, design=design)
    if read_first:  # write-protected, until it is written
        touch(made, 0, 1)
    touch(made, 0, 1, write=True)
    assert states(made)[0] == "PARTIAL"
    assert made.run(reclaim_pages(made.mm, [0])) == 1
    assert (states(made)[0], held(made, 1), made.nodes[0].used) == ("SLOTTED", [0], 0)
    read_all(made, 0)


def test_a_page_that_is_there_in_part_can_be_pinned_and_is_writable_then() -> None:
    made = below(0)
    touch(made, 0, 1)
    made.table.pins[0] = 1
    assert made.run(bring_up_pinned(made.mm, 0, 1))
    assert states(made)[0] == "RESIDENT"
    assert not any(made.arena.protected[0])
    read_all(made, 0)


@pytest.mark.parametrize("write", [False, True])
def test_a_page_that_is_there_in_part_can_be_freed(write: bool) -> None:
    made = below(0)
    touch(made, 0, 1, write=write)
    made.dying = {0}
    made.run(free_region(made.mm, made.regions[1]))
    assert (states(made)[0], held(made, 1), made.nodes[0].used) == ("EMPTY", [], 0)


def test_where_the_rest_of_a_page_cannot_be_had_all_of_it_is_lost_and_nothing_of_it_is_wrong() -> None:
    made = below(0)
    touch(made, 0, 1, write=True)
    made.failing_fills = {0}
    assert is_lost(made, 0)
    assert (states(made)[0], held(made, 1), made.nodes[0].used) == ("POISONED", [], 0)


def test_where_all_slots_are_taken_by_such_pages_one_of_them_is_completed() -> None:
    """Four pages, three slots: pages 0 to 2 have them, and are written in part; page 3 fills what DRAM there is."""
    made = below(0, 1, 2, dram=3, slots=3)
    made.place(3, 0)
    for page in range(3):
        touch(made, page, 0, write=True)
    assert counts(made)["partial_completed"] >= 1
    read_all(made, 0, 1, 2, 3)


def test_only_to_complete_a_page_may_the_reserve_be_taken() -> None:
    made = below(0, dram=2)
    made.place(1, 0)
    touch(made, 0, 0)  # has to push page 1 out, although there is a frame
    assert states(made)[:2] == ["PARTIAL", "SLOTTED"]
    assert machine(4, 2).nodes[0].reserve == 0  # which is kept where parts come up, and nowhere else


def test_the_successor_of_a_killed_pager_leaves_such_a_page_as_it_is_and_takes_it_for_written() -> None:
    made = below(0, 1)
    touch(made, 0, 1)
    touch(made, 1, 0, write=True)
    made.kill()
    slots = slots_in_use(made.mm, range(4))
    made.stores[1].recover(slots[1])
    made.run(recover(made.mm, range(4), made.presence, made.slot_size))
    at_rest(made)
    assert states(made)[:2] == ["PARTIAL", "PARTIAL"]
    assert made.nodes[0].used == 2 * PART
    made.run(reclaim_pages(made.mm, [0, 1]))
    assert counts(made)["pgmigrate_success"] == 2
    read_all(made, 0, 1)


def test_a_reader_in_order_gets_whole_pages_and_those_behind() -> None:
    made = machine(12, 20, zstd(40), extents=(Extent(0, 12),), readahead_pages=2)
    for page in range(12):
        made.place(page, 1)
    read_all(made, 3, 4, 5)
    assert states(made)[4:6] == ["SHADOWED", "SHADOWED"]
    assert counts(made)["pgpartial"] == PARTS  # of the first page


def test_who_begins_at_the_beginning_of_an_array_gets_whole_pages_at_once() -> None:
    made = below(0, 1, advice=Advice.NORMAL)
    touch(made, 0, 0)
    assert states(made)[0] != "PARTIAL"
    touch(made, 1, 1)
    assert states(made)[1] != "PARTIAL"  # the next page is expected
