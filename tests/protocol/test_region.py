"""Freeing a region gives everything back."""

from __future__ import annotations

import pytest
from machines import at_rest, held, is_lost, machine, read, states, write

from thermocline.check.layout import Extent
from thermocline.check.machine import Machine
from thermocline.protocol.effects import Protocol, Resched, TryLock, Unlock
from thermocline.protocol.reclaim import reclaim_pages
from thermocline.protocol.region import Region, free_region


def in_every_state() -> Machine:
    """Pages 0 to 4: shadowed, lost, slotted, resident, empty; 5 belongs to another array."""
    made = machine(6, 4, extents=(Extent(0, 5), Extent(5, 1)))
    write(made, 5, 0, 1, 2)
    made.run(reclaim_pages(made.mm, [0, 1, 2]))
    read(made, 0)
    write(made, 3)
    made.failing_fills = {1}
    assert is_lost(made, 1)
    assert states(made)[:5] == ["SHADOWED", "POISONED", "SLOTTED", "RESIDENT", "EMPTY"]
    return made


def free(made: Machine, region: Region) -> Protocol[None]:
    pages = range(region.start, region.end)
    made.dying.update(pages)
    for page in pages:
        made.arena.truth[page] = [0, 0]
    return free_region(made.mm, region)


def test_everything_is_given_back_and_nothing_else() -> None:
    made = in_every_state()
    made.run(free(made, made.regions[1]))
    at_rest(made)
    assert states(made) == ["EMPTY"] * 5 + ["RESIDENT"]
    assert (made.nodes[0].used, made.nodes[1].used, held(made, 1)) == (64, 0, [])
    read(made, 5)


def test_freeing_is_idempotent() -> None:
    made = in_every_state()
    for _ in range(2):
        made.run(free(made, made.regions[1]))
        at_rest(made)


def _hold(page: int) -> Protocol[None]:
    assert (yield TryLock(page))
    for _ in range(5):
        yield Resched()
    yield Unlock(page)


@pytest.mark.parametrize("page", range(5))
def test_a_page_that_somebody_is_busy_with_is_waited_for_alone(page: int) -> None:
    made = in_every_state()
    holder = made.spawn("holder", _hold(page))
    made.step(holder)
    made.step(holder)
    freeing = made.spawn("free", free(made, made.regions[1]))
    while not freeing.waits_for:
        made.step(freeing)
    assert freeing.waits_for == f"the lock of page {page}"
    assert freeing not in made.owners.values()
    made.settle()
    at_rest(made)
    assert states(made)[:5] == ["EMPTY"] * 5


def test_a_freed_page_has_no_past() -> None:
    """A page that another array gets is not judged by what the old one did with it."""
    made = in_every_state()
    made.mm.links.referenced[3] = 1
    made.run(free(made, made.regions[1]))
    assert [made.mm.links.evicted_at[page] for page in range(5)] == [0] * 5
    assert [made.mm.links.referenced[page] for page in range(5)] == [0] * 5
