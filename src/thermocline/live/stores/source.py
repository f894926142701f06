"""Pages of a user's own file, for arrays made from it."""

from __future__ import annotations

import errno
from collections.abc import Iterable

from thermocline.errors import StoreError
from thermocline.live.buffer import Buffer
from thermocline.live.stores.device import read_fully
from thermocline.live.stores.store import Store


class SourceStore(Store):
    """Reads a stretch of a file as pages. Slot k is its page k - 1, and all slots are there from the start.

    It needs no room of ours and is charged none. The file is the user's: what others write to it shows in
    pages read after that, as with any mapping of a file.

    Parameters
    ----------
    fd : int
        The file, open for reading. It stays open on :meth:`close`.
    offset : int
        Byte of the file at which the first page begins.
    length : int
        Bytes of the stretch. The last page is filled up with zeros.
    page_size : int
        Bytes of a page.
    """

    slow = True
    slot_bytes = 0

    def __init__(self, fd: int, offset: int, length: int, page_size: int) -> None:
        self._fd = fd
        self._offset = offset
        self._length = length
        self._page_size = page_size

    def reserve(self) -> int:
        """Never: StoreError (EROFS)."""
        raise StoreError(errno.EROFS, "the file an array was made from takes no pages")

    def write(self, slot: int, buffer: Buffer, offset: int, hint: int = 0) -> int:
        """Never: StoreError (EROFS)."""
        raise StoreError(errno.EROFS, "the file an array was made from is not written to")

    def read(self, slot: int, buffer: Buffer, offset: int) -> None:
        """Read the page, with zeros past the end of the stretch; StoreError (EIO) if the file is shorter."""
        page = buffer.view[offset : offset + self._page_size]
        if len(page) != self._page_size:
            raise ValueError(f"no whole page at {offset} of a buffer of {buffer.size} bytes")
        position = (slot - 1) * self._page_size
        there = max(0, min(self._page_size, self._length - position))
        read_fully(self._fd, page[:there], self._offset + position, "the file an array was made from")
        page[there:] = bytes(self._page_size - there)

    def size(self, slot: int) -> int:
        """0: the bytes are the user's."""
        return 0

    def release(self, slot: int) -> None:
        """Nothing: the slots are the file's."""

    def recover(self, slots: Iterable[int]) -> None:
        """Nothing: there is no state."""

    def trim(self) -> int:
        """0: there is nothing to give back."""
        return 0

    def close(self) -> None:
        """Nothing: all it has is the descriptor."""
