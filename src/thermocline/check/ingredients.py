"""What cases are made of: accesses of a script, nodes, actors beside the program, and what is where at first."""

from __future__ import annotations

from collections.abc import Callable

from thermocline.check.configuration import Actor, Placed
from thermocline.check.layout import Place
from thermocline.check.machine import Machine
from thermocline.check.program import Access, Clear, FreeLazily, Script, TakeAgain
from thermocline.protocol.effects import Protocol, Resched
from thermocline.protocol.lazyfree import age_lazyfree
from thermocline.protocol.pin import bring_up_pinned
from thermocline.protocol.promote import NumaScan, promote_pages
from thermocline.protocol.reclaim import reclaim_pages, shrink_node
from thermocline.protocol.region import free_region
from thermocline.protocol.scan_control import Cause


def reads(page: int) -> tuple[Access, ...]:
    """One access of a script."""
    return (Access(page, False),)


def writes(page: int) -> tuple[Access, ...]:
    """One access of a script."""
    return (Access(page, True),)


def either(page: int) -> tuple[Access, ...]:
    """One access of a script: both a read and a write are tried."""
    return (Access(page, False), Access(page, True))


def slow_memory(frames: int) -> Place:
    """A node that the program addresses as it does DRAM."""
    return Place("numa:1", frames, mapped=True)


def file(slots: int) -> Place:
    """A node at the end of the path."""
    return Place("file", slots, charged_to_memory=False)


def zstd(slots: int) -> Place:
    """A node that parts of pages come up from by themselves."""
    return Place("zstd", slots, reads_parts=True)


def parts(page: int, part: int) -> tuple[Access, ...]:
    """One access of a script, to a part of a page: both a read and a write are tried."""
    return (Access(page, False, part), Access(page, True, part))


def part_writes(page: int, part: int) -> tuple[Access, ...]:
    """One access of a script."""
    return (Access(page, True, part),)


def cold(*pages: int) -> Actor:
    """The program says that these pages are cold."""
    return lambda machine: reclaim_pages(machine.mm, pages)


def reclaimer(node: int) -> Actor:
    """Direct reclaim of a node, for another task's allocation."""
    return lambda machine: shrink_node(machine.mm, machine.nodes[node], Cause.DIRECT)


def promotion(node: int) -> Actor:
    """Slow memory is looked over once for pages that are used."""

    def actor(machine: Machine) -> Protocol[int]:
        source = machine.nodes[node]
        scan = NumaScan(source)
        hinted = yield from scan.hint(machine.mm)
        hot = yield from scan.judge(machine.mm, hinted or [])
        return (yield from promote_pages(machine.mm, hot, source))

    return actor


def frees(start: int) -> Actor:
    """The array that starts at a page is freed."""

    def actor(machine: Machine) -> Protocol[None]:
        return free_region(machine.mm, machine.regions[start + 1])

    return actor


def pins(*pages: int) -> Actor:
    """The program pins contiguous pages: it counts the pins, once, and asks for the pages."""

    def actor(machine: Machine) -> Protocol[bool]:
        for page in pages:
            if not machine.table.pins[page]:
                machine.table.pins[page] += 1
        yield Resched()
        pinned: bool = yield from bring_up_pinned(machine.mm, pages[0], len(pages))
        if pinned:
            machine.footprint.write("pinned")
            machine.pinned.update(pages)
        return pinned

    return actor


def clears(page: int) -> tuple[Clear, ...]:
    """One action of a script."""
    return (Clear(page),)


def recycles(start: int) -> Script:
    """Two actions of a script: a block is freed and kept, and is the one that is asked for next."""
    return (FreeLazily(start),), (TakeAgain(start),)


def ages(machine: Machine) -> Protocol[None]:
    """It is looked now and then whether anybody asks for blocks that are kept."""
    return age_lazyfree(machine.mm)


def threads_of(count: int, script: Callable[[int], Script]) -> dict[str, Script]:
    """Threads A, B, and so on, by the script of each number."""
    return {f"thread {'ABCD'[index]}": script(index) for index in range(count)}


def in_dram(first: int, end: int) -> tuple[Placed, ...]:
    """These pages are in DRAM at first."""
    return tuple(Placed(page, 0) for page in range(first, end))


def all_but_one_in_dram(pages: int) -> tuple[Placed, ...]:
    """The first page is in the node below DRAM, and the others are in DRAM."""
    return (Placed(0, 1), *in_dram(1, pages))
