"""Attaching a process to a memory (shmat(2)): the arena is mapped there, and somebody answers for what is touched.

A userfaultfd belongs to the address space that it was made in, so each process brings its own, and hands it to the
supervisor, who passes it on to the pager. When that has answered, whatever is touched is served as in the program. The
process keeps its userfaultfd open, too: were the helpers' the last one to be closed, whoever waits would wake to zeros.

The kernel could do this in fork(2) itself (``UFFD_FEATURE_EVENT_FORK``), for those who may trace any process, and the
descriptor of the child's would then be whoever's reads the event: a pager that is killed at that instant would leave
the child with zeros.
"""

from __future__ import annotations

import contextlib
import os
import socket

from thermocline.errors import UnsupportedError
from thermocline.live import control, launch, libc
from thermocline.live.address_space import AddressSpace
from thermocline.live.userfaultfd import UserFaultFd, open_userfaultfd


def map_arena(arena: int, address: int, size: int, uffd: UserFaultFd) -> None:
    """Map an arena where nothing is mapped that matters, and register it.

    A child that is forked gets nothing there: it would share the frames without anybody seeing its faults.
    """
    access, flags = libc.PROT_READ | libc.PROT_WRITE, libc.MAP_SHARED | libc.MAP_NORESERVE | libc.MAP_FIXED
    libc.mmap(address, size, access, flags, arena)
    libc.madvise(address, size, libc.MADV_DONTFORK)
    libc.madvise(address, size, libc.MADV_DONTDUMP)
    uffd.register(address, size)


class Attachment:
    """What a process that did not make the memory has of it.

    Parameters
    ----------
    peer : socket
        To the supervisor, which expects this process on it. It is closed here if this fails.
    arena : int
        The memfd.
    address, size : int
        Where to map it.

    Raises
    ------
    OSError, UnsupportedError
        This process cannot be served. Nothing is mapped then.
    """

    def __init__(self, peer: socket.socket, arena: int, address: int, size: int) -> None:
        with contextlib.ExitStack() as undo:
            undo.callback(peer.close)
            opened = open_userfaultfd()
            undo.callback(os.close, opened.fd)
            undo.callback(AddressSpace.fence, address, size)
            map_arena(arena, address, size, UserFaultFd(opened.fd))
            lifeline, theirs = socket.socketpair()
            undo.callback(lifeline.close)
            # Before anything is touched: whoever dies from now on, this process does not wait for it.
            launch.hold_lifeline(lifeline)
            undo.callback(launch.let_go_of_lifeline, lifeline)
            with contextlib.closing(theirs), contextlib.ExitStack() as handed_over:
                process = os.pidfd_open(os.getpid())
                handed_over.callback(os.close, process)
                control.send(peer, "attach", address, fds=[opened.fd, process, theirs.fileno()])
            answer = control.receive(peer)
            if answer is None or answer.word == "refused":
                raise UnsupportedError("no more processes can share this memory; raise the limit (ulimit -Hn)")
            self._undo = undo.pop_all()
        self.peer = peer
        self.serves_system_calls = opened.serves_system_calls
        self._descriptors = opened.fd, lifeline

    def forget(self) -> None:
        """In a child that was forked from this process: close what is not its own."""
        uffd, lifeline = self._descriptors
        os.close(uffd)
        lifeline.close()
        self.peer.close()
