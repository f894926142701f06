"""Clients that send requests to the pager, beside the threads that touch pages."""

from __future__ import annotations

from collections.abc import Sequence

from thermocline.protocol.reclaim import reclaim_pages
from thermocline.virtual.pager import Pager


class ColdClient:
    """Asks for pages to be demoted (advice "cold"), waits for the answer, and asks again.

    Parameters
    ----------
    rounds : int or None
        How often at most; None: until all threads have ended.
    pause : int
        Picoseconds between an answer and the next request.

    Attributes
    ----------
    answered : int
        Requests that had an answer.
    reclaimed : int
        Pages that left DRAM for them.
    done, endless : bool
        Whether there will be no further request; whether nothing but the end of all threads makes it so.
    """

    def __init__(self, pager: Pager, pages: Sequence[int], rounds: int | None, pause: int) -> None:
        self._pager = pager
        self._pages = pages
        self._rounds = rounds
        self._pause = pause
        self.answered = 0
        self.reclaimed = 0
        self.done = rounds == 0
        self.endless = rounds is None

    def begin(self, time: int) -> None:
        """Send the first request at that time."""
        if not self.done:
            self._pager.request(time, self._serve)

    def _serve(self) -> None:
        """The pager has heard of a request."""
        pager = self._pager
        pager.scheduler.spawn(reclaim_pages(pager.mm, self._pages), background=True, done=self._served)

    def _served(self, reclaimed: int) -> None:
        """The pager has done what it was asked for."""
        self.reclaimed += reclaimed
        self.answered += 1
        resumed = self._pager.answer()
        program = self._pager.program
        self.done = self.answered == self._rounds or bool(program.threads and program.over)
        if not self.done:
            self._pager.request(resumed + self._pause, self._serve)
