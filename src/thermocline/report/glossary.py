"""The designs, states and temperatures of the experiment: their order, and what they mean in a sentence or two.

All reports show outcomes in this order. A name that is not here is shown after the others, as it stands.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Step:
    """A step of a migration.

    Attributes
    ----------
    does : str
        In a word or three.
    kind : str
        ``"look"``, ``"allocate"``, ``"move"`` or ``"later"``: how it is drawn.
    locked : bool
        Whether the source page is locked meanwhile.
    weight : int
        How wide it is drawn. Not a time.
    """

    does: str
    kind: str
    locked: bool
    weight: int = 2


@dataclass(frozen=True, slots=True)
class Design:
    """What to say of a migration design.

    Attributes
    ----------
    after : str
        The proposal or kernel version it stands for.
    text : str
        Two sentences.
    steps : tuple of Step
        In their order.
    """

    after: str
    text: str
    steps: tuple[Step, ...]


DESIGNS = {
    "batch": Design(
        "Yang Shi in the thread; what Linux 5.15 merged, with the batches of 6.3",
        "Pages to be demoted are unlocked again and put on a list, and all targets are allocated while none of them is "
        "locked. Then the locks are tried, and the pages whose trylock succeeded are moved together.",
        (
            Step("lock, choose, unlock", "look", locked=True, weight=3),
            Step("allocate all targets", "allocate", locked=False, weight=5),
            Step("try all locks", "look", locked=True, weight=3),
            Step("move all", "move", locked=True, weight=4),
        ),
    ),
    "deferred": Design(
        "patch 2 of 8 of the series: Keith Busch, Dave Hansen",
        "Reclaim keeps the lock under which it chose the page, and allocates the target under it. A thread that needs "
        "the page's lock waits for all that the allocation has to do first.",
        (
            Step("lock, choose", "look", locked=True, weight=3),
            Step("allocate the target", "allocate", locked=True, weight=5),
            Step("move", "move", locked=True, weight=4),
        ),
    ),
    "discard": Design(
        "the baseline of the thread: reclaim as it was before the series",
        "A page that a file holds is dropped; any other is written to the backing store first, past every tier of "
        "memory between. The next access to it is a fault, and the allocation and the wait happen there.",
        (
            Step("lock, choose", "look", locked=True, weight=3),
            Step("write to the backing store", "move", locked=True, weight=4),
            Step("drop", "move", locked=True, weight=2),
            Step("later: a fault allocates and reads it back", "later", locked=False, weight=6),
        ),
    ),
    "prealloc": Design(
        "Dave Hansen in the thread",
        "One target is allocated before the lock of a page is tried, so nothing is allocated under it. If the "
        "trylock fails, the target is kept for the next page.",
        (
            Step("allocate one target", "allocate", locked=False, weight=5),
            Step("lock, choose", "look", locked=True, weight=3),
            Step("move", "move", locked=True, weight=4),
        ),
    ),
    "relock": Design(
        "named in the thread by Yang Shi",
        "The page is unlocked for the allocation and locked again after it. It may have changed meanwhile, so it has "
        "to be looked at again before it is moved.",
        (
            Step("lock, choose, unlock", "look", locked=True, weight=3),
            Step("allocate the target", "allocate", locked=False, weight=5),
            Step("lock, look again", "look", locked=True, weight=3),
            Step("move", "move", locked=True, weight=4),
        ),
    ),
    "transactional": Design(
        "Nomad (OSDI 2024)",
        "Targets are allocated and pages are copied with no lock held, while their users go on reading and writing. A "
        "page that was written meanwhile stays where it is; the others are locked once more and committed.",
        (
            Step("lock, choose, unlock", "look", locked=True, weight=3),
            Step("allocate all targets", "allocate", locked=False, weight=5),
            Step("lock, protect, unlock", "look", locked=True, weight=3),
            Step("copy; users go on", "move", locked=False, weight=3),
            Step("lock, commit", "move", locked=True, weight=3),
        ),
    ),
}

STATES = {
    "roomy": "the target node has room: an allocation is quick",
    "tight": "the target node is short of room: the allocation of the target has to reclaim first",
    "full": "the target node is full and the node below it is slow: the allocation waits for that one",
    "failing": "the allocation of a target fails",
}

TEMPERATURES = {
    "hot": "the unrelated threads touch the pages that are being migrated often",
    "warm": "now and then",
    "cold": "seldom",
}

#: As it is measured, then as it is predicted.
INTERPRETERS = ("live", "virtual")


def in_order(names: Iterable[str], known: Iterable[str]) -> list[str]:
    """Each name once: those that are known in their order, then the others in theirs."""
    seen = dict.fromkeys(names)
    first = [name for name in known if name in seen]
    return first + [name for name in seen if name not in first]
