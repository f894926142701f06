"""Migration: the shared move, and what each design does when it cannot."""

from __future__ import annotations

import pytest
from machines import DISK, FILE, at_rest, held, lock_forever, machine, nodes, read, states, watched, write

from thermocline.check.layout import Place
from thermocline.check.machine import Machine
from thermocline.protocol.effects import Effect, Protocol, Resched, TryLock, Unlock
from thermocline.protocol.migrate import DESIGNS
from thermocline.protocol.migrate.batch import ASYNC_PASSES, migrate_batch
from thermocline.protocol.reclaim import Cause, reclaim_pages, shrink_node

DESIGN = pytest.mark.parametrize("design", DESIGNS)


def isolate(made: Machine, *pages: int) -> list[int]:
    for page in pages:
        assert made.mm.links.isolate(page)
    return list(pages)


def put_back(made: Machine, failed: list[int]) -> None:
    made.mm.putback(failed)
    at_rest(made)


@DESIGN
def test_counters_count_pages_and_not_batches(design: str) -> None:
    made = machine(5, 5, design=design)
    write(made, 0, 1, 2, 3, 4)
    assert made.run(reclaim_pages(made.mm, [0, 1, 2])) == 3
    assert made.vmstat["pgmigrate_success"] == made.vmstat["pgdemote_proactive"] == 3
    assert made.vmstat["pgfree"] == made.vmstat["pgsteal_direct"] == 3
    assert made.vmstat["pgmigrate_fail"] == 0


@DESIGN
def test_a_failed_copy_leaves_the_page_writable_and_intact(design: str) -> None:
    made = machine(3, 3, design=design)
    write(made, 0, 1, 2)
    made.failing_copies = {1}
    assert made.run(reclaim_pages(made.mm, [0, 1, 2])) == 2
    at_rest(made)
    assert states(made) == ["SLOTTED", "RESIDENT", "SLOTTED"]
    assert (made.vmstat["pgmigrate_success"], made.vmstat["pgmigrate_fail"]) == (2, 1)
    faults = made.vmstat["pgfault"]
    write(made, 1)
    read(made, 1)
    assert made.vmstat["pgfault"] == faults


@DESIGN
def test_a_page_of_zeros_takes_no_slot(design: str) -> None:
    made = machine(3, 3, design=design)
    read(made, 0)
    write(made, 1)
    assert made.run(reclaim_pages(made.mm, [0, 1])) == 2
    assert states(made)[:2] == ["EMPTY", "SLOTTED"]
    assert held(made, 1) == [1]
    assert made.vmstat["pgmigrate_zero"] == 1
    at_rest(made)
    read(made, 0)


@DESIGN
@pytest.mark.parametrize("keep", [True, False])
@pytest.mark.parametrize("below", [True, False])
def test_a_page_that_does_not_compress_goes_down_or_stays_as_the_rule_says(
    design: str, keep: bool, below: bool
) -> None:
    zstd = Place("zstd", 4, slot_bytes=72, packed=32, keep_incompressible=keep, incompressible=frozenset([1]))
    made = machine(4, 4, zstd, Place("file", 4 if below else 1, charged_to_memory=False), design=design)
    if not below:
        write(made, 3)  # fill the file below
        made.run(reclaim_pages(made.mm, [3]))
        made.run(shrink_node(made.mm, made.nodes[1], Cause.DIRECT))
        assert held(made, 2) == [3]
    write(made, 0, 1)
    assert made.run(reclaim_pages(made.mm, [0, 1])) == 2
    assert nodes(made)[:2] == [1, 2 if below and not keep else 1]
    assert made.vmstat["pgmigrate_incompressible"] == (below and not keep)
    at_rest(made)
    read(made, 0, 1)


@DESIGN
def test_the_worst_case_is_reserved_and_the_difference_given_back(design: str) -> None:
    made = machine(3, 3, Place("zstd", 2, slot_bytes=72, packed=10), design=design)
    write(made, 0, 1)
    made.run(reclaim_pages(made.mm, [0, 1]))
    assert made.nodes[1].used == 20
    assert made.nodes[1].peak >= 82


