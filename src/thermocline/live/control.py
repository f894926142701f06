"""Packets between the processes of a memory: a word, numbers, and open descriptors (unix(7), ``SOCK_SEQPACKET``).

What is said (``+`` stands for a descriptor that goes with it), by whom, and what is answered:

======================================================  ==========================================================
from the program that made the memory
------------------------------------------------------------------------------------------------------------------
``source N OFFSET LENGTH +file``                        the same word, when the pager has it
``drop N``                                              nothing
``reap``                                                the same word, when what processes held that have ended, or run
                                                        another program, is let go
``share SLOT TICKET FIRST PAGES``                       the same word: who joins may hold these pages
``unshare SLOT``                                        nothing; the slot's word in the tables tells when nobody
                                                        holds them any more
from every process
------------------------------------------------------------------------------------------------------------------
``join SECRET``                                         ``join PAGES PAGE_SIZE NUMBER +arena``
``fork SECRET NUMBER``                                  ``fork CHILD FORK +arena``, when it may fork; its child
                                                        speaks on this connection next
``attach ADDRESS +userfaultfd +process +lifeline``      the same word, when its faults are answered
``hold SLOT TICKET``                                    ``hold FIRST PAGES``
``release SLOT``                                        nothing
``close``                                               nothing; its lifeline is closed when it may unmap the memory
from the supervisor, to the pager
------------------------------------------------------------------------------------------------------------------
``source``, ``drop``                                    passed on, and answered
``fork N FORK OF_PROGRAM``                              ``fork N``
``attach N ADDRESS FORK +userfaultfd +process``         ``attach N`` (FORK is 0 for a process that shares the arrays)
``detach N``                                            ``detach N``
``close``                                               nothing
======================================================  ==========================================================

Whatever cannot be done is answered by ``refused``.
"""

from __future__ import annotations

import os
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
    """Wait for what is said next -> None when the other end has hung up, or does not speak this language.

    There are fewer descriptors than were sent where this process may not open more.
    """
    try:
        said, fds, _, _ = socket.recv_fds(peer, _BYTES, _DESCRIPTORS)
    except ConnectionError:
        return None
    if not said:
        return None
    try:
        word, *numbers = said.decode().split()
        return Packet(word, tuple(map(int, numbers)), tuple(fds))
    except ValueError:  # nobody of ours
        for fd in fds:
            os.close(fd)
        return None
