"""The arena: one sparse memfd that holds the frames of every tiered array, seen from either side.

Page ``p`` of the arena is at byte ``p * page_size`` of the file, always. What varies is whether it is there: a frame is
the right to have one page of the file in memory, and the DRAM budget is a number of frames. The program maps the file
shared and has the mapping registered with userfaultfd; the pager never maps it, it reads it with preadv(2), so no
page table of the pager's grows and a hole has one mapping to unmap.
"""

from __future__ import annotations

import errno
import os

from thermocline.live import libc
from thermocline.live.buffer import Buffer
from thermocline.live.userfaultfd import UserFaultFd

#: st_blocks counts these (stat(2)).
_BLOCK = 512


class Arena:
    """The pager's view of an arena.

    Parameters
    ----------
    fd : int
        The memfd.
    uffd : UserFaultFd
        On which the program's mapping is registered.
    address : int
        Where the program has mapped it.
    """

    def __init__(self, fd: int, uffd: UserFaultFd, address: int, page_size: int) -> None:
        self.fd = fd
        self.uffd = uffd
        self.address = address
        self.page_size = page_size

    def page_at(self, address: int) -> int:
        """The page that holds an address of the program's."""
        return (address - self.address) // self.page_size

    def read(self, page: int, count: int, buffer: Buffer, offset: int) -> None:
        """Read resident pages into a buffer."""
        size = count * self.page_size
        got = os.preadv(self.fd, [buffer.view[offset : offset + size]], page * self.page_size)
        if got != size:
            raise OSError(f"arena: read {got} of {size} bytes at page {page}")

    def install(self, page: int, count: int, buffer: Buffer, offset: int, *, protect: bool) -> None:
        """Make pages appear with these bytes, and wake those that wait for them."""
        self.uffd.copy(
            self.address + page * self.page_size,
            buffer.address + offset,
            count * self.page_size,
            protect=protect,
        )

    def install_zeros(self, page: int, count: int) -> None:
        """Make pages of zeros appear, writable, and wake those that wait for them."""
        self.uffd.zero(self.address + page * self.page_size, count * self.page_size)

    def protect(self, page: int, count: int) -> None:
        """Stop the writers of resident pages."""
        self.uffd.write_protect(self.address + page * self.page_size, count * self.page_size)

    def unprotect(self, page: int, count: int) -> None:
        """Let the writers of resident pages go on."""
        self.uffd.write_unprotect(self.address + page * self.page_size, count * self.page_size)

    def wake(self, page: int, count: int = 1) -> None:
        """Make the waiters of pages fault again."""
        self.uffd.wake(self.address + page * self.page_size, count * self.page_size)

    def poison(self, page: int) -> bool:
        """Make every touch of an absent page a SIGBUS -> False if this kernel cannot (before Linux 6.6)."""
        # A page that was demoted leaves a write-protect marker behind, which the kernel takes for a page.
        self.unprotect(page, 1)
        try:
            self.uffd.poison(self.address + page * self.page_size, self.page_size)
        except OSError as error:
            if error.errno in (errno.EINVAL, errno.ENOTTY):
                return False
            raise
        return True

    def punch(self, page: int, count: int) -> None:
        """Free the frames of pages and unmap them everywhere."""
        libc.punch_hole(self.fd, page * self.page_size, count * self.page_size)

    def resident(self) -> int:
        """Bytes of the arena that are in memory, by the kernel's account."""
        return os.fstat(self.fd).st_blocks * _BLOCK

    def present_pages(self) -> set[int]:
        """Every page of which any byte is in memory (lseek(2), SEEK_DATA and SEEK_HOLE)."""
        found: set[int] = set()
        end = os.fstat(self.fd).st_size
        position = 0
        while position < end:
            try:
                data = os.lseek(self.fd, position, os.SEEK_DATA)
            except OSError as error:
                if error.errno == errno.ENXIO:
                    break
                raise
            position = os.lseek(self.fd, data, os.SEEK_HOLE)
            found.update(range(data // self.page_size, -(-position // self.page_size)))
        return found
