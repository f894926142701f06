"""Packets between the processes of a memory: a word, numbers, and open descriptors (unix(7), ``SOCK_SEQPACKET``).

What is said (``+`` stands for a descriptor that goes with it), and what is answered:

=========================  ============================================  ==========================================
from a process             ``source N OFFSET LENGTH +file``              the same, when the pager has it; ``refused``
                           ``drop N``                                    nothing
                           ``child ROW +socket``                         nothing: its child speaks on that socket next
                           ``close``                                     nothing
from a child               ``attach ADDRESS +userfaultfd +process        ``attached``, when its faults are answered;
                           +lifeline``                                   ``refused``
from the supervisor        ``source``, ``drop``: passed on               ``source N``
                           ``attach N ADDRESS +userfaultfd +process``    ``attach N``
                           ``detach N``, ``close``                       nothing
=========================  ============================================  ==========================================
"""

from __future__ import annotations

import socket
from collections.abc import Sequence
from dataclasses import dataclass

#: Bytes of one packet, and descriptors that go with it, at most.
_BYTES, _DESCRIPTORS = 256, 3


@dataclass(frozen=True, slots=True)
class Packet:
    """What somebody said."""

    word: str
    numbers: tuple[int, ...] = ()
    fds: tuple[int, ...] = ()


def send(peer: socket.socket, word: str, *numbers: int, fds: Sequence[int] = ()) -> None:
    """Say something.

    Raises
    ------
    OSError
        Nobody listens any more.
    """
    socket.send_fds(peer, [" ".join([word, *map(str, numbers)]).encode()], fds)


def receive(peer: socket.socket) -> Packet | None:
    """Wait for what is said next -> None when the other end has hung up.

    There are fewer descriptors than were sent where this process may not open more.
    """
    try:
        said, fds, _, _ = socket.recv_fds(peer, _BYTES, _DESCRIPTORS)
    except ConnectionError:
        return None
    if not said:
        return None
    word, *numbers = said.decode().split()
    return Packet(word, tuple(map(int, numbers)), tuple(fds))
