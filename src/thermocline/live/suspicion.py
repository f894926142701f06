"""Which page pagers die at: what a pager notes before it works on a page, and what its supervisor makes of that.

The note is one word of the shared tables: the page, and whether it goes up (a fault's page, a fill) or down (it is
being copied to a lower node). The innermost work counts: a fault that makes room first, and dies compressing another
page, has died at that other page.

What becomes of a page that is convicted depends on the way. Going up, nobody can be served with it: it is given up
(POISONED), and the rest goes on. Going down, its bytes are safe where they are, so it stays there: reclaim passes over
it from then on, and nothing is lost.

A pager that was killed from outside (SIGKILL, SIGTERM) says nothing against the page that it happened to work on; were
it counted, three unlucky kills would lose a page. Only if pagers die so often without answering a fault that the
program would have to be ended, a page that all of them died at is convicted instead.

When that is, :class:`Despair` knows. Kills from outside take it long: whoever kills pagers may do so faster than they
are replaced on a busy machine, and stops at some time.
"""

from __future__ import annotations

import os
import signal

#: Deaths in a row, at one page, that convict it.
CONVICTED_AFTER = 3
#: Deaths in a row that are too many, for the program.
_DEATHS = 5


def note_of(page: int, *, down: bool = False) -> int:
    """The word that says what is worked on; 0 is nothing."""
    return (page + 1) << 1 | down


def read_note(note: int) -> tuple[int, bool]:
    """The page of a note, and whether it goes down."""
    return (note >> 1) - 1, bool(note & 1)


def from_outside(status: int) -> bool:
    """Whether a wait status is of a process that somebody has killed."""
    return os.WIFSIGNALED(status) and os.WTERMSIG(status) in (signal.SIGKILL, signal.SIGTERM)


class Suspicion:
    """Counts deaths in a row at the same page."""

    def __init__(self) -> None:
        self._note = 0
        self._deaths = self._own_deaths = 0

    def convicts(self, note: int, status: int, *, hopeless: bool) -> bool:
        """Count a death with this note and wait status -> whether the page has had its last chance.

        ``hopeless``: the program would have to be ended otherwise.
        """
        if note != self._note:
            self._note, self._deaths, self._own_deaths = note, 0, 0
        self._deaths += 1
        if not from_outside(status):
            self._own_deaths += 1
        convicted = note != 0 and (
            self._own_deaths >= CONVICTED_AFTER or (hopeless and self._deaths >= CONVICTED_AFTER)
        )
        if convicted:
            self._note = self._deaths = self._own_deaths = 0
        return convicted


class Despair:
    """Counts deaths in a row without a fault that was answered in between.

    Parameters
    ----------
    patience : float
        Seconds for which a pager may be killed from outside without having got anywhere.

    Attributes
    ----------
    deaths : int
        In this row.
    """

    def __init__(self, patience: float) -> None:
        self._patience = patience
        self._faults = -1
        self._since = 0.0
        self.deaths = 0

    def grows(self, status: int, faults: int, now: float, *, rested: bool) -> bool:
        """Count a death with this wait status -> whether there is no use in another pager.

        Parameters
        ----------
        faults : int
            That were ever answered.
        now : float
            Seconds, by any clock.
        rested : bool
            It had nothing left to do: nobody had asked it for anything.
        """
        outside = from_outside(status)
        if faults != self._faults or (rested and outside):
            self._faults, self._since = faults, now
            self.deaths = 0
        self.deaths += 1
        return self.deaths > _DEATHS and (not outside or now - self._since > self._patience)

    def end(self) -> None:
        """There is hope again."""
        self.deaths = 0
