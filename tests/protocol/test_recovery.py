"""Recovery from every state, with the arena as a killed pager may have left it."""

from __future__ import annotations

import pytest
from machines import at_rest, held, is_lost, machine, read, states, write

from thermocline.check.layout import Extent
from thermocline.check.machine import Machine
from thermocline.protocol.page import EMPTY, PARTIAL, POISONED, RESIDENT, SHADOWED, SLOTTED
from thermocline.protocol.reclaim import reclaim_pages
from thermocline.protocol.recovery import recover, slots_in_use


def kill_and_recover(made: Machine, *doomed: int) -> None:
    made.kill()
    slots = slots_in_use(made.mm, range(made.layout.pages))
    for node, store in made.stores.items():
        store.recover(slots.get(node, ()))
    made.run(recover(made.mm, range(made.layout.pages), made.presence, made.slot_size, doomed))


def slotted(*pages: int) -> Machine:
    """A machine in which pages were written and went down."""
    made = machine(4, 4)
    write(made, *pages)
    assert made.run(reclaim_pages(made.mm, pages)) == len(pages)
    return made


def test_pages_that_were_at_rest_are_where_they_were() -> None:
    made = slotted(0, 1)
    read(made, 1)
    write(made, 2)
    before = [made.entry(page) for page in range(4)]
    used = [node.used for node in made.nodes]
    kill_and_recover(made)
    at_rest(made)
    assert [made.entry(page) for page in range(4)] == before
    assert [node.used for node in made.nodes] == used
    read(made, 0, 1, 2, 3)
    write(made, 0, 1, 2, 3)


@pytest.mark.parametrize("present", [(), (0,), (1,), (0, 1)], ids=["none", "first", "second", "both"])
@pytest.mark.parametrize("written", [False, True], ids=["untouched", "written"])
def test_a_fill_that_was_cut_short_is_finished_and_newer_bytes_stay(present: tuple[int, ...], written: bool) -> None:
    """From the first part on that appears, the program may have changed it."""
    made = slotted(0)
    entry = made.entry(0)
    for part in present:
        made.arena.versions[0][part] = made.arena.truth[0][part]
        if written:
            made.arena.versions[0][part] = made.arena.truth[0][part] = 1000 + part
    made.table.commit(0, PARTIAL, entry.node, entry.slot)
    kill_and_recover(made)
    at_rest(made)
    assert (states(made)[0], held(made, 1)) == (("RESIDENT", []) if present else ("SLOTTED", [0]))
    read(made, 0)


def test_a_fill_of_zeros_that_was_cut_short_is_finished() -> None:
    made = machine(2, 2)
    made.arena.versions[0][0] = made.arena.truth[0][0] = 7
    made.table.commit(0, PARTIAL)
    kill_and_recover(made)
    at_rest(made)
    read(made, 0)


@pytest.mark.parametrize("present", [(), (0,)], ids=["none", "first"])
def test_a_fill_that_cannot_be_finished_loses_the_page_and_keeps_the_budget(present: tuple[int, ...]) -> None:
    made = slotted(0)
    entry = made.entry(0)
    for part in present:
        made.arena.versions[0][part] = made.arena.truth[0][part]
    made.table.commit(0, PARTIAL, entry.node, entry.slot)
    made.failing_fills = {0}
    kill_and_recover(made)
    at_rest(made)
    assert is_lost(made, 0)
    assert (states(made)[0], held(made, 1)) == ("POISONED", [])
    assert made.nodes[0].used == 0
    assert made.vmstat["poisoned_pages"] == 1


def test_a_page_all_of_which_had_come_up_does_not_need_what_it_came_from() -> None:
    made = slotted(0)
    entry = made.entry(0)
    made.arena.versions[0] = list(made.arena.truth[0])
    made.table.commit(0, PARTIAL, entry.node, entry.slot)
    made.failing_fills = {0}
    kill_and_recover(made)
    at_rest(made)
    read(made, 0)
    assert (states(made)[0], held(made, 1)) == ("RESIDENT", [])


