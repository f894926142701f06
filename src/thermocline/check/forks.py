"""Cases with forked children: what each sees, whatever the program, the other children and the pager do meanwhile.

Forks do not grow with the machine: each case has the pages and threads that it needs. Children are few and their
scripts short, because each of them is one more process that may run between any two steps.
"""

from __future__ import annotations

from dataclasses import replace

from thermocline.check.configuration import Configuration, Placed
from thermocline.check.family import End, Fork
from thermocline.check.ingredients import cold, either, file, frees, part_writes, pins, reads, slow_memory, writes, zstd
from thermocline.check.layout import Extent, Layout
from thermocline.check.program import Access, Script
from thermocline.protocol.region import Advice

_FORK: tuple[Fork, ...] = (Fork("child"),)
_END: tuple[End, ...] = (End(),)
_RANDOM = (Extent(0, 1, advice=Advice.RANDOM),)


def forks(*, crash: bool = False, cooperative: bool = True) -> list[Configuration]:
    """Every configuration with forked children."""
    found = [make() for make in _FORKS]
    return [replace(configuration, crashes=int(crash), cooperative=cooperative) for configuration in found]


def _one_page(name: str, scripts: dict[str, Script], children: dict[str, Script]) -> Configuration:
    """A page in DRAM, and room for it below."""
    return Configuration(
        name, Layout(1, 1, (file(2),)), scripts, children=children, placed=(Placed(0, 0),), kswapd=False
    )


def _program_writes() -> Configuration:
    """The program writes what its child reads."""
    return _one_page(
        "fork",
        {"thread A": (_FORK, writes(0), writes(0))},
        {"child": (either(0), reads(0))},
    )


def _window() -> Configuration:
    """Another thread writes while the fork is under way: between its beginning and the child's attaching, too."""
    return _one_page(
        "fork, two threads",
        {"thread A": (_FORK,), "thread B": (writes(0), reads(0), writes(0))},
        {"child": (reads(0),)},
    )


def _two_forks() -> Configuration:
    """Each fork sees what was there at its time."""
    return _one_page(
        "two forks",
        {"thread A": (_FORK, writes(0), (Fork("second"),), writes(0))},
        {"child": (reads(0),), "second": (reads(0),)},
    )


def _both_read_old() -> Configuration:
    """Two children are owed the same bytes when the program writes them."""
    return _one_page(
        "two children",
        {"thread A": (_FORK, (Fork("second"),), writes(0))},
        {"child": (reads(0),), "second": (reads(0),)},
    )


def _grandchild() -> Configuration:
    """A child that has the frame mapped forks, and ends: the program writes meanwhile, in another thread."""
    return _one_page(
        "grandchild",
        {"thread A": (_FORK, writes(0))},
        {"child": (reads(0), (Fork("grandchild"),), _END), "grandchild": (reads(0),)},
    )


def _dying() -> Configuration:
    """A child dies, at any moment, and another is forked: nothing that was saved for the first comes to the second."""
    return replace(
        _one_page(
            "fork, dying child",
            {"thread A": (_FORK, writes(0), (Fork("second"),), writes(0))},
            {"child": (), "second": (reads(0),)},
        ),
        deaths=1,
    )


def _reclaim() -> Configuration:
    """The page goes down and comes up while the program and its child write it."""
    return replace(
        _one_page("fork, reclaim", {"thread A": (_FORK, writes(0))}, {"child": (writes(0),)}),
        requests={"cold advice": cold(0)},
    )


def _refused() -> Configuration:
    """The page is to go down, and the node below refuses it: it is let be written again, or not."""
    return replace(_reclaim(), name="fork, refused", children={"child": (reads(0),)}, refused=(0,))


def _absent() -> Configuration:
    """A page that is below at the fork, and one that nothing was ever written to."""
    return Configuration(
        "fork, absent pages",
        Layout(2, 2, (file(3),)),
        {"thread A": (_FORK, (Access(0, True), Access(1, True)))},
        children={"child": ((Access(0, False), Access(1, False)),)},
        placed=(Placed(0, 1),),
        kswapd=False,
    )


