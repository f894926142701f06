"""Memory outside of Python's heap: scratch for the contents of pages, and columns."""

from __future__ import annotations

import ctypes
import mmap
from array import array
from typing import Any

from thermocline.live.libc import MAP_NORESERVE


class Buffer:
    """Page-aligned private memory outside Python's heap.

    Page-aligned, because direct I/O demands it (open(2), ``O_DIRECT``); mapped rather than allocated, so that
    its address can be handed to C and its bytes go back to the kernel on :meth:`close`.

    Parameters
    ----------
    size : int
        Bytes, more than zero.

    Attributes
    ----------
    address : int
        Where it begins.
    view : memoryview
        Its bytes.
    """

    __slots__ = ("_map", "address", "size", "view")

    def __init__(self, size: int) -> None:
        self.size = size
        # Not reserved: a sparse column may be larger than the machine, and the kernel refuses to promise as much.
        self._map: mmap.mmap | None = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | MAP_NORESERVE)
        self.address = ctypes.addressof(ctypes.c_char.from_buffer(self._map))
        self.view = memoryview(self._map)

    def close(self) -> None:
        """Unmap it, or leave that to the last slice somebody holds: the traceback of an error often does."""
        self.view.release()
        self._map = None


def cast_column(memory: memoryview[Any], typecode: str) -> memoryview[int]:
    """Memory as a column of integers of an array typecode."""
    view: Any = memory  # the overloads of cast() know literal formats only
    column: memoryview[int] = view.cast(typecode)
    return column


def sparse_column(typecode: str, count: int) -> memoryview[int]:
    """A column of zeros that takes memory only where it is written."""
    size = count * array(typecode).itemsize
    return cast_column(Buffer(-(-size // mmap.PAGESIZE) * mmap.PAGESIZE).view[:size], typecode)


def address_of(column: Any) -> int:
    """Where a column is: an array, or a memoryview of memory that can be written to. It is not resized from now on."""
    return ctypes.addressof(ctypes.c_char.from_buffer(column))
