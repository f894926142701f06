"""Migration: the shared move, and what each design does when it cannot."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from machines import DISK, FILE, at_rest, held, lock_forever, machine, nodes, read, states, watched, write

from thermocline.check.layout import Extent, Limits, Place
from thermocline.check.machine import Machine
from thermocline.check.program import Access, Program
from thermocline.check.task import Task
from thermocline.protocol.effects import CopyList, Effect, Protocol, Release, Resched, Reserve, TryLock, Unlock
from thermocline.protocol.migrate import DESIGNS
from thermocline.protocol.migrate.batch import ASYNC_PASSES, migrate_batch
from thermocline.protocol.pin import bring_up_pinned
from thermocline.protocol.reclaim import reclaim_pages, shrink_node
from thermocline.protocol.region import Region, free_region
from thermocline.protocol.scan_control import Cause, ScanControl

DESIGN = pytest.mark.parametrize("design", DESIGNS)
#: `discard` has no use for memory in between: it sends pages past it.
THROUGH_MEMORY = pytest.mark.parametrize("design", sorted(set(DESIGNS) - {"discard"}))


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


@THROUGH_MEMORY
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


@THROUGH_MEMORY
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
    failed = made.run(migrate_batch(made.mm, pages, made.nodes[1], ScanControl(made.nodes[0], 0, Cause.DIRECT)))
    assert failed == [2, 3]
    assert (made.vmstat["pgmigrate_success"], made.vmstat["pgmigrate_fail"]) == (2, 0)
    assert states(made) == ["SLOTTED", "SLOTTED", "RESIDENT", "RESIDENT", "RESIDENT"]
    put_back(made, failed)


def test_a_locked_page_is_tried_in_three_passes_then_alone_and_then_counted_as_failed() -> None:
    made = machine(3, 3)
    write(made, 0, 1)
    lock_forever(made, 0)
    seen: list[Effect] = []
    pages = isolate(made, 0, 1)
    batch = migrate_batch(made.mm, pages, made.nodes[1], ScanControl(made.nodes[0], 0, Cause.DIRECT))
    assert made.run(watched(batch, seen)) == [0]
    tries = [effect.page for effect in seen if isinstance(effect, TryLock)]
    assert tries == [0, 1, 0, 0, 0]
    assert len([effect for effect in seen if isinstance(effect, Resched)]) == ASYNC_PASSES == 3
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
    failed = made.run(
        migrate_batch(made.mm, isolate(made, 0, 1), made.nodes[1], ScanControl(made.nodes[0], 0, Cause.DIRECT))
    )
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
    assert made.run(migrate_batch(made.mm, pages, made.nodes[1], ScanControl(made.nodes[0], 0, Cause.DIRECT))) == [0]
    assert states(made)[:2] == ["RESIDENT", "SLOTTED"]
    put_back(made, [0])


def test_deferred_without_a_target_leaves_the_page_as_it_was() -> None:
    made = machine(3, 2, Place("file", 1), design="deferred")
    write(made, 0, 1, 2)
    assert made.run(reclaim_pages(made.mm, [1, 2])) == 0
    at_rest(made)
    assert made.vmstat["pgmigrate_fail"] == 0
    write(made, 1, 2)


def slow_reclaim(made: Machine, *pages: int) -> Callable[[type[Effect]], Task]:
    """Reclaim of pages that somebody lets run up to the next effect of a kind, and no further."""
    task = made.spawn("reclaim", reclaim_pages(made.mm, pages))
    made.step(task)

    def run_up_to(kind: type[Effect]) -> Task:
        while not isinstance(task.effect, kind):
            assert not task.finished
            made.step(task)
        return task

    return run_up_to


def locked(made: Machine) -> list[int]:
    return sorted(made.owners)


@pytest.mark.parametrize(
    ("design", "while_allocating", "while_copying"),
    [
        ("batch", [], [0, 1]),
        ("deferred", [0], [0]),
        ("discard", [0], [0]),
        ("prealloc", [], [0]),
        ("relock", [], [0]),
        ("transactional", [], []),
    ],
)
def test_which_pages_are_locked_when_the_target_is_allocated_and_when_it_is_copied(
    design: str, while_allocating: list[int], while_copying: list[int]
) -> None:
    """The table of designs, in one test."""
    made = machine(2, 2, design=design)
    write(made, 0, 1)
    run_up_to = slow_reclaim(made, 0, 1)
    run_up_to(Reserve)
    assert locked(made) == while_allocating
    run_up_to(CopyList)
    assert locked(made) == while_copying
    made.settle()
    at_rest(made)
    assert states(made) == ["SLOTTED", "SLOTTED"]


def test_transactional_lets_readers_and_writers_go_on_and_gives_up_what_was_written() -> None:
    made = machine(3, 3, design="transactional")
    write(made, 0, 1, 2)
    task = slow_reclaim(made, 0, 1, 2)(CopyList)
    made.step(task)  # the first part of each page is copied
    waiting = made.vmstat["pgfault"]
    for page, is_write in ((0, False), (1, True)):
        program = Program(made, {"program": ((Access(page, is_write),),)})
        thread = program.threads["program"]
        while not thread.finished:
            for fault in [other for other in made.runnable() if other is not task]:
                made.settle_task(fault)
            program.step(thread)
    assert made.vmstat["pgfault"] == waiting + 1, "the write faults once, and the read not at all"
    made.settle()
    at_rest(made)
    assert states(made) == ["SLOTTED", "RESIDENT", "SLOTTED"]
    assert (made.vmstat["pgmigrate_abort"], made.vmstat["pgmigrate_success"], made.vmstat["pgmigrate_fail"]) == (
        1,
        2,
        0,
    )
    assert held(made, 1) == [0, 2], "the slot of the page that was written is given back"
    read(made, 0, 1, 2)


def test_transactional_leaves_a_page_alone_that_was_freed_and_used_again() -> None:
    made = machine(2, 2, design="transactional", extents=(Extent(0, 1), Extent(1, 1)))
    write(made, 0)
    task = slow_reclaim(made, 0)(CopyList)
    made.arena.truth[0] = [0, 0]
    for protocol in (free_region(made.mm, made.regions[1]),):
        freeing = made.spawn("free", protocol)
        made.settle_task(freeing)
    made.regions[1] = Region(1, 0, 1)
    again = Program(made, {"program": ((Access(0, True),),)})
    thread = again.threads["program"]
    while not thread.finished:
        again.step(thread)
        for fault in [other for other in made.runnable() if other is not task]:
            made.settle_task(fault)
    assert made.mm.links.isolate(0), "somebody else is about to move the page of the new array"
    made.settle()
    made.mm.putback([0])
    at_rest(made)
    assert states(made)[0] == "RESIDENT"
    read(made, 0)


@pytest.mark.parametrize("design", ["batch", "relock", "transactional"])
def test_a_page_that_is_pinned_between_the_first_look_and_the_move_stays(design: str) -> None:
    made = machine(2, 2, design=design)
    write(made, 0, 1)
    task = slow_reclaim(made, 0)(Reserve)
    made.table.pins[0] += 1
    pinning = made.spawn("pin", bring_up_pinned(made.mm, 0, 1))
    made.settle_task(pinning)
    made.settle_task(task)
    at_rest(made)
    assert states(made)[0] == "RESIDENT"
    assert held(made, 1) == []


def test_a_page_that_is_pinned_during_a_transaction_stays() -> None:
    made = machine(2, 2, design="transactional")
    write(made, 0)
    task = slow_reclaim(made, 0)(CopyList)
    made.table.pins[0] += 1
    made.settle_task(made.spawn("pin", bring_up_pinned(made.mm, 0, 1)))
    made.settle_task(task)
    at_rest(made)
    assert states(made)[0] == "RESIDENT"


def test_prealloc_keeps_its_target_for_the_next_page() -> None:
    made = machine(3, 3, design="prealloc")
    write(made, 0, 1, 2)
    lock_forever(made, 0)
    seen: list[Effect] = []
    assert made.run(watched(reclaim_pages(made.mm, [0, 1]), seen)) == 1
    assert [type(effect) for effect in seen if isinstance(effect, Reserve | Release)] == [Reserve]
    assert held(made, 1) == [1]
    del made.owners[0]
    at_rest(made)


def test_prealloc_gives_back_a_target_that_nobody_took() -> None:
    made = machine(2, 2, design="prealloc")
    write(made, 0)
    lock_forever(made, 0)
    assert made.run(reclaim_pages(made.mm, [0])) == 0
    assert made.nodes[1].used == 0
    del made.owners[0]
    at_rest(made)


def test_prealloc_asks_for_one_target_that_is_not_there() -> None:
    made = machine(4, 3, Place("file", 1), design="prealloc")
    write(made, 0, 1, 2, 3)
    assert made.nodes[1].free == 0
    seen: list[Effect] = []
    assert made.run(watched(reclaim_pages(made.mm, [1, 2, 3]), seen)) == 0
    assert len([effect for effect in seen if isinstance(effect, Reserve)]) == 1, "nothing could make room there"
    at_rest(made)


def test_prealloc_takes_no_part_in_reclaim_for_a_groups_limit() -> None:
    made = machine(3, 3, design="prealloc", extents=(Extent(0, 3, group=1),), groups=(Limits(1, dram=3),))
    write(made, 0, 1, 2)
    held_then: list[list[int]] = []

    def watching(protocol: Protocol[int]) -> Protocol[int]:
        value = None
        while True:
            try:
                effect = protocol.send(value)
            except StopIteration as stop:
                return int(stop.value)
            if isinstance(effect, Reserve):
                held_then.append(locked(made))
            value = yield effect

    made.run(watching(shrink_node(made.mm, made.nodes[0], Cause.DIRECT, made.mm.groups[1])))
    assert held_then == [[0]], "the target is allocated under the lock, as in deferred"
    at_rest(made)


def test_relock_gives_up_a_page_that_was_locked_meanwhile() -> None:
    made = machine(2, 2, design="relock")
    write(made, 0)
    task = slow_reclaim(made, 0)(Reserve)
    lock_forever(made, 0)
    made.settle_task(task)
    assert (made.vmstat["pgmigrate_fail"], made.nodes[1].used) == (1, 0)
    del made.owners[0]
    at_rest(made)
    assert states(made)[0] == "RESIDENT"


def test_discard_passes_the_tiers_between_and_uses_them_when_the_last_is_full() -> None:
    made = machine(4, 4, Place("zstd", 4), Place("file", 2, charged_to_memory=False), design="discard")
    write(made, 0, 1, 2)
    assert made.run(reclaim_pages(made.mm, [0, 1, 2])) == 3
    assert nodes(made)[:3] == [2, 2, 1]
    at_rest(made)
    read(made, 0, 1, 2)


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
