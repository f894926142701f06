"""A forked child's mapping of the arena, as the kernel has it: private, with what the child has copied by writing.

Beside it stands the child's truth, as beside the arena stands the program's: what was in memory when it was forked,
and what it has written since.
"""

from __future__ import annotations

from collections.abc import Iterable

from thermocline.check.arena import Arena, next_version
from thermocline.check.store import PARTS


class PrivateMapping:
    """One forked child.

    Attributes
    ----------
    number, fork, inherits : int, int, bool
        As in :class:`~thermocline.protocol.child.Child`.
    expected : bool
        Whether the supervisor has not heard yet that it has what was saved for it.
    condemned : bool
        Whether it is ended when it is attached: it could not be given what it is owed.
    lives, died : bool
        Whether the process is there; whether it was, or is not going to be.
    own : list of list of (int or None)
        By page and part: the version of the child's own copy, None where it has none.
    mapped : list of list of bool
        By page and part: whether the frame of the arena is in its page table.
    zeros : list of list of bool
        By page and part: whether the child's own copy is the kernel's zero page, which goes when a hole is punched.
    seen : list of bool
        By page: whether the first touch of it is a fault, even where its frame is there (UFFDIO_REGISTER_MODE_MINOR).
    poisoned : list of list of bool
        By page and part: whether a touch is a SIGBUS, if there is nothing mapped.
    truth : list of list of int or None
        By page and part: the version that it must read; None before it is decided.
    """

    def __init__(self, number: int, fork: int, pages: int, *, inherits: bool) -> None:
        self.number = number
        self.fork = fork
        self.inherits = inherits
        self.expected = True
        self.condemned = self.lives = self.died = False
        self.own: list[list[int | None]] = [[None] * PARTS for _ in range(pages)]
        self.mapped = [[False] * PARTS for _ in range(pages)]
        self.zeros = [[False] * PARTS for _ in range(pages)]
        self.seen = [False] * pages
        self.poisoned = [[False] * PARTS for _ in range(pages)]
        self.truth: list[list[int]] | None = None

    def see(self, truth: list[list[int]]) -> None:
        """Decide what it must read."""
        self.truth = [list(parts) for parts in truth]

    def inherit(self, parent: PrivateMapping) -> None:
        """Be what fork(2) makes of a private mapping: its copies, and its page table. Its touches are seen."""
        assert parent.truth is not None
        self.see(parent.truth)
        self.own = [list(parts) for parts in parent.own]
        self.mapped = [list(parts) for parts in parent.mapped]
        self.zeros = [list(parts) for parts in parent.zeros]
        self.seen = [True] * len(self.seen)

    def has(self, page: int, part: int) -> bool:
        """Whether anything is mapped: to install something is an EEXIST then."""
        return self.own[page][part] is not None or self.mapped[page][part]

    def allows(self, arena: Arena, page: int, part: int) -> bool:
        """Whether a touch, of either kind, succeeds without the pager."""
        if self.own[page][part] is not None:
            return True
        return arena.versions[page][part] is not None and (self.mapped[page][part] or not self.seen[page])

    def version(self, arena: Arena, page: int, part: int) -> int | None:
        """What is read."""
        own = self.own[page][part]
        return arena.versions[page][part] if own is None else own

    def install(self, page: int, part: int, version: int, *, zeros: bool = False) -> bool:
        """UFFDIO_COPY into a private mapping -> False where something is mapped, which stays (EEXIST).

        A page of ``zeros`` is not copied: UFFDIO_ZEROPAGE, and its touches are seen from then on.
        """
        if zeros:
            self.seen[page] = True
        if self.has(page, part):
            return False
        self.own[page][part] = version
        self.zeros[page][part] = zeros
        self.poisoned[page][part] = False
        return True

    def map_frame(self, arena: Arena, page: int, parts: Iterable[int]) -> None:
        """UFFDIO_CONTINUE: what is there of these parts of the frame is mapped, where nothing is."""
        for part in parts:
            if arena.versions[page][part] is not None and self.own[page][part] is None:
                self.mapped[page][part] = True
                self.poisoned[page][part] = False

    def write(self, page: int, part: int) -> None:
        """Let the child write a version that nothing else ever had: the kernel copies the frame for it."""
        assert self.truth is not None
        self.own[page][part] = self.truth[page][part] = next_version(self.truth[page][part], page, part, self.number)
        self.mapped[page][part] = self.zeros[page][part] = False

    def unmap(self, page: int, part: int) -> None:
        """The frame is gone."""
        self.mapped[page][part] = False
        if self.zeros[page][part]:
            self.own[page][part] = None
            self.zeros[page][part] = False

    def poison(self, arena: Arena, page: int) -> None:
        """UFFDIO_POISON: only parts whose touch would fault."""
        for part in range(PARTS):
            if not self.allows(arena, page, part):
                self.poisoned[page][part] = True
