"""Source files: what arrays made by ``from_file`` are read from, as the pager knows them.

The descriptors arrive over the control socket, each with a number, and are answered; the program makes no region of a
source before it has the answer, and drops a source when its region is freed.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterable

from thermocline.errors import StoreError
from thermocline.live.stores.source import SourceStore

#: Bytes of one control message.
MESSAGE_BYTES = 256
CLOSE = b"close"
#: The supervisor's answer when a descriptor did not arrive: too many are open.
REFUSED = b"refused"


def source_message(number: int, offset: int, length: int) -> bytes:
    """The control message that goes with a source's descriptor."""
    return f"source {number} {offset} {length}".encode()


def drop_message(number: int) -> bytes:
    """The control message that takes a source back. It has no answer."""
    return f"drop {number}".encode()


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

    def adopt(self, sources: Iterable[tuple[bytes, int]]) -> None:
        """Take sources that a predecessor knew: message and descriptor of each."""
        for message, fd in sources:
            self._open(int(message.split()[1]), message, [fd])

    def receive(self, control: int) -> bool:
        """Take one message from the control socket -> False when it says that it is over, or nobody is there."""
        peer = socket.socket(fileno=control)
        try:
            message, fds, _, _ = socket.recv_fds(peer, MESSAGE_BYTES, 1)
            if not message or message == CLOSE:
                return False
            number = int(message.split()[1])
            if message.startswith(b"drop"):
                self._drop(number)
            else:
                self._open(number, message, fds)
                peer.send(message)
            return True
        finally:
            peer.detach()

    def _open(self, number: int, message: bytes, fds: list[int]) -> None:
        offset, length = (int(word) for word in message.split()[2:])
        self._descriptors[number] = fds[0]
        self._stores[number] = SourceStore(fds[0], offset, length, self._page_size)

    def _drop(self, number: int) -> None:
        if self._stores.pop(number, None) is not None:
            os.close(self._descriptors.pop(number))
