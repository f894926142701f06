"""Source files: what arrays made by ``from_file`` are read from, as the pager knows them.

The descriptors arrive over the control socket (see :mod:`thermocline.live.control`), each with a number, and are
answered; the program makes no region of a source before it has the answer, and drops a source when its region is freed.
"""

from __future__ import annotations

import errno
import os

from thermocline.errors import StoreError
from thermocline.live.control import Packet
from thermocline.live.stores.source import SourceStore


class Sources:
    """The sources of one memory, by number."""

    def __init__(self, page_size: int) -> None:
        self._page_size = page_size
        self._stores: dict[int, SourceStore] = {}
        self._descriptors: dict[int, int] = {}

    def __getitem__(self, number: int) -> SourceStore:
        try:
            return self._stores[number]
        except KeyError:
            raise StoreError(errno.ESTALE, f"source file {number} is not open any more") from None

    def open(self, packet: Packet) -> None:
        """Take a source: its number, where it begins in its file, how long it is, and the file."""
        number, offset, length = packet.numbers
        self._descriptors[number] = packet.fds[0]
        self._stores[number] = SourceStore(packet.fds[0], offset, length, self._page_size)

    def drop(self, number: int) -> None:
        """Forget a source, and close its file."""
        if self._stores.pop(number, None) is not None:
            os.close(self._descriptors.pop(number))