def _short_of_room() -> Configuration:
    """One frame for two pages: what the child brings up pushes out what the program has, and the other way round."""
    return Configuration(
        "fork, direct reclaim",
        Layout(2, 1, (file(4),)),
        {"thread A": (_FORK, writes(0))},
        children={"child": (reads(1),)},
        placed=(Placed(0, 0), Placed(1, 1)),
        kswapd=False,
    )


def _shadow() -> Configuration:
    """A clean page, whose copy below is good until it is written."""
    return Configuration(
        "fork, shadow",
        Layout(1, 1, (file(2),)),
        {"thread A": (_FORK,), "thread B": (writes(0), writes(0))},
        children={"child": (reads(0),)},
        placed=(Placed(0, 1, shadow=True),),
        kswapd=False,
    )


def _parts() -> Configuration:
    """A page that is there in part, and written in part, before the fork and behind it."""
    return Configuration(
        "fork, parts",
        Layout(1, 2, (zstd(2),), extents=_RANDOM),
        {"thread A": (part_writes(0, 0), _FORK, (Access(0, True, 0), Access(0, True, 1)))},
        children={"child": ((Access(0, False, 0), Access(0, False, 1), Access(0, True, 1)),)},
        placed=(Placed(0, 1),),
        kswapd=False,
    )


def _slow_memory() -> Configuration:
    """The frame is in slow memory: it is lifted before the child's copy is made."""
    return Configuration(
        "fork, mapped node",
        Layout(1, 1, (slow_memory(1), file(2))),
        {"thread A": (_FORK, writes(0))},
        children={"child": (reads(0),)},
        placed=(Placed(0, 1),),
        kswapd=False,
    )


def _pins() -> Configuration:
    """A page is pinned before the fork, during it, or behind it; nothing may take its frame then."""
    return replace(
        _one_page("fork, pin", {"thread A": (_FORK, writes(0))}, {"child": (reads(0),)}),
        requests={"pin": pins(0)},
        pinned=(0,),
    )


def _free() -> Configuration:
    """An array is freed that no child looks at, while another is forked."""
    return Configuration(
        "fork, free",
        Layout(2, 2, (file(3),), extents=(Extent(0, 1), Extent(1, 1))),
        {"thread A": (_FORK, writes(0))},
        children={"child": (reads(0),)},
        placed=(Placed(0, 0), Placed(1, 0)),
        requests={"free": frees(1)},
        freed=(1,),
        kswapd=False,
    )


def _no_room() -> Configuration:
    """There is no room to complete a page that a child is owed: then the child ends, and no byte is wrong."""
    return Configuration(
        "fork, no room",
        Layout(3, 3, (zstd(3),), extents=(Extent(0, 3, advice=Advice.RANDOM),)),
        {"thread A": (part_writes(0, 0), part_writes(2, 0), _FORK, part_writes(0, 0))},
        children={"child": ((Access(0, False, 0),),)},
        placed=(Placed(0, 1), Placed(1, 0), Placed(2, 1)),
        kswapd=False,
        refused=(0, 1, 2),
        may_abandon=True,
        may_lose=True,
    )


def _no_room_meanwhile() -> Configuration:
    """The same while the child is expected: it ends when it is attached, before it has read anything."""
    return Configuration(
        "fork under way, no room",
        Layout(2, 2, (zstd(2),), extents=(Extent(0, 2, advice=Advice.RANDOM),)),
        {"thread A": (part_writes(0, 0), part_writes(1, 0), part_writes(1, 0)), "thread B": (_FORK,)},
        children={"child": ()},
        placed=(Placed(0, 1), Placed(1, 1)),
        kswapd=False,
        refused=(0, 1),
        may_abandon=True,
        may_lose=True,
    )


_FORKS = (
    _program_writes,
    _window,
    _two_forks,
    _both_read_old,
    _grandchild,
    _dying,
    _reclaim,
    _refused,
    _absent,
    _short_of_room,
    _shadow,
    _parts,
    _slow_memory,
    _pins,
    _free,
    _no_room,
    _no_room_meanwhile,
)
