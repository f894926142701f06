"""Pins hold pages in DRAM, writable, or not at all."""

from __future__ import annotations

from machines import at_rest, machine, read, states, write

from thermocline.check.layout import Place
from thermocline.check.machine import Machine
from thermocline.protocol.pin import bring_up_pinned
from thermocline.protocol.reclaim import reclaim_pages


def count(made: Machine, pages: range, by: int = 1) -> None:
    """What the program does before it asks, and when it lets go."""
    for page in pages:
        made.table.pins[page] += by


def pin(made: Machine, start: int, number: int) -> bool:
    count(made, range(start, start + number))
    return bool(made.run(bring_up_pinned(made.mm, start, number)))


def test_a_pin_brings_pages_of_every_state_to_dram_writable_without_a_shadow() -> None:
    made = machine(5, 4)
    write(made, 0, 1, 2)
    made.run(reclaim_pages(made.mm, [0, 1]))
    read(made, 0)
    assert states(made) == ["SHADOWED", "SLOTTED", "RESIDENT", "EMPTY", "EMPTY"]
    assert pin(made, 0, 4)
    assert states(made)[:4] == ["RESIDENT"] * 4
    assert not any(any(parts) for parts in made.arena.protected[:4])
    assert made.run(reclaim_pages(made.mm, [0, 1, 2, 3])) == 0
    count(made, range(4), -1)
    assert made.run(reclaim_pages(made.mm, [0, 1, 2, 3])) == 4
    at_rest(made)
    read(made, 0, 1, 2, 3)


def test_pins_are_counted() -> None:
    made = machine(1, 1)
    assert [pin(made, 0, 1) for _ in range(2)] == [True, True]
    count(made, range(1), -1)
    assert made.run(reclaim_pages(made.mm, [0])) == 0
    count(made, range(1), -1)
    assert made.run(reclaim_pages(made.mm, [0])) == 1


def test_a_request_that_is_begun_again_changes_nothing() -> None:
    made = machine(2, 2)
    write(made, 0)
    assert pin(made, 0, 2)
    assert made.run(bring_up_pinned(made.mm, 0, 2))
    count(made, range(2), -1)
    assert made.run(reclaim_pages(made.mm, [0, 1])) == 2


def test_a_page_that_is_lost_refuses_the_pin() -> None:
    made = machine(3, 3)
    write(made, 0, 1)
    made.run(reclaim_pages(made.mm, [1]))
    made.failing_fills = {1}
    assert not pin(made, 0, 3)
    assert not pin(made, 1, 1)
    at_rest(made)


def test_a_pin_without_room_fails_when_patience_ends() -> None:
    made = machine(3, 1, Place("file", 1))
    write(made, 0, 1)
    got: list[bool] = []
    count(made, range(2, 3))
    made.spawn("pin", bring_up_pinned(made.mm, 2, 1), done=got.append)
    made.settle()
    assert got == []
    made.resume_throttled(False)
    made.settle()
    assert got == [False]
    at_rest(made)
