"""Copy on write between a program and its forked children, row by row of the table in the protocol."""

from __future__ import annotations

import pytest
from machines import FILE, at_rest, counts, machine, read, states, watched, write

from thermocline.check.layout import Extent, Place
from thermocline.check.machine import Machine
from thermocline.check.private import PrivateMapping
from thermocline.check.program import Access, Program
from thermocline.check.world import World
from thermocline.protocol import effects as e
from thermocline.protocol.child import Child
from thermocline.protocol.cow import attach_child, begin_fork, break_cow, forget_child
from thermocline.protocol.effects import Effect, Protocol
from thermocline.protocol.fault import fault
from thermocline.protocol.reclaim import reclaim_pages
from thermocline.protocol.recovery import recover, slots_in_use
from thermocline.protocol.region import Advice


def fork(made: Machine, number: int = 1, *, attach: bool = True) -> PrivateMapping:
    """The program forks."""
    made.family[number] = child = PrivateMapping(number, number, made.layout.pages, inherits=False)
    made.run(begin_fork(made.mm, Child(number, number), (), of_program=True))
    child.lives = True
    if attach:
        attach_(made, number)
    return child


def attach_(made: Machine, number: int = 1) -> None:
    made.run(attach_child(made.mm, number))
    made.family[number].expected = False


def forked(pages: int = 2) -> tuple[Machine, PrivateMapping]:
    """A machine whose pages are in DRAM, and a child."""
    made = machine(pages, pages)
    write(made, *range(pages))
    return made, fork(made)


def look(made: Machine, child: PrivateMapping, page: int) -> list[int]:
    """What a child reads; it must be there."""
    found = []
    for part in range(len(child.own[page])):
        if not child.allows(made.arena, page, part):
            made.run(fault(made.mm, page, False, 0, child.number))
        version = child.version(made.arena, page, part)
        assert version is not None
        child.mapped[page][part] = child.own[page][part] is None
        found.append(version)
    assert child.truth is not None
    assert found == child.truth[page]
    return found


def steps_of(protocol: Protocol[None], made: Machine) -> list[type[Effect]]:
    seen: list[Effect] = []
    made.run(watched(protocol, seen))
    return [type(effect) for effect in seen]


def locked(protocol: Protocol[None], page: int = 0) -> Protocol[None]:
    """The protocol, with the lock that it is called with."""
    yield e.Lock(page)
    yield from protocol
    yield e.Unlock(page)


# -- who is owed, and what it takes -----------------------------------------------------------------------------------


def test_a_fork_protects_what_is_in_memory_and_nothing_else_happens() -> None:
    made, child = forked()
    assert made.arena.protected[0] == [True, True]
    assert [other.number for other in made.mm.owed(0)] == [child.number]
    assert not made.saved


def test_a_child_that_has_nothing_mapped_is_given_a_copy_and_nothing_is_saved() -> None:
    made, child = forked()
    steps = steps_of(fault(made.mm, 0, True), made)
    assert steps == [e.Lock, e.CopyToChildren, e.Give, e.Remap, e.Unlock]
    write(made, 0)
    look(made, child, 0)
    assert counts(made)["cow_pages"] == counts(made)["cow_copies"] == 1


def test_a_child_that_has_the_frame_mapped_is_given_a_copy_where_the_frame_was() -> None:
    made, child = forked()
    look(made, child, 0)
    steps = steps_of(locked(break_cow(made.mm, 0)), made)
    assert steps[1:-1] == [
        e.CopyToChildren, e.SaveCopy, e.Withdraw, e.CopyToChildren, e.RestoreCopy, e.Give, e.DropCopy,
    ]  # fmt: skip
    write(made, 0)
    look(made, child, 0)
    read(made, 0)


def test_what_a_child_wrote_stays() -> None:
    made, child = forked()
    look(made, child, 0)
    child.write(0, 0)
    write(made, 0)
    look(made, child, 0)
    assert child.own[0][0] != child.own[0][1]


