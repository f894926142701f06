"""Source files: what arrays made by ``from_file`` are read from, as the pager knows them.

The descriptors arrive over the control socket, each with a number, and are answered; the program makes no region of a
source before it has the answer.
"""

from __future__ import annotations

import errno
import socket

from thermocline.errors import StoreError
from thermocline.live.stores.source import SourceStore

#: Bytes of one control message.
MESSAGE_BYTES = 256
CLOSE = b"close"


def source_message(number: int, offset: int, length: int) -> bytes:
    """The control message that goes with a source's descriptor."""
    return f"source {number} {offset} {length}".encode()


class Sources:
    """The sources of one memory, by number."""

    def __init__(self, page_size: int) -> None:
        self._page_size = page_size
        self._stores: dict[int, SourceStore] = {}

    def __getitem__(self, number: int) -> SourceStore:
        try:
            return self._stores[number]
        except KeyError:
            raise StoreError(errno.ESTALE, f"source file {number} is not open any more") from None

    def receive(self, control: int) -> bool:
        """Take one message from the control socket -> False when it says that it is over, or nobody is there."""
        peer = socket.socket(fileno=control)
        try:
            message, fds, _, _ = socket.recv_fds(peer, MESSAGE_BYTES, 1)
            if not message or message == CLOSE:
                return False
            self._open(message, fds)
            peer.send(message)
            return True
        finally:
            peer.detach()

    def _open(self, message: bytes, fds: list[int]) -> None:
        number, offset, length = (int(word) for word in message.split()[1:])
        self._stores[number] = SourceStore(fds[0], offset, length, self._page_size)

    def __len__(self) -> int:
        return len(self._stores)
