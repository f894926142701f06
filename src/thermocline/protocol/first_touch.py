"""Commitment at the first touch: pages are counted when they come to hold something, and not when they are allocated.

What may be allocated is then for the program's side to say (:mod:`thermocline.live.commitment`): as the kernel does it,
more than there is room for. What the nodes hold stays true all the same. A page that holds nothing yet is let in only
while there is room for one more in the worst case; so whatever was let in can always move, exactly as if no more than
that had been allocated. Where there is none, the toucher waits for another array to be freed, and then gets SIGBUS, as
a process gets SIGKILL where the kernel has granted what it cannot give (``oom_kill``). What was written stays.

Pages of zeros that were only read come to hold something, too. They hold nothing any more when reclaim has looked at
them, so that is done first.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from thermocline.protocol.node import Kind, Node
from thermocline.protocol.page import EMPTY, POISONED, SLOTTED

if TYPE_CHECKING:
    from thermocline.protocol.mm import Mm
    from thermocline.protocol.page import Entry

#: Pages of room that are left out of all counts: what moves needs a place to move to.
SLACK = 4


class FirstTouch:
    """Counts the pages of one memory that hold something.

    Parameters
    ----------
    slack : int
        Pages of room that are not counted.

    Attributes
    ----------
    holding : int
        Pages that have room of a node.
    entering : int
        Pages that were let in, and have none yet.
    """

    def __init__(self, nodes: Sequence[Node], slack: int = SLACK) -> None:
        self._nodes = nodes
        self._slack = slack
        self.holding = 0
        self.entering = 0

    @property
    def limit(self) -> int:
        """How many pages the nodes that are in use hold in the worst case."""
        nodes = (node for node in self._nodes if node.kind is not Kind.SOURCE and not node.failed)
        return max(sum(node.capacity // node.slot_bytes for node in nodes) - self._slack, 1)

    @property
    def full(self) -> bool:
        """Whether no further page may be let in."""
        return self.holding + self.entering >= self.limit

    def holds(self, entry: Entry) -> bool:
        """Whether a page with this entry has room of a node: what is in its source file needs none."""
        if entry.state == SLOTTED:
            return self._nodes[entry.node].kind is not Kind.SOURCE
        return entry.state not in (EMPTY, POISONED)

    def changes(self, before: Entry, after: Entry) -> None:
        """An entry is written."""
        self.holding += self.holds(after) - self.holds(before)


def enters(mm: Mm, page: int) -> bool:
    """Whether a locked page has to be let in (:func:`~thermocline.protocol.allocate.let_in`) before it comes up."""
    return mm.first_touch is not None and not mm.first_touch.holds(mm.table.read(page))


def entered(mm: Mm) -> None:
    """A page that was let in holds something by now, or does not come up."""
    assert mm.first_touch is not None
    mm.first_touch.entering -= 1


def enters_again(mm: Mm) -> None:
    """A page that held something for a moment is to come up once more."""
    assert mm.first_touch is not None
    mm.first_touch.entering += 1
