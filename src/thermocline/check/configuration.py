"""Configurations: what is searched. A layout, what the program does, who else is about, and what may go wrong."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from thermocline.check.layout import Layout
from thermocline.check.machine import Machine
from thermocline.check.program import Script
from thermocline.protocol.effects import Protocol

#: A task besides faults and kswapd: given the machine, its protocol.
Actor = Callable[[Machine], Protocol[object]]


@dataclass(frozen=True)
class Configuration:
    """One search.

    Attributes
    ----------
    scripts : dict of thread name to Script
        What the program's threads do.
    before : tuple of (page, write)
        Accesses that are over, and settled, when the search begins.
    demoted : tuple of int
        Pages that went down after that.
    reclaimers : dict of name to Actor
        Tasks of the pager itself: they die with it.
    requests : dict of name to Actor
        Tasks that the program has asked for: a new pager begins those again that were not answered.
    freed : tuple of int
        Pages that some request frees.
    kswapd : bool
        Whether each node has its background reclaim.
    failures : int
        How many copies and fills may fail.
    crashes : int
        How often the pager may be killed.
    may_lose : bool
        Whether an access may end in SIGBUS, because its bytes, or room for them, cannot be had.
    """

    name: str
    layout: Layout
    scripts: dict[str, Script] = field(default_factory=dict)
    before: tuple[tuple[int, bool], ...] = ()
    demoted: tuple[int, ...] = ()
    reclaimers: dict[str, Actor] = field(default_factory=dict)
    requests: dict[str, Actor] = field(default_factory=dict)
    freed: tuple[int, ...] = ()
    kswapd: bool = True
    failures: int = 0
    crashes: int = 0
    may_lose: bool = False
    discard_clean: bool = False
