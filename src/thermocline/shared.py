"""Arrays that travel between processes as handles: one copy of the data, however many work on it."""

from __future__ import annotations

import ctypes
from typing import Any, SupportsIndex

import numpy as np
from numpy.lib.array_utils import byte_bounds

from thermocline.live.guest import Ticket, hold


class SharedArray(np.ndarray[Any, np.dtype[Any]]):
    """An array in a tiered memory, which is pickled as a handle. Made by :meth:`thermocline.Memory.share`.

    So are its views. What is computed from it is an ordinary array.
    """

    _ticket: Ticket | None = None
    #: Where its region is in this process: first address, and the one behind the last.
    _region: tuple[int, int] = (0, 0)

    def __array_finalize__(self, made_from: Any) -> None:
        if isinstance(made_from, SharedArray):
            self._ticket, self._region = made_from._ticket, made_from._region

    def __array_wrap__(self, array: Any, context: Any = None, return_scalar: bool = False) -> Any:
        if array is self:  # computed in place
            return array
        return array[()] if return_scalar else array.view(np.ndarray)

    def __reduce_ex__(self, protocol: SupportsIndex) -> Any:
        low, high = byte_bounds(self)
        begin, end = self._region
        if self._ticket is None or not begin <= low <= high <= end:
            return np.asarray(self).__reduce_ex__(protocol)
        offset = self.__array_interface__["data"][0] - begin
        return _receive, (self._ticket, offset, self.shape, self.strides, self.dtype, self.flags.writeable)


def share(array: np.ndarray[Any, Any], ticket: Ticket, begin: int, size: int) -> SharedArray:
    """An array of a region as one that is pickled as a handle."""
    shared = array.view(SharedArray)
    shared._ticket, shared._region = ticket, (begin, begin + size)
    return shared


def _receive(
    ticket: Ticket,
    offset: int,
    shape: tuple[int, ...],
    strides: tuple[int, ...],
    dtype: np.dtype[Any],
    writeable: bool,
) -> SharedArray:
    held = hold(ticket)
    view = memoryview(held) if writeable else memoryview(held).toreadonly()
    array: np.ndarray[Any, Any] = np.ndarray(shape, dtype, view, offset, strides)
    return share(array, ticket, ctypes.addressof(held), len(held))
