"""What becomes of a page that reclaim has isolated and locked (``folio_check_references``, and what is before it)."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING

from thermocline.protocol.node import Kind
from thermocline.protocol.page import PARTIAL, SHADOWED

if TYPE_CHECKING:
    from thermocline.protocol.mm import Mm
    from thermocline.protocol.node import Node
    from thermocline.protocol.scan_control import ScanControl


class Verdict(Enum):
    """It is one of these."""

    #: It was moved or freed since it was isolated, or it is in use: it is on a list, and no longer reclaim's.
    GONE = "gone"
    KEEP = "keep"
    CLEAN = "clean"
    #: To be moved. Without a target, it is in DRAM in part, and its slot is the last room that there is.
    DEMOTE = "demote"


def verdict_on(mm: Mm, page: int, target: Node | None, sc: ScanControl) -> Verdict:
    """Look at an isolated page under its lock."""
    if mm.node_of(page) != sc.node.index or mm.links.list_of[page]:
        return Verdict.GONE
    if mm.table.pins[page] or page in mm.held or _is_in_use(mm, page):
        mm.lru_add(page, active=True)
        mm.vmstat.add("pgactivate")
        return Verdict.GONE
    if mm.links.referenced[page]:
        mm.lru_add(page)
        return Verdict.GONE
    if _is_clean(mm, page, demotion=target is not None):
        return Verdict.CLEAN
    if target is not None:
        return Verdict.DEMOTE
    below = mm.path.from_node(sc.node.index)[1:]
    partial = mm.table.state(page) == PARTIAL and not any(mm.nodes[node].has_room for node in below)
    return Verdict.DEMOTE if partial else Verdict.KEEP


def _is_in_use(mm: Mm, page: int) -> bool:
    """Whether a page was used since it was looked at last, so that it belongs on the active list.

    Where touches can be seen, one is not enough: each page was touched when it came, so it is looked at twice. After
    the first look it is marked as referenced, and has another round on the inactive list.
    """
    links = mm.links
    before, links.referenced[page] = links.referenced[page], 0
    if links.accessed is None or mm.nodes[mm.node_of(page) or 0].kind is not Kind.MAPPED:
        return bool(before)
    touched, links.accessed[page] = links.accessed[page], 0
    links.referenced[page] = touched
    return bool(touched and before)


def _is_clean(mm: Mm, page: int, *, demotion: bool) -> bool:
    """Whether a page of DRAM can leave without being moved: a lower node, or its file, has the same bytes."""
    entry = mm.table.read(page)
    if entry.state != SHADOWED and (entry.state != PARTIAL or not entry.node or mm.links.dirty[page]):
        return False
    if mm.nodes[entry.node].failed:
        return False  # only the bytes in DRAM are certain
    if mm.nodes[entry.node].kind is Kind.SOURCE:
        drops = mm.policy.discard_clean or mm.policy.design.drops_clean
        return drops or not demotion or mm.path.next_node(0) is None
    return True
