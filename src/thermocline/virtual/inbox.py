"""Events that reach the pager at a known time: requests of the program, and jobs that its workers have done."""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop, heappush


class Inbox:
    """Events for the pager, by time; those of the same time are taken in the order in which they were put in."""

    def __init__(self) -> None:
        self._news: list[tuple[int, int, Callable[[], object]]] = []
        self._count = 0

    @property
    def next(self) -> int | None:
        """When the next comes, in picoseconds."""
        return self._news[0][0] if self._news else None

    def put(self, time: int, action: Callable[[], object]) -> None:
        """Let the pager do something at that time, or as soon afterwards as it looks."""
        self._count += 1
        heappush(self._news, (time, self._count, action))

    def take(self, now: int) -> bool:
        """Do everything that has come -> whether there was anything."""
        taken = False
        while self._news and self._news[0][0] <= now:
            heappop(self._news)[2]()
            taken = True
        return taken
