"""Small memories, so that every path is taken with little data."""

import contextlib
import os
from collections.abc import Iterator

import pytest
from families import Steps

from thermocline import Memory
from thermocline.live import libc
from thermocline.live.arena import Arena
from thermocline.live.mapping import Mapping
from thermocline.live.userfaultfd import UserFaultFd, open_userfaultfd
from thermocline.protocol.migrate import DESIGNS

PAGE = 64 << 10
#: Of an arena that a test maps itself.
ARENA_PAGES = 8


@pytest.fixture(params=sorted(DESIGNS))
def design(request: pytest.FixtureRequest) -> str:
    """Every migration design."""
    name: str = request.param
    return name


@pytest.fixture
def memory(tmp_path: object) -> Iterator[Memory]:
    """2 MiB of DRAM over 4 MiB of compressed memory over 64 MiB of file."""
    with Memory(f"dram=2MiB, zstd=4MiB, file:{tmp_path}=64MiB") as made:
        yield made
        assert made.stat()["pager"]["starts"] == 1, "the pager died and was replaced"


@contextlib.contextmanager
def mapped(fd: int) -> Iterator[Mapping]:
    """A mapping of an arena in this process, which serves it, too."""
    opened = open_userfaultfd()
    size = ARENA_PAGES * PAGE
    address = libc.mmap(None, size, libc.PROT_READ | libc.PROT_WRITE, libc.MAP_SHARED, fd)
    uffd = UserFaultFd(opened.fd)
    uffd.register(address, size)
    yield Mapping(0, uffd, address, PAGE, -1)
    libc.munmap(address, size)
    os.close(opened.fd)


@pytest.fixture
def arena() -> Iterator[Arena]:
    """A real arena that is mapped once."""
    fd = os.memfd_create("arena", os.MFD_CLOEXEC)
    os.ftruncate(fd, ARENA_PAGES * PAGE)
    with mapped(fd) as mapping:
        yield Arena(fd, PAGE, [mapping])
    os.close(fd)


@pytest.fixture
def steps() -> Iterator[Steps]:
    """For one child."""
    made = Steps()
    yield made
    made.close()
