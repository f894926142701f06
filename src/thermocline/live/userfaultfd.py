"""userfaultfd(2) and its ioctls (ioctl_userfaultfd(2)), as thin as Python allows.

A missing or write-protected page of a registered range stops the thread that touches it; the kernel queues a message
on this descriptor, and the thread goes on when one of the ``UFFDIO_*`` calls below has resolved the page and woken
it. Features are probed at run time, never taken from a header: the same program must say clearly on a kernel of
another age what is missing.

Addresses are those of the faulting process; sources of :meth:`UserFaultFd.copy` are addresses in the calling one.
"""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from thermocline.errors import UnsupportedError, is_ours
from thermocline.live import libc

_UFFD_API = 0xAA
_USER_MODE_ONLY = 1

FEATURE_MISSING_SHMEM = 1 << 5
FEATURE_MINOR_SHMEM = 1 << 10
FEATURE_WP_HUGETLBFS_SHMEM = 1 << 12
FEATURE_POISON = 1 << 14

_REGISTER_MISSING, _REGISTER_WP, _REGISTER_MINOR = 1, 2, 4


def _ioctl_number(direction: int, number: int, size: int) -> int:
    return direction << 30 | size << 16 | _UFFD_API << 8 | number


_READ, _READ_WRITE = 2, 3
_API = struct.Struct("=QQQ")
_RANGE = struct.Struct("=QQ")
_REGISTER = struct.Struct("=QQQQ")
_COPY = struct.Struct("=QQQQq")
_ZEROPAGE = struct.Struct("=QQQq")
_WRITEPROTECT = struct.Struct("=QQQ")
_CONTINUE = struct.Struct("=QQQq")
_POISON = struct.Struct("=QQQq")
_PROGRESS = struct.Struct("=q")

_UFFDIO_API = _ioctl_number(_READ_WRITE, 0x3F, _API.size)
_UFFDIO_REGISTER = _ioctl_number(_READ_WRITE, 0x00, _REGISTER.size)
_UFFDIO_WAKE = _ioctl_number(_READ, 0x02, _RANGE.size)
_UFFDIO_COPY = _ioctl_number(_READ_WRITE, 0x03, _COPY.size)
_UFFDIO_ZEROPAGE = _ioctl_number(_READ_WRITE, 0x04, _ZEROPAGE.size)
_UFFDIO_WRITEPROTECT = _ioctl_number(_READ_WRITE, 0x06, _WRITEPROTECT.size)
_UFFDIO_CONTINUE = _ioctl_number(_READ_WRITE, 0x07, _CONTINUE.size)
_UFFDIO_POISON = _ioctl_number(_READ_WRITE, 0x08, _POISON.size)
_USERFAULTFD_IOC_NEW = _UFFD_API << 8

_COPY_MODE_WP = 2
_WRITEPROTECT_MODE_WP = 1

#: One message of the descriptor: event (u8), padding, flags (u64), address (u64), padding.
MESSAGE_SIZE = 32
_MESSAGE = struct.Struct("=B7xQQ8x")
_EVENT_PAGEFAULT = 0x12
_PAGEFAULT_FLAG_WRITE = 1
#: An address at which nobody registers anything: below where the kernel lets most processes map.
_NOWHERE = mmap.PAGESIZE
#: Errors at which a call that installs pages is not over: it is to be made again, or a base page was there.
_GO_ON = (errno.EAGAIN, errno.EEXIST)
#: Messages taken from the kernel in one read.
_MESSAGES_PER_READ = 64


@dataclass(frozen=True, slots=True)
class Opened:
    """What :func:`open_userfaultfd` got."""

    fd: int
    #: False when only user-mode faults are served: a system call that touches a missing page then fails with EFAULT.
    serves_system_calls: bool
    #: The features that were asked for (UFFDIO_API).
    features: int


