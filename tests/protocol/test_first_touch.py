"""Pages that are let in at their first touch, where more is allocated than there is room for."""

from __future__ import annotations

import pytest
from machines import FILE, at_rest, read, states, write

from thermocline.check.layout import Extent, Layout, Place
from thermocline.check.machine import Machine
from thermocline.check.program import Access, Program
from thermocline.protocol.migrate import DESIGNS
from thermocline.protocol.mm import Policy
from thermocline.protocol.pin import bring_up_pinned
from thermocline.protocol.recovery import recover
from thermocline.protocol.region import free_region


def machine(pages: int = 6, design: str = "batch", extents: tuple[Extent, ...] = ()) -> Machine:
    """Two frames and two slots, of which one is left out: three pages are let in."""
    layout = Layout(pages, 2, (Place("file", 2, charged_to_memory=False),), extents, slack=1)
    return Machine(layout, Policy(DESIGNS[design]))


def is_turned_away(made: Machine, page: int) -> bool:
    """Whether a touch of a page waits, and ends in SIGBUS when patience ends."""
    program = Program(made, {"program": ((Access(page, True),),)})
    program.settle()
    assert [task.waits_for for task, _ in made.throttled] == ["room in any node"]
    while made.throttled:
        made.retry_throttled()
    program.settle()
    return program.threads["program"].killed


def counted(made: Machine) -> tuple[int, int]:
    assert made.first_touch is not None
    return made.first_touch.pages_held, made.first_touch.pages_entering


@pytest.mark.parametrize("design", DESIGNS)
def test_as_many_pages_are_let_in_as_always_find_room(design: str) -> None:
    made = machine(design=design)
    write(made, 0, 1, 2)
    assert counted(made) == (3, 0)
    assert is_turned_away(made, 3)
    assert counted(made) == (3, 0)
    assert states(made)[3] == "EMPTY"
    read(made, 0, 1, 2, 0, 1, 2)  # what was let in goes up and down as before
    at_rest(made)


def test_zeros_that_were_only_read_make_room() -> None:
    made = machine()
    read(made, 0, 1, 2, 3, 4, 5)
    assert counted(made)[0] <= 3
    write(made, 0, 1, 2)
    assert counted(made) == (3, 0)
    at_rest(made)


def test_what_is_freed_makes_room() -> None:
    made = machine(extents=(Extent(0, 2), Extent(2, 4)))
    write(made, 0, 1, 2)
    made.dying.update((0, 1))
    made.run(free_region(made.mm, made.regions[1]))
    assert counted(made) == (1, 0)
    write(made, 3, 4)
    assert is_turned_away(made, 5)


def test_a_page_of_a_file_holds_room_only_while_it_is_up() -> None:
    made = Machine(
        Layout(4, 1, (FILE,), (Extent(0, 2), Extent(2, 2, source=True)), slack=0), Policy(DESIGNS["batch"], True)
    )
    assert counted(made) == (0, 0)
    read(made, 2)
    assert counted(made) == (1, 0)
    write(made, 0)
    assert states(made)[2] == "SLOTTED"
    assert counted(made) == (1, 0)


def test_a_pin_is_refused_where_nothing_is_let_in() -> None:
    made = machine()
    write(made, 0, 1, 2)
    answers: list[bool] = []
    made.spawn("pin", bring_up_pinned(made.mm, 3, 1), done=answers.append)
    made.settle()
    while made.throttled:
        made.retry_throttled()
    assert answers == [False]
    assert counted(made) == (3, 0)


def test_a_successor_counts_anew() -> None:
    made = machine()
    write(made, 0, 1, 2)
    made.kill()
    assert counted(made) == (0, 0)
    made.run(recover(made.mm, range(6), made.presence, made.slot_size))
    assert counted(made) == (3, 0)
    assert is_turned_away(made, 3)
    read(made, 0, 1, 2)
