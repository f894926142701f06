"""Pages in an unlinked file on disk."""

from __future__ import annotations

import errno
import fcntl
import os
import tempfile
import time
from collections.abc import Iterable

from thermocline.errors import StoreError, is_ours
from thermocline.live.buffer import Buffer
from thermocline.live.libc import punch_hole
from thermocline.live.stores import digest
from thermocline.live.stores.device import read_fully, write_fully
from thermocline.live.stores.seals import Ciphers, Digests, Seals
from thermocline.live.stores.slots import Slots
from thermocline.live.stores.store import NodeStore
from thermocline.spec import File

TRIM_PUNCHES = 16  # runs of slots that one trim gives back; each may wait for the filesystem's journal

#: What open(2) says where a filesystem or kernel knows no O_TMPFILE.
_NO_TMPFILE = (errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL)


class FileStore(NodeStore[File]):
    """Slots of a page each in a file that has no name: whatever ends the process frees the disk.

    Where the filesystem can, I/O bypasses the page cache (open(2), ``O_DIRECT``), as swapping does. A write
    that returns is then known to have reached the device: an error of a cached write comes to light after the
    page has left DRAM, when it is lost. And a page that left DRAM has left DRAM, rather than moved to the
    cache. The price: a page read back soon comes from the device (80 us for 64 KiB here) and not from the
    cache (5 us).

    A slot that is written again is overwritten in place: dying meanwhile leaves a mixture. What names a slot
    in its books takes it out before it writes it again.

    What a slot is read from is held against its seal (see `seals`), which is not in the file: a slot there is a
    page, no more and no less, as direct I/O wants it.
    """

    slow = True

    def __init__(self, descriptors: tuple[int, ...], spec: File, page_size: int, pages: int) -> None:
        self._fd, seals = descriptors
        self._name = spec.name
        self._latency = spec.latency
        self._page_size = page_size
        self._slots = Slots(_most_slots(spec, page_size, pages))
        self._seals = (Ciphers if spec.encrypt else Digests)(seals, self._slots.most)
        # A byte a slot: 1 when it was released and its blocks are not given back yet.
        self._stale = bytearray(self._slots.most + 1)
        self._cursor = 0  # where the next trim begins to look
        self.slot_bytes = self.worst_case(page_size)
        # Reading ahead is decided per region, by who knows the regions; neighbours in this file mean nothing.
        os.posix_fadvise(self._fd, 0, 0, os.POSIX_FADV_RANDOM)

    @classmethod
    def worst_case(cls, page_size: int) -> int:
        """A page: a slot has no overhead."""
        return page_size

    @classmethod
    def create(cls, spec: File, page_size: int, pages: int) -> tuple[int, ...]:
        """Make the file, write a page to it and read it back; and make the memory of its seals."""
        if spec.encrypt:
            Ciphers.check()
        else:
            digest.check()
        try:
            fd = _open_unnamed(spec.directory)
        except OSError as error:
            if not is_ours(error):
                raise
            raise StoreError(
                error.errno or errno.EIO,
                f"{spec.name}: takes no file ({error.strerror}); name a directory you may write to",
            ) from error
        try:
            _try_out(fd, page_size, spec.name)
        except OSError as error:
            os.close(fd)
            if not is_ours(error):
                raise
            raise StoreError(error.errno or errno.EIO, f"{error.strerror}; name a directory with room") from error
        try:
            return fd, Seals.create(_most_slots(spec, page_size, pages))
        except OSError as error:
            os.close(fd)
            if not is_ours(error):
                raise
            raise StoreError(
                error.errno or errno.EIO,
                f"{spec.name}: no shared memory for its seals ({error.strerror}); raise the limits on memory and"
                " open files",
            ) from error

    def reserve(self) -> int:
        """The lowest free slot."""
        slot = self._slots.reserve()
        self._stale[slot] = 0  # its blocks, if it still has them, are used again
        return slot

    def write(self, slot: int, buffer: Buffer, offset: int, hint: int = 0) -> int:
        """Seal the page, and write it to its place."""
        self._hold_up()
        position = self._position(slot)
        self._seals.write(
            slot, self._page(buffer, offset), lambda data: write_fully(self._fd, data, position, self._name)
        )
        return self._page_size

    def read(self, slot: int, buffer: Buffer, offset: int) -> None:
        """Read the page from its place; StoreError (EBADMSG) if it is not the one that was written."""
        self._hold_up()
        position = self._position(slot)
        self._seals.read(
            slot, self._page(buffer, offset), lambda data: read_fully(self._fd, data, position, self._name)
        )

    def size(self, slot: int) -> int:
        """A page, always."""
        return self._page_size

    def release(self, slot: int) -> None:
        """Mark the slot's blocks as free; :meth:`trim` frees them."""
        self._slots.release(slot)
        self._stale[slot] = 1

    def recover(self, slots: Iterable[int]) -> None:
        """Believe the caller: a slot's place follows from its number.

        A file that was cut short meanwhile is no reason to refuse, nor is a seal that has rotted: that costs the pages
        concerned, when they are read, and none of the others.
        """
        taken = list(slots)
        for slot in taken:
            if not 0 < slot <= self._slots.most:
                raise StoreError(errno.EIO, f"{self._name}: there is no slot {slot}")
        held = min(os.fstat(self._fd).st_size // self._page_size, self._slots.most)
        self._slots.recover(taken)
        self._stale[1 : held + 1] = b"\1" * held
        for slot in taken:
            self._stale[slot] = 0

    def trim(self) -> int:
        """Free the blocks of released slots, contiguous ones in one call.

        0 also where the filesystem cannot (fallocate(2), EOPNOTSUPP): there blocks are used again, and freed
        at the end.
        """
        returned = 0
        for _ in range(TRIM_PUNCHES):
            first = self._stale.find(1, self._cursor)
            if first < 0:
                first = self._stale.find(1)
            if first < 0:
                break
            last = self._stale.find(0, first)
            count = (len(self._stale) if last < 0 else last) - first
            try:
                punch_hole(self._fd, self._position(first), count * self._page_size)
            except OSError:  # costs disk space, and never a page
                break
            self._stale[first : first + count] = bytes(count)
            self._cursor = first + count
            returned += count * self._page_size
        return returned

    def close(self) -> None:
        """Unmap the seals."""
        self._seals.close()

    def _hold_up(self) -> None:
        """Be as slow as was asked for. In a worker's thread: nobody else waits."""
        if self._latency:
            time.sleep(self._latency)

    def _page(self, buffer: Buffer, offset: int) -> memoryview:
        page = buffer.view[offset : offset + self._page_size]
        if len(page) != self._page_size:
            raise ValueError(f"no whole page at {offset} of a buffer of {buffer.size} bytes")
        return page

    def _position(self, slot: int) -> int:
        return (slot - 1) * self._page_size


def _most_slots(spec: File, page_size: int, pages: int) -> int:
    return min(pages, spec.capacity // page_size)


def _open_unnamed(directory: str) -> int:
    """A file of mode 0600 without a name in a directory, so that nothing can be left behind."""
    flags = os.O_TMPFILE | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC  # O_EXCL: it can never get a name either
    try:
        return os.open(directory, flags, 0o600)
    except OSError as error:
        if error.errno not in _NO_TMPFILE or not is_ours(error):
            raise
    return _open_and_unlink(directory)


def _open_and_unlink(directory: str) -> int:
    """The same where every file is born with a name."""
    fd, path = tempfile.mkstemp(prefix="thermocline-", dir=directory)
    os.unlink(path)
    return fd


def _try_out(fd: int, page_size: int, name: str) -> None:
    """Find out whether the file takes direct I/O, and leave its descriptor set to what works.

    Some filesystems refuse the flag, others only the first read or write with it (both EINVAL).

    Raises
    ------
    StoreError
        The file takes not even one page.
    """
    page = Buffer(page_size)
    cached = fcntl.fcntl(fd, fcntl.F_GETFL)
    try:
        try:
            fcntl.fcntl(fd, fcntl.F_SETFL, cached | os.O_DIRECT)
        except OSError as error:
            if not is_ours(error):
                raise
        try:
            _write_and_read(fd, page, name)
        except StoreError as error:
            if error.errno != errno.EINVAL:
                raise
            fcntl.fcntl(fd, fcntl.F_SETFL, cached)
            _write_and_read(fd, page, name)
        os.ftruncate(fd, 0)
    finally:
        page.close()


def _write_and_read(fd: int, page: Buffer, name: str) -> None:
    write_fully(fd, page.view, 0, name)
    read_fully(fd, page.view, 0, name)
