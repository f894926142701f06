"""Packets between the processes of a memory: a word, numbers, and open descriptors (unix(7), ``SOCK_SEQPACKET``).

What is said (``+`` stands for a descriptor that goes with it), by whom, and what is answered:

======================================================  ==========================================================
from the program that made the memory
------------------------------------------------------------------------------------------------------------------
``source N OFFSET LENGTH +file``                        the same word, when the pager has it
``drop N``                                              nothing
``share SLOT TICKET FIRST PAGES``                       the same word: who joins may hold these pages
``unshare SLOT``                                        nothing; the slot's word in the tables tells when nobody
                                                        holds them any more
from every process
------------------------------------------------------------------------------------------------------------------
``join SECRET``                                         ``join PAGES PAGE_SIZE NUMBER +arena``
``fork SECRET NUMBER``                                  ``fork CHILD FORK +arena``, when it may fork; its child
                                                        speaks on this connection next
``reopen SECRET NUMBER``                                the same word ``+arena +userfaultfd``
``reap SECRET``                                         the same word, when what processes held that have ended, or run
                                                        another program, is let go
``attach ADDRESS +userfaultfd +process +lifeline``      the same word, when its faults are answered
``hold SLOT TICKET``                                    ``hold FIRST PAGES``
``cover FIRST PAGES``                                   the same word, when writers of these pages are seen here
``release SLOT``                                        nothing
``close``                                               nothing; its lifeline is closed when it may unmap the memory
from the supervisor, to the pager
------------------------------------------------------------------------------------------------------------------
``source``, ``drop``                                    passed on, and answered
``fork N FORK OF_PROGRAM``                              ``fork N``
``attach N ADDRESS FORK +userfaultfd +process``         ``attach N`` (FORK is 0 for a process that shares the arrays)
``cover N FIRST PAGES``                                 ``cover N``
``detach N``                                            ``detach N``
``close``                                               nothing
======================================================  ==========================================================

Whatever cannot be done is answered by ``refused``, and so is whatever is not understood: a packet of any process, of
another version or a stranger's, must never end the supervisor. What has no answer is passed over then.

A process that asks puts a number of its own behind the word (``source#7``), and the answer bears it, too. A process may
be interrupted while it waits (a signal handler raises): what comes late is then no answer to its next question.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from operator import index

from thermocline.live import descriptor
from thermocline.live.channel import Channel

#: Bytes of one packet at most.
_BYTES = 256
_PACKET = re.compile(rb"([!-\"$-~]*)(?:#([0-9]+))?((?: -?[0-9]+)*)")

#: What a packet is taken for that cannot be read.
UNREADABLE = "unreadable"


@dataclass(frozen=True, slots=True)
class Packet:
    """What somebody said. ``token`` is what the sender wants to see in the answer."""

    word: str
    numbers: tuple[int, ...] = ()
    fds: tuple[int, ...] = ()
    token: int = 0


def _written(packet: Packet) -> bytes:
    word = f"{packet.word}#{packet.token}" if packet.token else packet.word
    return " ".join([word, *(str(index(number)) for number in packet.numbers)]).encode()


def send(peer: Channel, word: str, *numbers: int, fds: Sequence[int] = (), token: int = 0) -> None:
    """Say something.

    Raises
    ------
    DescriptorError
        Nobody listens any more.
    TypeError, ValueError
        This cannot be said: not integers, or too long. Nothing is sent.
    """
    said = _written(Packet(word, numbers, (), token))
    if len(said) > _BYTES:
        raise ValueError(f"a packet of {len(said)} bytes is longer than {_BYTES}")
    peer.send(said, fds)


def receive(peer: Channel) -> Packet | None:
    """Wait for what is said next -> None when the other end has hung up.

    There are fewer descriptors than were sent where this process may not open more. A packet that cannot be read is
    ``UNREADABLE``, and its descriptors are closed.
    """
    received = peer.receive()
    if received is None:
        return None
    read = None if received.is_cut or not received.data else _PACKET.fullmatch(received.data)
    if read is None:
        close_all(received.fds)
        return Packet(UNREADABLE)
    word, token, numbers = read.groups()
    return Packet(word.decode(), tuple(map(int, numbers.split())), received.fds, int(token or 0))


def close_all(fds: Iterable[int]) -> None:
    """Close descriptors that came with a packet."""
    for fd in fds:
        descriptor.close(fd)
