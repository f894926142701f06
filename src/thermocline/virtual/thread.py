"""A thread of the program: touches of pages, one after the other, that hit or wait for the pager."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

from thermocline.protocol.histogram import Histogram
from thermocline.virtual.clock import NS, Clock, mean
from thermocline.virtual.mapping import Mapping

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from thermocline.virtual.costs import Cost

#: Accesses that are looked up one by one before more are looked up together: a fault often comes soon after another,
#: and a call of numpy takes as long for one access as for a thousand.
_ONE_BY_ONE = 4
#: Accesses that are looked up together: at first, at most (what fits a cache), and by how much more each time.
_LEAST, _MOST, _MORE = 512, 1 << 16, 4
#: Pauses that are forgotten together.
_SPENT = 1024


class ProgramThread:
    """One thread. :class:`~thermocline.virtual.program.Program` says how far it may run.

    Parameters
    ----------
    trace : iterable of arrays of uint32
        What it touches: ``page << 1 | write``. An array is taken when the one before it is done.
    think_ns : int
        Nanoseconds to sleep before each touch; 0 is no sleep at all.
    think : Cost
        What a sleep takes longer than that.
    keep_stalls : bool
        Whether to keep each stall, and not their distribution only.

    child : int
        The forked child that it belongs to; 0: the program.

    Attributes
    ----------
    at : int
        When its next touch begins, in picoseconds. All that began earlier are done.
    since : int
        When the touch that is not done yet was first tried; -1 when it was not.
    access : int
        The touch that needed the pager last.
    waits : bool
        Whether it waits for a page.
    touches : int
        Touches that it has made.
    stalls : Histogram
        How long those took that waited for a page, from being tried to being done.
    stall_ns : list of int or None
        The same one by one.
    killed : bool
        Whether it ended in SIGBUS.
    ended : int or None
        When it did the last thing it did, in picoseconds, once it has ended.
    """

    def __init__(
        self,
        number: int,
        trace: Iterable[NDArray[np.uint32]],
        mapping: Mapping,
        clock: Clock,
        *,
        think_ns: int = 0,
        think: Cost,
        keep_stalls: bool = False,
        child: int = 0,
    ) -> None:
        self.number = number
        self.child = child
        self.name = f"thread {number}"
        self.at = 0
        self.since = self.access = -1
        self.waits = False
        self.touches = 0
        self.stalls = Histogram()
        self.stall_ns: list[int] | None = [] if keep_stalls else None
        self.killed = False
        self.ended: int | None = None
        self._trace = iter(trace)
        self._mapping = mapping
        self._clock = clock
        self._allowed = mapping.allowed.data
        self._found = np.empty(_MOST, np.bool_)
        self._piece: NDArray[np.uint32] = np.empty(0, np.uint32)
        self._accesses = self._piece.data
        #: The next access of the piece; and up to which all are known to be allowed, in which version of the mapping.
        self._index = self._clear = self._version = 0
        self._asleep = think_ns * NS
        self._think = think
        #: What a pause takes; a mean, and the pauses drawn beforehand beside it, if each takes another time.
        self._pause = self._asleep + mean(think) if think_ns else 0
        self._varies = bool(think_ns and think.spread)
        self._pauses: list[int] = []
        self._spent = 0

    def begin(self, time: int = 0) -> None:
        """Let it begin, when the clock starts or at that time."""
        if not self._load():
            self.ended = time
            return
        self.at = time + (self._asleep + self._clock.draw(self._think) if self._asleep else 0)

    def step(self, hit: int) -> int:
        """What a touch takes, the pause behind it included, if a hit takes so long."""
        return hit + self._pause

    # -- what is ahead ------------------------------------------------------------------------------------------------

    def look(self, horizon: int, hit: int) -> int | None:
        """When the first touch begins of which it is not known that it hits; None if all before ``horizon`` do.

        The program does not notice.
        """
        if self.at >= horizon:
            return None
        count = self._begun_before(horizon, hit)
        ready = self._ready(count)  # fewer, too, where a piece ends: what comes after it is not known yet
        return None if ready == count else self._when(ready, hit)

    def _begun_before(self, limit: int, hit: int) -> int:
        """How many touches begin before ``limit``, which is ahead, if all of them hit."""
        if not self._varies:
            return -((self.at - limit) // (hit + self._pause))
        at, count = self.at, 0
        while at < limit:
            at += hit + self._pause_behind(count)
            count += 1
        return count

    def _when(self, count: int, hit: int) -> int:
        """When the touch begins before which there are so many, if all of those hit."""
        if not self._varies:
            return self.at + count * (hit + self._pause)
        return self.at + count * hit + sum(self._pauses[self._spent : self._spent + count])

    def _pause_behind(self, count: int) -> int:
        """The pause behind the touch before which there are so many: drawn once, at the first call."""
        index = self._spent + count
        while index >= len(self._pauses):
            self._pauses.append(self._asleep + self._clock.draw(self._think))
        return self._pauses[index]

    def _ready(self, count: int) -> int:
        """How many of the next ``count`` accesses are allowed, up to the first that is not or the end of the piece."""
        mapping, index = self._mapping, self._index
        end = min(index + count, len(self._piece))
        if self._version != mapping.version:
            self._version = mapping.version
            self._clear = index
        at = max(self._clear, index)
        few = min(at + _ONE_BY_ONE, end)
        while at < few and self._allowed[self._accesses[at]]:
            at += 1
        if at == few:
            size = _LEAST
            while at < end:
                stop = min(at + size, end)
                found = self._found[: stop - at]
                np.take(mapping.allowed, self._piece[at:stop], out=found, mode="clip")
                first = int(found.argmin())
                if not found[first]:
                    at += first
                    break
                at = stop
                size = min(size * _MORE, _MOST)
        self._clear = at
        return min(at, end) - index

    # -- going on -----------------------------------------------------------------------------------------------------

    def advance(self, limit: int, hit: int) -> bool:
        """Make all touches that begin before ``limit`` -> False if one waits for the pager, or was the last."""
        while self.at < limit:
            ready = self._ready(self._begun_before(limit, hit))
            if not ready:
                access = self._accesses[self._index]
                if self._mapping.note_touch(access >> 1) or (access & 1 and self._mapping.note_write(access >> 1)):
                    continue
                self._fault(access)
                return False
            if self.since >= 0:
                self._stalled(self.at + hit - self.since)
            done = self._when(ready - 1, hit) + hit
            self.at = done + self._pause_behind(ready - 1) if self._varies else done + self._pause
            if self._mapping.accessed is not None:
                self._mapping.accessed[self._piece[self._index : self._index + ready] >> 1] = 1
            self._index += ready
            self.touches += ready
            self._spend(ready)
            if self._index == len(self._piece) and not self._load():
                self.ended = done
                return False
        return True

    def _spend(self, count: int) -> None:
        """Forget pauses that are over."""
        if self._varies:
            self._spent += count
            if self._spent > _SPENT:
                del self._pauses[: self._spent]
                self._spent = 0

    def _fault(self, access: int) -> None:
        """A touch cannot be done."""
        if access >> 1 in self._mapping.poisoned:
            self.killed = True
            self.ended = self.at
            return
        self.access = access
        self.waits = True
        if self.since < 0:
            self.since = self.at

    def _stalled(self, time: int) -> None:
        """A touch that waited is done."""
        self.since = -1
        self.stalls.add(time // NS)
        if self.stall_ns is not None:
            self.stall_ns.append(time // NS)

    def _load(self) -> bool:
        """Take the next piece of the trace that is not empty -> False if there is none."""
        for piece in self._trace:
            if piece.dtype != np.uint32 or piece.ndim != 1:
                raise TypeError(f"a trace is arrays of uint32 in one dimension, and not of {piece.dtype}, {piece.ndim}")
            if not len(piece):
                continue
            if (last := int(piece.max()) >> 1) >= self._mapping.pages:
                raise ValueError(f"page {last} is touched, and there are {self._mapping.pages}; the first is page 0")
            self._piece = np.ascontiguousarray(piece)
            self._accesses = self._piece.data
            self._index = self._clear = 0
            return True
        return False
