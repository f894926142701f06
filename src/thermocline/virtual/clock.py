"""The virtual clock: the time of the pager, and what each step adds to it.

Times are whole picoseconds inside this package. Whole, so that a million hits that are charged in one sum take what
they take one by one, and the result of a run does not depend on how the work was cut into pieces; picoseconds, because
a hit may take less than a nanosecond. To the outside they are nanoseconds.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable

from thermocline.virtual.costs import Cost

#: Picoseconds in a nanosecond.
NS = 1000


class Clock:
    """The pager's own time. The threads of the program have theirs, and are brought up to it when it matters.

    Parameters
    ----------
    seed : int
        Of the only randomness there is: how far each charged time is off its median.

    Attributes
    ----------
    now, busy : int
        The time, and how much of it the pager was not asleep; picoseconds.
    """

    __slots__ = ("_random", "busy", "now")

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self.now = self.busy = 0

    def drawer(self, cost: Cost, size: int = 0) -> Callable[[], int]:
        """What gives the time that a step takes, in picoseconds, another one each time if the cost has a spread."""
        median, spread = cost.of(size) * NS, cost.spread
        if not spread:
            same = round(median)
            return lambda: same
        exp, gauss = math.exp, self._random.gauss
        return lambda: round(median * exp(spread * gauss(0.0, 1.0)))

    def draw(self, cost: Cost, size: int = 0) -> int:
        """What a step takes this time, in picoseconds; a cost without spread draws no number."""
        return self.drawer(cost, size)()

    def take(self, cost: Cost, size: int = 0) -> None:
        """Let the pager be busy for as long as a step takes."""
        time = self.drawer(cost, size)()
        self.now += time
        self.busy += time

    def nanoseconds(self) -> int:
        """The time."""
        return self.now // NS


def mean(cost: Cost) -> int:
    """The mean of what :meth:`Clock.draw` would give: for what happens too often to be drawn each time."""
    return round(cost.of() * NS * math.exp(cost.spread**2 / 2))
