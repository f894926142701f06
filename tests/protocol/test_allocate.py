"""Allocation: the fast path, direct reclaim, and that a failed allocation harms no other task."""

from __future__ import annotations

from machines import FILE, at_rest, counts, held, machine, read, states, write

from thermocline.check.layout import Place
from thermocline.check.store import PAGE
from thermocline.protocol.allocate import allocate_frame, allocate_target
from thermocline.protocol.effects import Protocol, Release
from thermocline.protocol.fault import fault
from thermocline.protocol.scan_control import Cause, ScanControl


def test_a_frame_that_is_free_is_had_without_reclaim() -> None:
    made = machine(2, 3)
    assert made.run(allocate_frame(made.mm, made.mm.groups[0], PAGE)) is True
    assert made.nodes[0].used == 64
    assert counts(made) == {"pgalloc": 1}


def test_an_allocator_below_low_wakes_kswapd() -> None:
    made = machine(2, 2)
    write(made, 0)
    assert made.kswapd_wanted == set()
    write(made, 1)
    assert made.kswapd_wanted == {0}


def test_an_allocator_without_room_reclaims_for_itself() -> None:
    made = machine(4, 2)
    write(made, 0, 1, 2)
    assert counts(made)["allocstall"] == 1
    assert counts(made)["pgsteal_direct"] == counts(made)["pgdemote_direct"] == 1
    assert states(made) == ["SLOTTED", "RESIDENT", "RESIDENT", "EMPTY"]


def test_an_allocator_that_may_not_wait_gives_up() -> None:
    made = machine(3, 1, Place("file", 1))
    write(made, 0, 1)
    assert made.run(allocate_frame(made.mm, made.mm.groups[0], PAGE, may_wait=False)) is False
    assert "allocthrottle" not in counts(made)
    at_rest(made)


def test_an_allocator_with_nothing_to_reclaim_waits_for_room() -> None:
    made = machine(3, 1, Place("file", 1))
    write(made, 0, 1)
    got: list[bool] = []
    task = made.spawn("allocation", allocate_frame(made.mm, made.mm.groups[0], PAGE), done=got.append)
    made.settle()
    assert (task.waits_for, got) == ("room in any node", [])
    made.table.commit(0, 0)  # the program frees page 0
    made.run(_give_back(1))
    assert got == [], "room below is no news until reclaim has used it"
    made.retry_throttled()
    assert got == [True]


def _give_back(slot: int) -> Protocol[None]:
    yield Release(1, slot, 0)


def test_an_allocator_whose_patience_has_ended_poisons_its_page_and_loses_no_other() -> None:
    made = machine(3, 1, Place("file", 1))
    write(made, 0, 1)
    task = made.spawn("fault", fault(made.mm, 2, False))
    made.settle()
    made.resume_throttled(True)  # patience: it looks again, and waits again
    made.settle()
    assert task.waits_for
    made.resume_throttled(False)
    made.settle()
    at_rest(made)
    assert made.arena.poisoned[2] == [True, True]
    assert counts(made)["allocthrottle"] == 2
    assert states(made) == ["SLOTTED", "RESIDENT", "EMPTY"]
    read(made, 1)


def test_a_target_is_made_by_demoting_from_the_target_and_never_from_the_node_it_drains() -> None:
    made = machine(6, 2, Place("zstd", 2), FILE)
    write(made, 0, 1, 2, 3)
    assert (held(made, 1), held(made, 2)) == ([0, 1], [])
    slot = made.run(allocate_target(made.mm, made.nodes[1], ScanControl(made.nodes[0], 0, Cause.DIRECT)))
    assert slot == 1
    assert (held(made, 1), held(made, 2)) == ([1], [0])
    assert states(made)[2:4] == ["RESIDENT"] * 2


def test_a_target_that_is_full_to_the_bottom_is_none() -> None:
    made = machine(6, 2, Place("zstd", 1), Place("file", 1))
    write(made, 0, 1, 2, 3)
    assert made.run(allocate_target(made.mm, made.nodes[1], ScanControl(made.nodes[0], 0, Cause.DIRECT))) is None
    at_rest(made)


def test_a_target_below_low_has_its_kswapd_woken() -> None:
    made = machine(6, 2, Place("zstd", 2), FILE)
    write(made, 0, 1, 2)
    assert 1 not in made.kswapd_wanted
    write(made, 3)
    assert 1 in made.kswapd_wanted
