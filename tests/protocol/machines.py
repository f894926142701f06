"""Machines for the tests of the protocols, and what their pages and counters are."""

from __future__ import annotations

from typing import Any

from thermocline.check.invariants import check_rest, check_state
from thermocline.check.layout import Extent, Layout, Limits, Place
from thermocline.check.machine import Machine
from thermocline.check.program import Thread, touch
from thermocline.check.store import Content
from thermocline.check.task import Task
from thermocline.protocol.effects import Effect, Protocol
from thermocline.protocol.group import GroupReclaim
from thermocline.protocol.migrate import DESIGNS
from thermocline.protocol.mm import Policy
from thermocline.protocol.page import State

FILE = Place("file", 8, charged_to_memory=False)
DISK = Place("disk", 8, charged_to_memory=False)


def machine(
    pages: int = 4,
    dram: int = 2,
    *lower: Place,
    design: str = "batch",
    extents: tuple[Extent, ...] = (),
    groups: tuple[Limits, ...] = (),
    discard_clean: bool = False,
    readahead_pages: int = 0,
    group_reclaim: GroupReclaim = GroupReclaim.LEFT,
    inactive_ratio: int = 2,
) -> Machine:
    """A machine of one array, DRAM and a file, unless said otherwise."""
    layout = Layout(pages, dram, lower or (FILE,), extents, groups)
    return Machine(layout, Policy(DESIGNS[design], discard_clean, readahead_pages, group_reclaim, inactive_ratio))


def write(made: Machine, *pages: int) -> None:
    """Let the program write pages, one after the other."""
    for page in pages:
        assert not _touch(made, page, write=True).killed, f"the write of page {page} ended in SIGBUS"


def read(made: Machine, *pages: int) -> None:
    """Let the program read pages, and compare them with what it wrote."""
    for page in pages:
        assert not _touch(made, page, write=False).killed, f"the read of page {page} ended in SIGBUS"


def is_lost(made: Machine, page: int) -> bool:
    """Whether a read of the page ends in SIGBUS."""
    return _touch(made, page, write=False).killed


def _touch(made: Machine, page: int, *, write: bool) -> Thread:
    thread = touch(made, page, write=write)
    at_rest(made)
    return thread


def at_rest(made: Machine) -> None:
    """All invariants hold, and nothing is left over."""
    check_state(made)
    check_rest(made)


def states(made: Machine) -> list[str]:
    """The state of each page, by name."""
    return [State(made.entry(page).state).name for page in range(made.layout.pages)]


def nodes(made: Machine) -> list[int]:
    """The node that each page's entry names."""
    return [made.entry(page).node for page in range(made.layout.pages)]


def held(made: Machine, node: int) -> list[int]:
    """The pages that the slots of a node hold."""
    slots = made.stores[node].slots
    return sorted(content.page for content in slots.values() if isinstance(content, Content))


def counts(made: Machine) -> dict[str, int]:
    """The counters that are not 0."""
    return {name: count for name, count in made.vmstat.as_dict().items() if count}


def watched(protocol: Protocol[Any], seen: list[Effect]) -> Protocol[Any]:
    """The same protocol; what it asks for is noted."""
    value = None
    while True:
        try:
            effect = protocol.send(value)
        except StopIteration as stop:
            return stop.value
        seen.append(effect)
        value = yield effect


def lock_forever(made: Machine, page: int) -> None:
    """Let somebody hold the lock of a page."""
    made.owners[page] = Task("holder", iter(()))  # type: ignore[arg-type]
