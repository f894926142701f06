"""Children that the pager gives copies to: those that are there, that are gone, and that can have no mapping more."""

from __future__ import annotations

import contextlib
import errno
import gc
import os
import signal
import socket
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from conftest import ARENA_PAGES, PAGE
from thermocline.live import libc
from thermocline.live.arena import Arena
from thermocline.live.buffer import Buffer
from thermocline.live.copies import Copies
from thermocline.live.mapping import Mapping
from thermocline.live.userfaultfd import UserFaultFd, open_userfaultfd

_SIZE = ARENA_PAGES * PAGE
_ADDRESS = struct.Struct("=Q")


class Child:
    """A process that has mapped an arena privately, as a forked child does; it does what it is told, and is idle."""

    def __init__(self, arena: Arena) -> None:
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.pid = os.fork()
        if not self.pid:
            self._live(arena.fd, theirs)
        theirs.close()
        data, (uffd,), _, _ = socket.recv_fds(self._socket, _ADDRESS.size, 1)
        process = os.pidfd_open(self.pid)
        self.mapping = Mapping(1, UserFaultFd(uffd), *_ADDRESS.unpack(data), PAGE, process, fork=1)
        arena.attach(self.mapping)

    @staticmethod
    def _live(fd: int, theirs: socket.socket) -> None:
        try:
            opened = open_userfaultfd()
            address = libc.mmap(None, _SIZE, libc.PROT_READ | libc.PROT_WRITE, libc.MAP_PRIVATE, fd)
            UserFaultFd(opened.fd).register_minor(address, _SIZE)
            socket.send_fds(theirs, [_ADDRESS.pack(address)], [opened.fd])
            theirs.recv(1)
            os.execlp("sleep", "sleep", "infinity")
        finally:
            os._exit(1)

    def run_another(self) -> None:
        """Let it run another program."""
        self._socket.send(b".")
        assert not self._socket.recv(1)  # the kernel closes its end behind the old program's address space

    @property
    def lives(self) -> bool:
        """Whether it has not ended."""
        return os.waitpid(self.pid, os.WNOHANG) == (0, 0)

    def close(self) -> None:
        """End it."""
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.mapping.process, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self.pid, 0)
        self._socket.close()
        for fd in (self.mapping.uffd.fd, self.mapping.process):
            os.close(fd)


@pytest.fixture
def child(arena: Arena) -> Iterator[Child]:
    made = Child(arena)
    yield made
    arena.detach(made.mapping)
    made.close()


@pytest.fixture
def copies(arena: Arena) -> Iterator[Copies]:
    """Of an arena whose first page is zeros, and whose second is not."""
    ones = Buffer(PAGE)
    ones.view[:] = b"\1" * PAGE
    arena.install_zeros(0, PAGE)
    arena.install(PAGE, PAGE, ones, 0, protect=True)
    ones.close()
    fd = os.memfd_create("copies", os.MFD_CLOEXEC)
    os.ftruncate(fd, _SIZE)
    yield Copies(fd, arena)
    os.close(fd)


#: What a child is given, by its page in the arena.
PAGES = pytest.mark.parametrize("page", [0, 1], ids=["zeros", "bytes"])


def nobody(child: int) -> None:
    raise AssertionError(f"there is memory for child {child}")


@PAGES
def test_a_child_is_given_a_copy_once(copies: Copies, child: Child, page: int) -> None:
    assert copies.give(page, range(2), [1], nobody) == ([], 1)
    assert copies.give(page, range(2), [1], nobody) == ([1], 1)


@PAGES
def test_a_child_that_runs_another_program_by_now_is_passed_over(copies: Copies, child: Child, page: int) -> None:
    """It is not ended for want of memory: what it runs has nothing to do with arrays."""
    child.run_another()
    assert copies.give(page, range(2), [1], nobody) == ([], 0)
    assert child.lives


@PAGES
def test_what_the_kernel_refuses_leaves_no_cycles_behind(copies: Copies, child: Child, page: int) -> None:
    """The pager never looks for cycles, and one that holds a frame holds the whole task that led there."""

    def refused() -> None:
        copies.give(page, range(2), [1], nobody)

    steps: list[Callable[[], None]] = [refused, refused, child.run_another, refused]
    gc.collect()
    gc.disable()
    try:
        for step in steps:
            step()
        assert gc.collect() == 0
    finally:
        gc.enable()


def test_a_child_that_can_have_no_further_mapping_is_given_zeros_of_its_own(
    copies: Copies, child: Child, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOMEM, "too many mappings")

    monkeypatch.setattr(UserFaultFd, "register_minor", refuse)
    assert copies.give(0, range(2), [1], nobody) == ([], 1)
    mapping = Path(f"/proc/{child.pid}/smaps").read_text().partition(f"{child.mapping.address:x}-")[2]
    own = next(line for line in mapping.splitlines() if line.startswith("Anonymous:"))
    assert int(own.split()[1]) << 10 == PAGE
