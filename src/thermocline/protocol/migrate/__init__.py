"""Migration designs: when is the target page allocated, relative to the lock on the source?

One file a design; this table names them. Every design ends in the same :func:`~thermocline.protocol.migrate.move.move`
and differs in what happens before it:

=============== ========================================================================= =============================
design          order of steps                                                            proposed by
=============== ========================================================================= =============================
`batch`         isolate onto a list; allocate all; try-lock all; move all                 Yang Shi's series; what Linux
                                                                                          merged
`deferred`      lock; allocate under the lock; move                                       patch 2/8 of the June 2020
                                                                                          series
`discard`       lock; drop the page (its bytes go to the end of the path); its next user  the baseline of the thread
                faults
`prealloc`      allocate one; lock; move; keep the target if the lock fails               Dave Hansen, in the thread
`relock`        lock; unlock; allocate; lock again; look again; move                      Yang Shi, in the thread
`transactional` allocate all; copy while readers and writers go on; give up what was      Nomad (OSDI 2024)
                written; commit
=============== ========================================================================= =============================

Reclaim asks a design in one of two ways: ``migrate_locked`` for a page whose lock reclaim holds, or ``migrate_list``
for isolated, unlocked pages. A design has exactly one of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from thermocline.protocol.effects import Protocol
from thermocline.protocol.migrate.batch import migrate_batch
from thermocline.protocol.migrate.deferred import migrate_deferred
from thermocline.protocol.migrate.discard import migrate_discard
from thermocline.protocol.migrate.prealloc import migrate_prealloc, preallocate
from thermocline.protocol.migrate.relock import migrate_relock
from thermocline.protocol.migrate.transactional import migrate_transactional

if TYPE_CHECKING:
    from thermocline.protocol.mm import Mm
    from thermocline.protocol.node import Node
    from thermocline.protocol.scan_control import ScanControl


class Design(NamedTuple):
    """A migration design.

    Attributes
    ----------
    migrate_locked : callable or None
        ``(mm, page, target, sc, spare)`` -> whether the locked page moved. Returns with the page unlocked, and with
        ``spare`` used or released.
    migrate_list : callable or None
        ``(mm, pages, target, sc)`` -> the isolated pages that did not move.
    preallocate : callable or None
        ``(mm, target, sc)`` -> a slot for whichever page is locked next, the ``spare`` of ``migrate_locked``.
    drops_clean : bool
        Whether a clean page of a file is dropped rather than demoted, whatever the policy.
    """

    name: str
    migrate_locked: Callable[[Mm, int, Node, ScanControl, int | None], Protocol[bool]] | None = None
    migrate_list: Callable[[Mm, Sequence[int], Node, ScanControl], Protocol[list[int]]] | None = None
    preallocate: Callable[[Mm, Node, ScanControl], Protocol[int | None]] | None = None
    drops_clean: bool = False


DESIGNS = {
    design.name: design
    for design in (
        Design("batch", migrate_list=migrate_batch),
        Design("deferred", migrate_locked=migrate_deferred),
        Design("discard", migrate_locked=migrate_discard, drops_clean=True),
        Design("prealloc", migrate_locked=migrate_prealloc, preallocate=preallocate),
        Design("relock", migrate_locked=migrate_relock),
        Design("transactional", migrate_list=migrate_transactional),
    )
}

__all__ = ["DESIGNS", "Design"]
