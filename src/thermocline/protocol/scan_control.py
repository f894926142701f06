"""What one run of reclaim is for (``struct scan_control``)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from thermocline.protocol.node import Node


class Cause(Enum):
    """Why pages are reclaimed: every page counter is kept apart by cause."""

    KSWAPD = "kswapd"
    DIRECT = "direct"
    #: The user asked for it (advice "cold", or a group's limit).
    PROACTIVE = "proactive"


@dataclass(frozen=True, slots=True)
class ScanControl:
    """One run of reclaim over the pages of one group in one node.

    Attributes
    ----------
    node : Node
        Where room is made.
    group : int
        Whose pages are looked at: isolated pages are of one group, and their slots are charged to it.
    for_group : bool
        Whether it is that group's own limit that asks (``cgroup_reclaim``), and not a shortage that all share.
    nr_to_reclaim : int
        Pages after which it is enough, though there may be more of the list to look at.
    """

    node: Node
    group: int
    cause: Cause
    for_group: bool = False
    nr_to_reclaim: int = 32
