"""Times of a step, and the cost that they come to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from thermocline.virtual.costs import Cost

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: Two times in three, a time that varies by a factor of ``exp(s)`` either way lies between these percentiles.
_LOWER, _UPPER = 16, 84


class Samples:
    """Times of one step.

    What disturbs a measurement makes a few times very long, so a size stands for itself with its median, and the
    spread is told from percentiles.
    """

    def __init__(self) -> None:
        self._times: dict[int, list[float]] = {}

    def add(self, nanoseconds: float, size: int = 0) -> None:
        """Note a time, of a step for so many bytes."""
        self._times.setdefault(size, []).append(nanoseconds)

    def medians(self) -> dict[int, float]:
        """The median for each size, in ascending order."""
        return {size: float(np.median(self._times[size])) for size in sorted(self._times)}

    def median(self) -> float:
        """The median of all times, of whatever size; 0 if there are none."""
        times = [time for of_one_size in self._times.values() for time in of_one_size]
        return float(np.median(times)) if times else 0.0

    def cost(self, less: float = 0.0) -> Cost:
        """The cost of the step.

        Parameters
        ----------
        less : float
            Nanoseconds in each time that are not the step's.
        """
        medians = {size: max(median - less, 0.0) for size, median in self.medians().items()}
        call, byte = fit(medians)
        # The digits that are left out are below the precision of the measurement.
        return Cost(round(call, 1), round(byte, 5), round(self._spread(less), 3))

    def _spread(self, less: float) -> float:
        logarithms: list[NDArray[np.float64]] = []
        for times in self._times.values():
            # A time of nothing has no logarithm; what is below a nanosecond is not known anyway.
            each = np.log(np.maximum(np.array(times, np.float64) - less, 1.0))
            logarithms.append(each - np.median(each))
        lower, upper = np.percentile(np.concatenate(logarithms), (_LOWER, _UPPER))
        return float(upper - lower) / 2


def fit(medians: Mapping[int, float]) -> tuple[float, float]:
    """The line through times by size -> nanoseconds a call, and a byte.

    Least squares of the *relative* errors: 4 KiB are to be right to so many percent, and 2 MiB to as many. Neither
    number is negative.
    """
    known = [(size, time) for size, time in medians.items() if time > 0]
    if not known:
        return 0.0, 0.0
    # Each row is divided by its time, so that the right-hand side is 1 and an error counts as a part of the time.
    calls = np.array([1 / time for _, time in known])
    bytes_ = np.array([size / time for size, time in known])
    if len(known) > 1:
        (call, byte), *_ = np.linalg.lstsq(np.stack((calls, bytes_), axis=1), np.ones(len(known)), rcond=None)
        if call >= 0 and byte >= 0:
            return float(call), float(byte)
        if call < 0:
            return 0.0, float(bytes_.sum() / (bytes_ @ bytes_))
    return float(calls.sum() / (calls @ calls)), 0.0