@DESIGN
def test_pages_of_an_unmapped_node_go_down_too(design: str) -> None:
    made = machine(4, 2, Place("zstd", 4), DISK, design=design)
    write(made, 0, 1, 2, 3)
    assert held(made, 1) == [0, 1]
    assert made.run(shrink_node(made.mm, made.nodes[1], Cause.KSWAPD)) == 1
    assert (held(made, 1), held(made, 2)) == ([1], [0])
    at_rest(made)
    read(made, 0, 1, 2, 3)


def test_a_batch_ends_at_the_first_failed_allocation_and_untried_pages_have_not_failed() -> None:
    made = machine(5, 5, Place("file", 2))
    write(made, 0, 1, 2, 3, 4)
    pages = isolate(made, 0, 1, 2, 3)
    failed = made.run(migrate_batch(made.mm, pages, made.nodes[0], made.nodes[1], Cause.DIRECT))
    assert failed == [2, 3]
    assert (made.vmstat["pgmigrate_success"], made.vmstat["pgmigrate_fail"]) == (2, 0)
    assert states(made) == ["SLOTTED", "SLOTTED", "RESIDENT", "RESIDENT", "RESIDENT"]
    put_back(made, failed)


def test_a_locked_page_is_tried_in_three_passes_and_then_counted_as_failed() -> None:
    made = machine(3, 3)
    write(made, 0, 1)
    lock_forever(made, 0)
    seen: list[Effect] = []
    pages = isolate(made, 0, 1)
    batch = migrate_batch(made.mm, pages, made.nodes[0], made.nodes[1], Cause.DIRECT)
    assert made.run(watched(batch, seen)) == [0]
    tries = [effect.page for effect in seen if isinstance(effect, TryLock)]
    assert tries == [0, 1, 0, 0]
    assert len([effect for effect in seen if isinstance(effect, Resched)]) == ASYNC_PASSES - 1 == 2
    assert (made.vmstat["pgmigrate_success"], made.vmstat["pgmigrate_fail"]) == (1, 1)
    assert made.nodes[1].used == 64, "the slot of the page that did not move is given back"
    del made.owners[0]
    put_back(made, [0])


def test_a_locked_page_moves_in_a_later_pass_when_its_lock_is_free() -> None:
    made = machine(3, 3)
    write(made, 0, 1)
    holder = made.spawn("holder", _hold(0))
    made.step(holder)
    made.step(holder)
    assert made.holds(holder, 0)
    failed = made.run(migrate_batch(made.mm, isolate(made, 0, 1), made.nodes[0], made.nodes[1], Cause.DIRECT))
    assert failed == []
    at_rest(made)


def _hold(page: int) -> Protocol[None]:
    assert (yield TryLock(page))
    for _ in range(3):
        yield Resched()
    yield Unlock(page)


def test_a_page_that_moved_since_it_was_isolated_is_left_alone() -> None:
    made = machine(3, 3)
    write(made, 0, 1)
    pages = isolate(made, 0, 1)
    made.mm.lru_add(0)  # somebody else has put it back
    assert made.run(migrate_batch(made.mm, pages, made.nodes[0], made.nodes[1], Cause.DIRECT)) == []
    assert states(made)[:2] == ["RESIDENT", "SLOTTED"]
    at_rest(made)


def test_deferred_without_a_target_leaves_the_page_as_it_was() -> None:
    made = machine(3, 2, Place("file", 1), design="deferred")
    write(made, 0, 1, 2)
    assert made.run(reclaim_pages(made.mm, [1, 2])) == 0
    at_rest(made)
    assert made.vmstat["pgmigrate_fail"] == 0
    write(made, 1, 2)


@DESIGN
def test_every_design_says_what_it_is(design: str) -> None:
    made = DESIGNS[design]
    assert made.name == design
    assert (made.migrate_locked is None) != (made.migrate_list is None)


@DESIGN
def test_a_long_program_of_few_frames(design: str) -> None:
    made = machine(7, 2, Place("zstd", 2, slot_bytes=72, packed=40), FILE, design=design)
    for step in range(120):
        page = step * step % 7
        write(made, page) if step % 3 else read(made, page)
    read(made, *range(7))
