"""Scratch memory for the contents of pages."""

from __future__ import annotations

import ctypes
import mmap
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


def address_of(column: Any) -> int:
    """Where a column is: an array, or a memoryview of memory that can be written to. It is not resized from now on."""
    return ctypes.addressof(ctypes.c_char.from_buffer(column))