def test_the_second_write_is_let_go_at_once() -> None:
    made, _ = forked()
    write(made, 0, 0)
    assert (made.vmstat["pgfault_write_protect"], made.vmstat["cow_pages"]) == (1, 1)


def test_a_page_that_comes_up_behind_a_fork_comes_up_protected_zeros_too() -> None:
    made = machine(2, 2)
    write(made, 0)
    made.run(reclaim_pages(made.mm, [0]))
    child = fork(made)
    made.run(fault(made.mm, 0, True))
    made.run(fault(made.mm, 1, True))
    assert states(made) == ["RESIDENT", "RESIDENT"]
    assert made.arena.protected == [[True, True], [True, True]]
    write(made, 0, 1)
    look(made, child, 0)
    assert look(made, child, 1) == [0, 0]


def test_a_page_in_slow_memory_is_lifted_first() -> None:
    made = machine(1, 1, Place("numa:1", 1, mapped=True), FILE)
    write(made, 0)
    made.run(reclaim_pages(made.mm, [0]))
    assert made.entry(0).node == 1
    child = fork(made)
    look(made, child, 0)
    write(made, 0)
    assert made.entry(0).node == 0
    look(made, child, 0)


def test_a_child_that_touches_an_array_that_was_made_after_its_fork_gets_a_sigbus() -> None:
    made, child = forked()
    made.table.given[0] = made.regions[1].born = 1
    made.arena.punch(0)
    made.run(fault(made.mm, 0, False, 0, child.number))
    assert child.poisoned[0] == [True, True]


def test_zeros_that_a_child_was_given_and_lost_with_the_frame_are_given_again() -> None:
    """The kernel's zero page is unmapped with every hole that is punched, and copies are not."""
    made = machine(1, 1)
    child = fork(made)
    write(made, 0)
    assert child.zeros[0] == [True, True]
    made.run(reclaim_pages(made.mm, [0]))
    assert child.own[0] == [None, None]
    write(made, 0)
    assert not child.allows(made.arena, 0, 0), "the child would map what the program has written"
    assert look(made, child, 0) == [0, 0]


def test_a_frame_is_mapped_in_a_child_whose_touches_are_seen() -> None:
    made, child = forked()
    child.seen[0] = True
    made.run(fault(made.mm, 0, False, 0, child.number))
    assert child.mapped[0] == [True, True]


def test_the_writer_of_a_part_is_woken_when_the_rest_of_its_page_has_come_up_for_a_child() -> None:
    made = machine(1, 2, Place("zstd", 2, reads_parts=True), extents=(Extent(0, 1, advice=Advice.RANDOM),))
    made.place(0, 1)
    made.run(fault(made.mm, 0, False, 0))
    assert states(made) == ["PARTIAL"]
    child = fork(made)
    program = Program(made, {"program": ((Access(0, True, 0),),)})
    program.settle()
    assert program.threads["program"].finished, "the writer waits for ever"
    assert states(made) == ["RESIDENT"]
    look(made, child, 0)


# -- a fork under way -------------------------------------------------------------------------------------------------


def test_what_an_expected_child_is_owed_is_saved_and_given_when_it_is_attached() -> None:
    made = machine(1, 1)
    write(made, 0)
    child = fork(made, attach=False)
    write(made, 0)
    assert list(made.saved) == [0]
    attach_(made)
    assert not made.saved
    look(made, child, 0)
    assert child.own[0] != made.arena.versions[0]


def test_what_was_saved_for_a_child_that_died_is_dropped() -> None:
    made = machine(1, 1)
    write(made, 0)
    fork(made, attach=False)
    write(made, 0)
    del made.family[1]
    made.run(forget_child(made.mm, 1))
    assert not made.saved
    at_rest(made)


