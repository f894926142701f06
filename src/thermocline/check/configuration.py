"""Configurations: what is searched. A layout, what the program does, which other tasks run, and what may go wrong."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

from thermocline.check.layout import Layout
from thermocline.check.machine import Machine
from thermocline.check.program import Script
from thermocline.protocol.effects import Protocol

#: A task besides faults and kswapd: given the machine, its protocol.
Actor = Callable[[Machine], Protocol[object]]


class Placed(NamedTuple):
    """A page that was written once.

    Attributes
    ----------
    node : int
        Where it is now; 0 is DRAM.
    shadow : bool
        Whether it was read since, and is in DRAM as well.
    """

    page: int
    node: int
    shadow: bool = False


@dataclass(frozen=True)
class Configuration:
    """One search.

    Attributes
    ----------
    scripts : dict of thread name to Script
        What the program's threads do.
    placed : tuple of Placed
        Where pages are that were written before the search begins; the others are empty.
    reclaimers : dict of name to Actor
        Tasks of the pager itself: they die with it.
    requests : dict of name to Actor
        Tasks that the program has asked for: a new pager begins those again that were not answered.
    freed : tuple of int
        Pages that some request frees.
    pinned : tuple of int
        Pages that the program pins by some request, and never lets go.
    cooperative : bool
        Whether tasks of the pager take turns where those of `live` do, at effects that wait. Otherwise they do so
        at every effect. The program and a kill come between any two effects either way.
    kswapd : bool
        Whether each node has its background reclaim.
    failures : int
        How many copies and fills may fail.
    mortal : int
        A lower node: if it is not 0, then a failure is a write to it, and from then on its device refuses all.
    refused : tuple of int
        Pages that no lower node ever takes: its disk is full.
    doomed : tuple of int
        Pages that a killed pager's successor gives up.
    children : dict of name to Script
        What children do that a script forks.
    deaths : int
        How many children may die, each at any moment.
    may_abandon : bool
        Whether the pager may end a child.
    crashes : int
        How often the pager may be killed.
    may_lose : bool
        Whether an access may end in SIGBUS, because its bytes are lost, or there is no room for them.
    may_poison : tuple of int
        Pages whose bytes may be lost.
    """

    name: str
    layout: Layout
    scripts: dict[str, Script] = field(default_factory=dict)
    placed: tuple[Placed, ...] = ()
    reclaimers: dict[str, Actor] = field(default_factory=dict)
    requests: dict[str, Actor] = field(default_factory=dict)
    freed: tuple[int, ...] = ()
    pinned: tuple[int, ...] = ()
    cooperative: bool = True
    kswapd: bool = True
    failures: int = 0
    mortal: int = 0
    refused: tuple[int, ...] = ()
    doomed: tuple[int, ...] = ()
    crashes: int = 0
    may_lose: bool = False
    may_poison: tuple[int, ...] = ()
    discard_clean: bool = False
    children: dict[str, Script] = field(default_factory=dict)
    deaths: int = 0
    may_abandon: bool = False
