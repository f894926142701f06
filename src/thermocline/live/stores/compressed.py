"""Compressed memory: pages packed with lz4 or zstd into a pool of shared memory."""

from __future__ import annotations

import ctypes
import errno
from collections.abc import Iterable

from thermocline.errors import StoreError, is_ours
from thermocline.live.buffer import Buffer
from thermocline.live.stores import digest
from thermocline.live.stores.blosc import Unpacker, library
from thermocline.live.stores.packer import Packer
from thermocline.live.stores.pool import Pool, worst_case
from thermocline.live.stores.store import NodeStore
from thermocline.sizes import format_size
from thermocline.spec import Compressed


class Reader:
    """What native code reads a pool with, in one thread at a time.

    Attributes
    ----------
    row : PoolRow
        Where all that is.
    """

    def __init__(self, pool: Pool) -> None:
        self._scratch = Buffer(pool.most)
        self._unpacker = Unpacker(pool.most)
        self.row = pool.row()
        self.row.scratch = self._scratch.address
        self._unpacker.describe(self.row)

    def close(self) -> None:
        """Free what it has."""
        self._unpacker.close()
        self._scratch.close()


class CompressedStore(NodeStore[Compressed]):
    """Packs each page under the filter that pays for its like, and keeps it raw when nothing does.

    A page that does not shrink below 15/16 is raw: unpacking it would cost every reader more than the room is
    worth. It is charged more than ``page_size``, which is how a caller tells.

    A write is atomic: until it returns, a crash leaves what the slot held before. To that end the old bytes
    stay until the new ones are in place, so a slot that is written again needs room for both.
    """

    slow = False

    def __init__(self, descriptors: tuple[int, ...], spec: Compressed, page_size: int, pages: int) -> None:
        (fd,) = descriptors
        self._page_size = page_size
        self._codec = spec.codec
        self._packer = Packer(spec.codec, page_size)
        self._pool = Pool(fd, spec.capacity, page_size, pages)
        self.slot_bytes = self.worst_case(page_size)
        #: What threads read with, while they do not.
        self._readers: list[Reader] = []
        #: What other threads pack with, while they do not.
        self._packers: list[Packer] = []

    @classmethod
    def worst_case(cls, page_size: int) -> int:
        """A raw page in pieces of a quantum each."""
        return worst_case(page_size)

    @classmethod
    def create(cls, spec: Compressed, page_size: int, pages: int) -> tuple[int, ...]:
        """Make the pool's memfd, named after the codec."""
        library()
        digest.check()
        try:
            return (Pool.create(f"thermocline-{spec.codec}", spec.capacity, pages),)
        except OSError as error:
            if not is_ours(error):
                raise
            raise StoreError(
                error.errno or errno.EIO,
                f"{spec.codec}={format_size(spec.capacity)}: no shared memory ({error.strerror});"
                " write a smaller size, or raise the limits on memory and open files",
            ) from error

    def reserve(self) -> int:
        """An empty slot."""
        return self._pool.reserve()

    def write(self, slot: int, buffer: Buffer, offset: int, hint: int = 0) -> int:
        """Pack the page, or copy it."""
        page = buffer.view[offset : offset + self._page_size]
        if len(page) != self._page_size:
            raise ValueError(f"no whole page at {offset} of a buffer of {buffer.size} bytes")
        return self._pool.write(slot, self._packer.pack(buffer.address + offset, hint) or page)

    def take_packer(self) -> Packer:
        """One that no other thread has, until it is put back."""
        try:
            return self._packers.pop()
        except IndexError:
            return Packer(self._codec, self._page_size)

    def put_packer(self, packer: Packer) -> None:
        """Take a packer back that is not used any more."""
        self._packers.append(packer)

    def write_packed(self, slot: int, buffer: Buffer, offset: int, length: int) -> int:
        """:meth:`write` what a packer has made of a page, or the page itself."""
        return self._pool.write(slot, buffer.view[offset : offset + length])

    def read(self, slot: int, buffer: Buffer, offset: int) -> None:
        """Unpack the page, or copy it; StoreError (EBADMSG) if what is packed is not what was written."""
        if not 0 <= offset <= buffer.size - self._page_size:
            raise ValueError(f"no whole page at {offset} of a buffer of {buffer.size} bytes")
        source, length = self._pool.find(slot)
        if length == self._page_size:
            ctypes.memmove(buffer.address + offset, source, length)
        else:
            self._packer.unpack(source, length, buffer.address + offset)

    def read_part(self, slot: int, buffer: Buffer, offset: int, begin: int, length: int) -> None:
        """Unpack the blocks of the page that have these bytes, or copy them."""
        source, packed = self._pool.find(slot)
        if packed == self._page_size:
            ctypes.memmove(buffer.address + offset + begin, source + begin, length)
        else:
            self._packer.unpack_part(source, packed, buffer.address + offset, begin, length)

    def take_reader(self) -> Reader:
        """One that no other thread has, until it is put back."""
        try:
            return self._readers.pop()
        except IndexError:
            return Reader(self._pool)

    def put_reader(self, reader: Reader) -> None:
        """Take a reader back that is not used any more."""
        self._readers.append(reader)

    def size(self, slot: int) -> int:
        """Whole quanta of the pool and a record of its table."""
        return self._pool.size(slot)

    def release(self, slot: int) -> None:
        """Free the slot's room in the pool."""
        self._pool.release(slot)

    def recover(self, slots: Iterable[int]) -> None:
        """Rebuild the pool's free space from its table."""
        self._pool.recover(slots)

    def trim(self) -> int:
        """Punch holes where the pool is free."""
        return self._pool.trim()

    def close(self) -> None:
        """Unmap the pool and free the codec. No other thread reads any more."""
        for reader in self._readers:
            reader.close()
        for packer in self._packers:
            packer.close()
        self._pool.close()
        self._packer.close()