@pytest.mark.parametrize("parts", [(0,), (0, 1)], ids=["torn", "whole"])
def test_a_hole_that_was_not_punched_is_punched(parts: tuple[int, ...]) -> None:
    made = slotted(0)
    for part in parts:
        made.arena.versions[0][part] = made.arena.truth[0][part]
        made.arena.protected[0][part] = True
    kill_and_recover(made)
    at_rest(made)
    assert not made.arena.present(0)
    read(made, 0)


def test_a_page_of_zeros_whose_hole_was_not_punched() -> None:
    made = machine(2, 2)
    made.arena.versions[0] = [0, 0]
    made.arena.protected[0] = [True, True]
    assert made.entry(0).state == EMPTY
    kill_and_recover(made)
    at_rest(made)
    read(made, 0)


def test_a_lost_page_stays_lost() -> None:
    made = slotted(0)
    made.failing_fills = {0}
    assert is_lost(made, 0)
    made.arena.poisoned[0] = [False, False]  # killed after the commit, before the poison
    kill_and_recover(made)
    assert is_lost(made, 0)
    assert made.entry(0).state == POISONED


def test_a_resident_page_that_was_left_write_protected_can_be_written() -> None:
    made = machine(2, 2)
    write(made, 0)
    made.arena.protect(0, True)
    kill_and_recover(made)
    assert made.entry(0).state == RESIDENT
    write(made, 0)


def test_slots_that_no_entry_names_are_free_again() -> None:
    made = slotted(0, 1)
    read(made, 0)
    made.stores[1].reserve()
    assert (made.entry(0).state, made.entry(1).state) == (SHADOWED, SLOTTED)
    kill_and_recover(made)
    at_rest(made)
    assert sorted(made.stores[1].slots) == [1, 2]


def test_pages_of_a_file_take_no_slot() -> None:
    made = machine(4, 4, extents=(Extent(0, 4, source=True),))
    read(made, 0)
    write(made, 1)
    kill_and_recover(made)
    at_rest(made)
    assert [node.used for node in made.nodes] == [128, 0, 0]
    read(made, 0, 1, 2)


@pytest.mark.parametrize("state", [EMPTY, SLOTTED, PARTIAL, RESIDENT, SHADOWED])
@pytest.mark.parametrize("present", [(), (1,), (0, 1)], ids=["absent", "torn", "present"])
def test_a_page_that_is_given_up_is_poisoned_and_all_it_held_is_free(state: int, present: tuple[int, ...]) -> None:
    made = slotted(0, 1)
    read(made, 1)
    entry = made.entry(0)
    named = (entry.node, entry.slot) if state in (SLOTTED, PARTIAL, SHADOWED) else (0, 0)
    if present or state in (RESIDENT, SHADOWED):
        for part in present or (0, 1):
            made.arena.versions[0][part] = made.arena.truth[0][part]
            made.arena.protected[0][part] = True
    made.table.commit(0, state, *named)
    kill_and_recover(made, 0)
    at_rest(made)
    assert states(made)[0] == "POISONED"
    assert is_lost(made, 0)
    read(made, 1)


def test_giving_a_page_up_can_be_cut_short_anywhere_and_is_done_again() -> None:
    made = slotted(0, 1)
    read(made, 0)
    for steps in range(20):
        made.kill()
        slots = slots_in_use(made.mm, range(made.layout.pages))
        for node, store in made.stores.items():
            store.recover(slots.get(node, ()))
        protocol = recover(made.mm, range(made.layout.pages), made.presence, made.slot_size, (0,))
        task = made.spawn("recovery", protocol)
        for _ in range(steps):
            if not task.finished:
                made.step(task)
    assert task.finished
    at_rest(made)
    assert is_lost(made, 0)
    read(made, 1)


def test_a_page_that_is_held_is_not_moved() -> None:
    made = machine(4, 4)
    write(made, 0, 1)
    made.mm.held.add(0)
    assert made.run(reclaim_pages(made.mm, (0, 1))) == 1
    assert states(made)[:2] == ["RESIDENT", "SLOTTED"]
