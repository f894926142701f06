"""Migration designs: when is the target page allocated, relative to the lock on the source?

One file a design; this table names them. Every design ends in the same :func:`~thermocline.protocol.migrate.move.move`
and differs in what happens before it:

========== ========================================================== ============================================
design     order of steps                                             proposed by
========== ========================================================== ============================================
`batch`    isolate onto a list; allocate all; try-lock all; move all  Yang Shi's series; what Linux merged
`deferred` lock; allocate under the lock; move                        patch 2/8 of the June 2020 series
========== ========================================================== ============================================

Reclaim asks a design in one of two ways: ``migrate_locked`` for a page whose lock reclaim holds, or ``migrate_list``
for isolated, unlocked pages. A design has exactly one of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from thermocline.protocol.effects import Protocol
from thermocline.protocol.migrate.batch import migrate_batch
from thermocline.protocol.migrate.deferred import migrate_deferred

if TYPE_CHECKING:
    from thermocline.protocol.mm import Mm
    from thermocline.protocol.node import Node
    from thermocline.protocol.reclaim import Cause


class Design(NamedTuple):
    """A migration design.

    Attributes
    ----------
    migrate_locked : callable or None
        ``(mm, page, source, target, cause)`` -> whether the locked page moved. Returns with the page unlocked.
    migrate_list : callable or None
        ``(mm, pages, source, target, cause)`` -> the isolated pages that did not move.
    """

    name: str
    migrate_locked: Callable[[Mm, int, Node, Node, Cause], Protocol[bool]] | None = None
    migrate_list: Callable[[Mm, Sequence[int], Node, Node, Cause], Protocol[list[int]]] | None = None


DESIGNS = {
    design.name: design
    for design in (
        Design("batch", migrate_list=migrate_batch),
        Design("deferred", migrate_locked=migrate_deferred),
    )
}

__all__ = ["DESIGNS", "Design"]