def test_a_child_that_is_attached_while_its_copy_is_being_saved_is_not_passed_over() -> None:
    made = machine(1, 1)
    write(made, 0)
    child = fork(made, attach=False)
    protocol = locked(break_cow(made.mm, 0))
    task = made.spawn("writer", protocol)
    while not isinstance(task.effect, e.SaveCopy):
        made.step(task)
    attach_(made)
    made.settle()
    write(made, 0)
    look(made, child, 0)


def test_an_attaching_child_that_is_forgotten_leaves_what_is_saved_alone() -> None:
    made = machine(2, 2)
    write(made, 0)
    fork(made, attach=False)
    write(made, 0)
    task = made.spawn("attach", attach_child(made.mm, 1))
    while not isinstance(task.effect, e.CopySaved | e.Lock):
        made.step(task)
    made.mm.children.pop(1)
    made.settle()
    assert list(made.saved) == [0]


def test_a_grandchild_inherits_the_frame_which_is_withdrawn_for_it() -> None:
    made, child = forked()
    look(made, child, 0)
    made.family[2] = grandchild = PrivateMapping(2, 1, made.layout.pages, inherits=True)
    made.run(begin_fork(made.mm, Child(2, 1), (), of_program=False))
    grandchild.lives = True
    grandchild.inherit(child)
    del made.family[1]
    made.run(forget_child(made.mm, 1))
    write(made, 0)
    attach_(made, 2)
    look(made, grandchild, 0)


def test_pinned_pages_are_saved_at_the_fork_and_stay_writable() -> None:
    made = machine(1, 1)
    write(made, 0)
    made.family[1] = PrivateMapping(1, 1, 1, inherits=False)
    made.run(begin_fork(made.mm, Child(1, 1), [0], of_program=True))
    assert list(made.saved) == [0]
    assert made.arena.protected[0] == [False, False]


# -- killed behind each step ------------------------------------------------------------------------------------------


def killed_behind(kind: type[Effect], *, attach: bool) -> tuple[Machine, PrivateMapping]:
    """A machine whose pager is killed when the effect of a write was performed, and whose successor has recovered."""
    made = machine(1, 1)
    write(made, 0)
    child = fork(made, attach=attach)
    if attach:
        look(made, child, 0)
    task = made.spawn("writer", locked(break_cow(made.mm, 0)))
    while not isinstance(task.effect, kind):
        made.step(task)
    while isinstance(task.effect, kind) or task.job is not None:
        made.step(task)
    kill(made)
    return made, child


def kill(made: Machine) -> None:
    World.kill(made)
    pages = range(made.layout.pages)
    slots = slots_in_use(made.mm, pages)
    for node, store in made.stores.items():
        store.recover(slots.get(node, ()))
    made.run(recover(made.mm, pages, made.presence, made.slot_size))


@pytest.mark.parametrize("kind", [e.CopyToChildren, e.SaveCopy, e.Withdraw, e.RestoreCopy, e.Give])
def test_a_pager_is_killed_behind_each_step(kind: type[Effect]) -> None:
    made, child = killed_behind(kind, attach=True)
    assert not made.saved
    assert states(made) == ["RESIDENT"]
    assert made.arena.protected[0] == [True, True]
    assert bool(made.mm.owed(0)) == (kind is not e.Give)
    write(made, 0)
    look(made, child, 0)
    at_rest(made)


@pytest.mark.parametrize("kind", [e.SaveCopy, e.Give])
def test_a_pager_is_killed_while_a_child_is_expected(kind: type[Effect]) -> None:
    made, child = killed_behind(kind, attach=False)
    assert list(made.saved) == [0]
    write(made, 0)
    attach_(made)
    look(made, child, 0)
    at_rest(made)


def test_a_successor_protects_for_a_child_whose_fork_had_not_begun() -> None:
    made = machine(1, 1)
    write(made, 0)
    made.family[1] = PrivateMapping(1, 1, 1, inherits=False)
    kill(made)
    assert made.arena.protected[0] == [True, True]
    assert made.family[1].truth == made.arena.truth