def open_userfaultfd() -> Opened:
    """Open a userfaultfd for the calling process, in the most capable mode that this process is allowed.

    Raises
    ------
    UnsupportedError
        The kernel has no userfaultfd, forbids it, or cannot write-protect shared memory (before 5.19).
    """
    wanted = FEATURE_MISSING_SHMEM | FEATURE_WP_HUGETLBFS_SHMEM
    # A descriptor takes UFFDIO_API once with features, so the one that is asked is closed and another opened.
    asked, _ = _open()
    try:
        offered = _features(asked)
    finally:
        os.close(asked)
    if offered & wanted != wanted:
        raise UnsupportedError(
            f"this kernel ({os.uname().release}) cannot write-protect shared memory with userfaultfd; "
            "thermocline needs Linux 5.19 or newer with CONFIG_USERFAULTFD and CONFIG_PTE_MARKER_UFFD_WP"
        )
    fd, full = _open()
    try:
        features = wanted | offered & (FEATURE_POISON | FEATURE_MINOR_SHMEM)
        fcntl.ioctl(fd, _UFFDIO_API, bytearray(_API.pack(_UFFD_API, features, 0)), True)
        return Opened(fd, full, features)
    except BaseException:
        os.close(fd)
        raise


def _open() -> tuple[int, bool]:
    flags = os.O_CLOEXEC | os.O_NONBLOCK
    try:
        return libc.userfaultfd(flags), True
    except OSError as error:
        if not is_ours(error):
            raise
        if error.errno not in (errno.EPERM, errno.ENOSYS):
            raise UnsupportedError(f"userfaultfd: {error}") from error
        denied = error
    try:
        device = os.open("/dev/userfaultfd", os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        if not is_ours(error):
            raise
    else:
        try:
            return fcntl.ioctl(device, _USERFAULTFD_IOC_NEW, flags), True
        except OSError as error:
            if not is_ours(error):
                raise
        finally:
            os.close(device)
    try:
        return libc.userfaultfd(flags | _USER_MODE_ONLY), False
    except OSError as error:
        if not is_ours(error):
            raise
        raise UnsupportedError(
            f"userfaultfd is not available here ({denied.strerror}); allow userfaultfd(2) in the seccomp profile, "
            "pass /dev/userfaultfd into the container, or set vm.unprivileged_userfaultfd=1"
        ) from error


def _features(fd: int) -> int:
    request = bytearray(_API.pack(_UFFD_API, 0, 0))
    fcntl.ioctl(fd, _UFFDIO_API, request, True)
    return int(_API.unpack(request)[1])


class PageFault(NamedTuple):
    """One fault: the address (rounded to a base page by the kernel) and whether it was a write."""

    address: int
    write: bool


class UserFaultFd:
    """The ioctls of one userfaultfd. Does not own the descriptor."""

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def register(self, address: int, length: int) -> None:
        """Deliver missing and write-protect faults of this range (UFFDIO_REGISTER)."""
        self._register(address, length, _REGISTER_MISSING | _REGISTER_WP)

    def register_minor(self, address: int, length: int) -> None:
        """Deliver missing and minor faults of this range: the page is in the file, and was not touched here."""
        self._register(address, length, _REGISTER_MISSING | _REGISTER_MINOR)

    def _register(self, address: int, length: int, mode: int) -> None:
        fcntl.ioctl(self.fd, _UFFDIO_REGISTER, bytearray(_REGISTER.pack(address, length, mode, 0)), True)

    def read(self) -> list[PageFault]:
        """Take the faults that are waiting, without blocking."""
        try:
            data = os.read(self.fd, MESSAGE_SIZE * _MESSAGES_PER_READ)
        except BlockingIOError:
            return []
        return [
            PageFault(address, bool(flags & _PAGEFAULT_FLAG_WRITE))
            for event, flags, address in _MESSAGE.iter_unpack(data)
            if event == _EVENT_PAGEFAULT
        ]

    def copy(self, destination: int, source: int, length: int, *, protect: bool) -> bool:
        """Install bytes atomically where nothing is mapped, and wake (UFFDIO_COPY) -> whether nothing was there.

        ``protect`` installs them write-protected: the first write is then a fault. Base pages that are already
        there are left alone (they hold what the program wrote: the newer bytes), and their waiters woken.
        """
        mode = _COPY_MODE_WP if protect else 0
        request = bytearray(_COPY.pack(destination, source, length, mode, 0))
        try:  # what nearly always goes through, without further ado: this is what a fault waits for
            fcntl.ioctl(self.fd, _UFFDIO_COPY, request, True)
            return True
        except OSError as error:
            if error.errno not in _GO_ON:
                raise
            return self._go_on(
                error.errno,
                request,
                _UFFDIO_COPY,
                destination,
                length,
                lambda done: _COPY.pack(destination + done, source + done, length - done, mode, 0),
            )

    def zero(self, destination: int, length: int) -> bool:
        """Install writable zero pages where nothing is mapped, and wake (UFFDIO_ZEROPAGE) -> as :meth:`copy`."""
        return self._install(
            _UFFDIO_ZEROPAGE, destination, length, lambda done: _ZEROPAGE.pack(destination + done, length - done, 0, 0)
        )

    def map_present(self, address: int, length: int) -> bool:
        """Map what is in the file where nothing is mapped, and wake (UFFDIO_CONTINUE) -> as :meth:`copy`."""
        return self._install(
            _UFFDIO_CONTINUE, address, length, lambda done: _CONTINUE.pack(address + done, length - done, 0, 0)
        )

    def poison(self, address: int, length: int) -> None:
        """Make every touch of a range in which nothing is mapped a SIGBUS, and wake (UFFDIO_POISON, Linux 6.6)."""
        self._install(_UFFDIO_POISON, address, length, lambda done: _POISON.pack(address + done, length - done, 0, 0))

    def _install(self, number: int, address: int, length: int, request_from: Callable[[int], bytes]) -> bool:
        """Call until the whole range is dealt with.

        The kernel stops at the first base page it cannot install and reports its progress in the last word of the
        request (the negative errno if there was none). EAGAIN asks to be called again. EEXIST says that this base page
        is there already: whoever waits for it has to be woken by us.
        """
        request = bytearray(request_from(0))
        try:
            fcntl.ioctl(self.fd, number, request, True)
            return True
        except OSError as error:
            if error.errno not in _GO_ON:
                raise
            return self._go_on(error.errno, request, number, address, length, request_from)

    def _go_on(
        self,
        stopped: int,
        request: bytearray,
        number: int,
        address: int,
        length: int,
        request_from: Callable[[int], bytes],
    ) -> bool:
        """Go on after the first error of :meth:`_install`, which is in ``_GO_ON`` -> whether nothing was there.

        No exception is kept, here or by the callers: its traceback has the frame that keeps it, which is a cycle, and
        with it all frames that led there. The pager collects no cycles.
        """
        done = 0
        nothing_there = True
        while True:
            done += max(_PROGRESS.unpack_from(request, len(request) - _PROGRESS.size)[0], 0)
            if stopped == errno.EEXIST:
                nothing_there = False
                self.wake(address + done, mmap.PAGESIZE)
                done += mmap.PAGESIZE
            if done >= length:
                return nothing_there
            request = bytearray(request_from(done))
            try:
                fcntl.ioctl(self.fd, number, request, True)
                return nothing_there
            except OSError as error:
                if error.errno not in _GO_ON:
                    raise
                stopped = error.errno

    def write_protect(self, address: int, length: int) -> None:
        """Stop writers of this range; readers go on (UFFDIO_WRITEPROTECT)."""
        self._write_protect(address, length, _WRITEPROTECT_MODE_WP)

    def write_unprotect(self, address: int, length: int) -> None:
        """Let writers of this range go on, and wake them (UFFDIO_WRITEPROTECT without its flag)."""
        self._write_protect(address, length, 0)

    def _write_protect(self, address: int, length: int, mode: int) -> None:
        request = bytearray(_WRITEPROTECT.pack(address, length, mode))
        while True:
            try:
                fcntl.ioctl(self.fd, _UFFDIO_WRITEPROTECT, request, True)
                return
            except BlockingIOError:
                continue  # EAGAIN: the address space is being changed; the kernel asks to be called again

    def wake(self, address: int, length: int) -> None:
        """Make the threads that wait on this range fault again (UFFDIO_WAKE)."""
        fcntl.ioctl(self.fd, _UFFDIO_WAKE, bytearray(_RANGE.pack(address, length)), True)

    @property
    def is_orphaned(self) -> bool:
        """Whether the address space that it belongs to is gone: its process has ended, or runs another program."""
        try:
            # No page there is registered. The kernel says so if it finds an address space to look in.
            fcntl.ioctl(self.fd, _UFFDIO_WRITEPROTECT, bytearray(_WRITEPROTECT.pack(_NOWHERE, mmap.PAGESIZE, 0)), True)
        except ProcessLookupError:
            return True
        except OSError:
            return False
        return False
