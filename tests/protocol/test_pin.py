"""Pins hold pages in DRAM, writable, or not at all."""

from __future__ import annotations

import pytest
from machines import at_rest, machine, read, states, write

from thermocline.check.layout import Place
from thermocline.protocol.pin import MAX_PINS, pin, unpin
from thermocline.protocol.reclaim import reclaim_pages


def test_a_pin_brings_pages_of_every_state_to_dram_writable_without_a_shadow() -> None:
    made = machine(5, 4)
    write(made, 0, 1, 2)
    made.run(reclaim_pages(made.mm, [0, 1]))
    read(made, 0)
    assert states(made) == ["SHADOWED", "SLOTTED", "RESIDENT", "EMPTY", "EMPTY"]
    assert made.run(pin(made.mm, 0, 4)) is True
    assert states(made)[:4] == ["RESIDENT"] * 4
    assert not any(any(parts) for parts in made.arena.protected[:4])
    assert made.run(reclaim_pages(made.mm, [0, 1, 2, 3])) == 0
    made.run(unpin(made.mm, 0, 4))
    assert made.run(reclaim_pages(made.mm, [0, 1, 2, 3])) == 4
    at_rest(made)
    read(made, 0, 1, 2, 3)


def test_pins_are_counted() -> None:
    made = machine(1, 1)
    assert [made.run(pin(made.mm, 0, 1)) for _ in range(2)] == [True, True]
    made.run(unpin(made.mm, 0, 1))
    assert made.run(reclaim_pages(made.mm, [0])) == 0
    made.run(unpin(made.mm, 0, 1))
    made.run(unpin(made.mm, 0, 1))  # one too many
    assert made.table.pins[0] == 0
    assert made.run(reclaim_pages(made.mm, [0])) == 1


def test_a_pin_that_fails_pins_nothing() -> None:
    made = machine(3, 3)
    write(made, 0, 1)
    made.run(reclaim_pages(made.mm, [1]))
    made.failing_fills = {1}
    assert made.run(pin(made.mm, 0, 3)) is False
    assert [made.table.pins[page] for page in range(3)] == [0, 0, 0]
    at_rest(made)


@pytest.mark.parametrize("page", [0, 1])
def test_a_lost_page_and_a_counter_that_is_full_refuse_the_pin(page: int) -> None:
    made = machine(2, 2)
    if page:
        made.table.pins[page] = MAX_PINS
    else:
        write(made, 0)
        made.run(reclaim_pages(made.mm, [0]))
        made.failing_fills = {0}
    assert made.run(pin(made.mm, page, 1)) is False
    assert made.run(pin(made.mm, page, 1)) is False
    assert made.table.pins[page] == (MAX_PINS if page else 0)


def test_a_pin_without_room_fails_when_patience_ends() -> None:
    made = machine(3, 1, Place("file", 1))
    write(made, 0, 1)
    got: list[bool] = []
    made.spawn("pin", pin(made.mm, 2, 1), done=got.append)
    made.settle()
    assert got == []
    made.resume_throttled(False)
    made.settle()
    assert got == [False]
    assert made.table.pins[2] == 0
    at_rest(made)
