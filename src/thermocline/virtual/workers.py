"""Worker threads of slow nodes: jobs in a queue, and a few that do them."""

from __future__ import annotations

from heapq import heappop, heappush

#: Threads that read from, and that write to, each slow node: as many as in `live`.
READERS, WRITERS = 4, 2


class Workers:
    """The threads of all slow nodes.

    A job's time is known when it is handed over, and jobs are begun in the order in which they come. So the time at
    which a job ends is known at once, and all there is to keep is when each thread will be free.
    """

    def __init__(self) -> None:
        self._free: dict[tuple[int, bool], list[int]] = {}

    def begin(self, node: int, writes: bool, now: int, time: int) -> int:
        """Hand a job over that takes so long -> when it ends."""
        free = self._free.setdefault((node, writes), [])
        start = now
        if len(free) == (WRITERS if writes else READERS):
            start = max(heappop(free), now)
        heappush(free, start + time)
        return start + time
