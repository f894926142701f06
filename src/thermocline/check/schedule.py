"""A schedule that a reader can follow: the steps of each actor in order, and at the end which waits for which."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from thermocline.check.configuration import Configuration
from thermocline.check.footprint import Footprint
from thermocline.check.machine import Machine
from thermocline.check.search import Found
from thermocline.check.system import Step, System
from thermocline.check.violation import Violation
from thermocline.protocol.migrate import Design
from thermocline.protocol.page import State


def describe(found: Found, configuration: Configuration, design: Design) -> str:
    """The schedule of a violation, step by step, and the state it ends in."""
    system = System(configuration, design, Footprint())
    system.verbose = True
    lines = list(_start(system, configuration))
    lines += _follow(system, found.schedule)
    lines.append(f"=> {found.violation.kind}: {found.violation}")
    lines += _end(system.machine)
    return "\n".join(lines)


def _start(system: System, configuration: Configuration) -> Iterator[str]:
    layout = configuration.layout
    lower = ", ".join(f"{place.name} of {place.slots}" for place in layout.lower)
    yield f"{configuration.name}: {layout.pages} pages, DRAM of {layout.dram}, {lower}"
    for page in range(layout.pages):
        yield f"  page {page} is {_place(system.machine, page)}"


def _place(machine: Machine, page: int) -> str:
    entry = machine.entry(page)
    name = machine.nodes[entry.node].name
    place = f" in slot {entry.slot} of {name}" if entry.names_slot else f" on {name}" if entry.node else ""
    return f"{State(entry.state).name}{place}"


def _follow(system: System, schedule: Sequence[Step]) -> Iterator[str]:
    """One line a step; the actor is named where it changes."""
    width = max((len(step.actor) for step in schedule), default=0)
    last = ""
    for number, step in enumerate(schedule, start=1):
        actor = step.actor if step.actor != last else ""
        last = step.actor
        try:
            did = system.take(step)
        except Violation as violation:
            did = str(violation)
        yield f"{number:4}  {actor:{width}}  {did}"


def _end(machine: Machine) -> Iterator[str]:
    for task in machine.tasks.values():
        if task in machine.kswapd_asleep.values() or not task.waits_for:
            continue
        holder = next((machine.owners[page] for page, queue in machine.waiters.items() if task in queue), None)
        held = "" if holder is None else ", which it holds itself" if holder is task else f", held by {holder.name}"
        yield f"   {task.name} waits for {task.waits_for}{held}"
    for page, owner in machine.owners.items():
        if owner.finished:
            yield f"   the lock of page {page} is held by {owner.name}, which has ended"
