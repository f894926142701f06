"""Seals: what proves that the bytes read from a slot are those that were written to it last.

A disk that returns wrong bytes says nothing. So each slot of a file has a record that never goes there: it is in a
memfd, which outlives the process that writes it, and vanishes with the last descriptor. The record is of the slot's
newest write. So it does not fit what was flipped, nor another slot's page, nor what the slot held before.

There are two kinds. `Ciphers` encrypt the page as well (AES-256-GCM): the record holds the tag, and what the nonce was
made from. `Digests` only hash it (XXH3, 128 bits), for those who say ``encrypt=off``.

Layout of the memfd, in 8-byte words of the machine's own order: a base page that begins with the key, then a record of
three words a slot: how often it was written, and the two words of its tag.

No lock is needed. Nobody but the writer of a slot touches its record, and a slot has one at a time. A kill between two
words leaves a record that fits nothing, of a slot that nobody has named yet.
"""

from __future__ import annotations

import errno
import mmap
import os
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable
from importlib.util import find_spec

from thermocline.errors import StoreError
from thermocline.live.buffer import Buffer
from thermocline.live.libc import fixed_memory
from thermocline.live.stores import digest

_WORD = 8
#: Words of a record.
_RECORD = 3
_HEADER_BYTES = mmap.PAGESIZE
_KEY_BYTES, _TAG_BYTES = 32, 16
#: Bytes of a nonce that number the slot, and bytes that number the write: 2**48 writes of one slot take some decades.
_NUMBER_BYTES = 6
_MOST = (1 << 8 * _NUMBER_BYTES) - 1


class Seals(ABC):
    """The records of a file's slots.

    Parameters
    ----------
    fd : int
        What :meth:`create` made. It stays open on :meth:`close`.
    slots : int
        The largest number of a slot.
    """

    def __init__(self, fd: int, slots: int) -> None:
        self._map = mmap.mmap(fd, _memory_bytes(slots))
        self._bytes = memoryview(self._map)
        self._records = self._bytes[_HEADER_BYTES:].cast("Q")

    @staticmethod
    def create(slots: int) -> int:
        """A memfd with a fresh key and no records -> its descriptor.

        Raises
        ------
        OSError
            As memfd_create(2), ftruncate(2), fcntl(2) and pwrite(2).
        """
        fd = fixed_memory("thermocline-seals", _memory_bytes(slots))
        try:
            os.pwrite(fd, os.urandom(_KEY_BYTES), 0)
        except OSError:
            os.close(fd)
            raise
        return fd

    @abstractmethod
    def write(self, slot: int, page: memoryview, put: Callable[[memoryview], None]) -> None:
        """Record a page, and `put` the bytes that go to its slot: as many, and as well aligned."""

    @abstractmethod
    def read(self, slot: int, page: memoryview, get: Callable[[memoryview], None]) -> None:
        """Let `get` fill memory with the bytes of a slot, and the page with what was written.

        Raises
        ------
        StoreError
            EBADMSG: they are not the bytes that were put there last.
        """

    def close(self) -> None:
        """Unmap the records."""
        self._records.release()
        self._bytes.release()
        self._map.close()

    def _count_write(self, slot: int) -> int:
        """Note that a slot is written -> how often it was, this time included.

        Noted before anything is done with the number: whoever is killed has used it up. The record may have rotted to
        any number at all, and then it is to cost the page that it was of, and not whoever counts on from it.
        """
        count = (self._records[_RECORD * slot] & _MOST) + 1 & _MOST
        self._records[_RECORD * slot] = count
        return count

    def _tag(self, slot: int) -> memoryview:
        at = _HEADER_BYTES + (_RECORD * slot + 1) * _WORD
        return self._bytes[at : at + _TAG_BYTES]


class Digests(Seals):
    """Hashes pages and leaves them as they are."""

    def __init__(self, fd: int, slots: int) -> None:
        super().__init__(fd, slots)
        self._digest = digest.library().xxh3_128_digest

    def write(self, slot: int, page: memoryview, put: Callable[[memoryview], None]) -> None:
        """Hash the page, and put it."""
        self._count_write(slot)
        self._tag(slot)[:] = self._digest(page, slot)
        put(page)

    def read(self, slot: int, page: memoryview, get: Callable[[memoryview], None]) -> None:
        """Get the page, and hash it."""
        get(page)
        if self._digest(page, slot) != self._tag(slot):
            raise digest.rotten(slot)


class Ciphers(Seals):
    """Encrypts pages with AES-256-GCM, under a key that is nowhere but in the memfd.

    A nonce must never be used twice with a key. Ours is the number of the slot and of the write to it, so it differs
    from those of all other slots and of all other writes to this one, whichever process made them. It also ties the
    tag to the slot: no other slot's nonce makes it fit.
    """

    def __init__(self, fd: int, slots: int) -> None:
        super().__init__(fd, slots)
        # Here and not above: 12 ms that the program, which makes no seals, need not wait.
        from cryptography.exceptions import InvalidTag
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        self._mismatch = InvalidTag
        self._cipher = AESGCM(bytes(self._bytes[:_KEY_BYTES]))
        self._in_place = hasattr(self._cipher, "encrypt_into")
        #: Room for an encrypted page with its tag, for each thread that is busy with one.
        self._scratch: deque[Buffer] = deque()

    @staticmethod
    def check() -> None:
        """StoreError where the library is missing; it is looked for and not loaded."""
        if find_spec("cryptography") is None:
            raise StoreError(
                errno.ENOENT, "encryption needs cryptography: pip install cryptography, or write encrypt=off"
            )

    def write(self, slot: int, page: memoryview, put: Callable[[memoryview], None]) -> None:
        """Encrypt the page, and put that."""
        scratch = self._take(len(page))
        try:
            sealed = scratch.view[: len(page) + _TAG_BYTES]
            nonce = _nonce(slot, self._count_write(slot))
            if self._in_place:
                self._cipher.encrypt_into(nonce, page, None, sealed)
            else:
                sealed[:] = self._cipher.encrypt(nonce, page, None)
            self._tag(slot)[:] = sealed[len(page) :]
            put(sealed[: len(page)])
        finally:
            self._scratch.append(scratch)

    def read(self, slot: int, page: memoryview, get: Callable[[memoryview], None]) -> None:
        """Get the encrypted page, and decrypt it."""
        scratch = self._take(len(page))
        try:
            sealed = scratch.view[: len(page) + _TAG_BYTES]
            get(sealed[: len(page)])
            sealed[len(page) :] = self._tag(slot)
            nonce = _nonce(slot, self._records[_RECORD * slot])
            if self._in_place:
                self._cipher.decrypt_into(nonce, sealed, None, page)
            else:
                page[:] = self._cipher.decrypt(nonce, sealed, None)
        except self._mismatch:
            raise digest.rotten(slot) from None
        finally:
            self._scratch.append(scratch)

    def close(self) -> None:
        """Free the scratch memory as well."""
        while self._scratch:
            self._scratch.pop().close()
        super().close()

    def _take(self, page_size: int) -> Buffer:
        try:
            return self._scratch.pop()
        except IndexError:
            return Buffer(page_size + _TAG_BYTES)


def _nonce(slot: int, count: int) -> bytes:
    return slot.to_bytes(_NUMBER_BYTES, "little") + (count & _MOST).to_bytes(_NUMBER_BYTES, "little")


def _memory_bytes(slots: int) -> int:
    """Bytes of the memfd. Slots are counted from 1 on."""
    records = (slots + 1) * _RECORD * _WORD
    return _HEADER_BYTES + -(-records // mmap.PAGESIZE) * mmap.PAGESIZE
