"""A pool: data of any length up to a page, packed into one piece of shared memory of fixed size.

The trouble with such a pool is that free space falls to pieces. zsmalloc (mm/zsmalloc.c) sorts objects into
size classes and wastes what is between two sizes; allocators that keep objects in one piece must slide them
together. Sliding is dear just where a full node lives: with 1.5 % of the pool free, a write of 20 KiB moves
300 KB in the mean and 20 MB at worst (measured, random sizes and releases). So data is cut instead: an item
takes the smallest hole that holds it, and where none does, the longest holes there are, chained. At 1.5 %
free an item is in two pieces in the mean and in six at worst, nothing ever moves, and every byte of the pool
can be used.

Layout of the shared memory, in 8-byte words of the machine's own order:

- the pool, in quanta. A piece begins with a word ``next piece << 24 | mark << 10 | quanta of this piece``; data
  follows. Pieces are named by their first quantum.
- the table, three words per slot: ``first piece << 24 | side << 23 | bytes of data``, or 0; and two checksums, of
  which the side says which one is the data's.

The table's first word is the commit. It is stored last, whole and aligned, into memory that a successor maps too;
until then the pieces are free space to everybody else, and until after that the pieces it replaces are not. So that
the checksum changes with it, the new one goes beside the old one.
There is nothing else to recover: all that this process keeps on its heap follows from the table.

Memory rots, too. What is found is held against its checksum, which is seeded with the number of the slot; the
checksum that does not count is 0, so that a word of the table which comes back from the past fits nothing either.
The mark of a piece ties its header to its place and to its slot. What this process has written to the table it knows
besides (`Ledger`), and believes the table in nothing else. What cannot be proven to be an item's is not freed with it:
one page's room must not be given to another. It is found again when the pool is full, as what nobody has.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
from collections.abc import Iterable

from thermocline.errors import StoreError
from thermocline.live.buffer import Buffer, address_of
from thermocline.live.libc import data_extents, fixed_memory, punch_hole
from thermocline.live.stores import digest
from thermocline.live.stores.holes import Holes
from thermocline.live.stores.ledger import ROTTEN, Ledger
from thermocline.live.stores.slots import Slots

WORD = 8
#: Bytes of the table for each slot.
RECORD = 3 * WORD
TRIM_PAGES = 1024  # base pages that one trim gives back: some 2 ms

_START_SHIFT = 24
_LENGTH_MASK = (1 << 23) - 1
_SIDE_SHIFT = 23
_QUANTA_BITS, _MARK_BITS = 10, 14
_QUANTA_MASK = (1 << _QUANTA_BITS) - 1
_WORD_MASK = (1 << 64) - 1
_BASE = mmap.PAGESIZE


class PoolRow(ctypes.Structure):
    """``struct tc_pool``: what native code needs to know of a pool to read from it."""

    _fields_ = (
        ("words", ctypes.c_uint64),
        ("table", ctypes.c_uint64),
        ("ledger", ctypes.c_uint64),
        ("slots", ctypes.c_uint64),
        ("quanta", ctypes.c_uint64),
        ("quantum", ctypes.c_uint32),
        ("page_size", ctypes.c_uint32),
        ("block", ctypes.c_uint32),
        ("scratch", ctypes.c_void_p),
        ("unpacker", ctypes.c_void_p),
        ("decompress", ctypes.c_void_p),
        ("get_items", ctypes.c_void_p),
    )


class Pool:
    """Keeps an item a slot in a memfd that :meth:`create` made.

    Parameters
    ----------
    fd : int
        The memfd. It stays open on :meth:`close`.
    capacity : int
        Bytes that items may be charged in all. Two things come on top in the kernel's count: the last base
        page of the pool, and 24 bytes for each slot that was in use at once at some time but is not now.
    most : int
        Bytes of the largest item.
    slots : int
        The most slots reserved at once.

    Attributes
    ----------
    most : int
        See above.
    item_bytes : int
        The most that an item can be charged: cut into single quanta, each with its word, and its words of the
        table.
    """

    def __init__(self, fd: int, capacity: int, most: int, slots: int) -> None:
        self._fd = fd
        self.most = most
        self._checksum = digest.library().xxh64_intdigest
        self._quantum = _quantum(most)
        self.item_bytes = worst_case(most)
        self._holes = Holes(capacity // self._quantum)
        self._slots = Slots(slots)
        self._ledger = Ledger(slots)
        self._lost = False  # whether room was let go that could not be told
        pool_bytes, table_bytes = _layout(capacity, slots)
        self._map = mmap.mmap(fd, pool_bytes + table_bytes)
        self._address = ctypes.addressof(ctypes.c_char.from_buffer(self._map))
        self._bytes = memoryview(self._map)
        self._words = self._bytes[:pool_bytes].cast("Q")
        self._table = self._bytes[pool_bytes:].cast("Q")
        self._touched = bytearray(pool_bytes // _BASE)  # a base page: 1 when it may hold memory
        self._scratch = Buffer(most)

    @staticmethod
    def create(name: str, capacity: int, slots: int) -> int:
        """A memfd of the right size that nobody can resize -> its descriptor.

        Raises
        ------
        OSError
            As memfd_create(2), ftruncate(2) and fcntl(2).
        """
        return fixed_memory(name, sum(_layout(capacity, slots)))

    def reserve(self) -> int:
        """An empty slot; StoreError (ENOSPC) when all are taken."""
        slot = self._slots.reserve()
        self._table[3 * slot] = 0  # a killed predecessor may have left something
        self._ledger.forget(slot)
        return slot

    def write(self, slot: int, data: memoryview) -> int:
        """Keep a copy of the data, at least one byte, in place of what the slot held -> bytes charged.

        Raises
        ------
        StoreError
            ENOSPC: the pool is full. The slot holds what it held.
        """
        length = len(data)
        pieces = self._take(length)
        done = charged = 0
        following = 0
        for start, quanta in reversed(pieces):
            self._words[start * self._quantum // WORD] = _header(slot, start, following, quanta)
            following = start
            charged += quanta
        for start, quanta in pieces:
            at, size = start * self._quantum, quanta * self._quantum
            part = min(size - WORD, length - done)
            self._bytes[at + WORD : at + WORD + part] = data[done : done + part]
            done += part
            first, last = at // _BASE, (at + size - 1) // _BASE + 1
            self._touched[first:last] = b"\1" * (last - first)
        record = 3 * slot
        before = self._ledger.entry(slot)
        side = 1 - (before >> _SIDE_SHIFT & 1)
        self._table[record + 1 + side] = self._checksum(data, slot)
        entry = pieces[0][0] << _START_SHIFT | side << _SIDE_SHIFT | length
        before_pieces = self._proven_pieces(slot) if before else []
        self._table[record] = entry  # the commit
        self._table[record + 2 - side] = 0
        self._ledger.note(slot, entry, charged, in_one=len(pieces) == 1)
        for start, quanta in before_pieces:
            self._holes.give(start, quanta)
        return charged * self._quantum + RECORD

    def find(self, slot: int) -> tuple[int, int]:
        """Where the data of a slot lies in one piece, until the next call -> address and bytes.

        Raises
        ------
        StoreError
            EIO: the slot holds nothing. EBADMSG: it holds other bytes than were written.
        """
        entry = self._ledger.entry(slot)
        if not entry:
            raise StoreError(errno.EIO, f"slot {slot} of the pool holds no page")
        if entry != self._table[3 * slot]:
            raise digest.rotten(slot)
        length = entry & _LENGTH_MASK
        if length > self.most:
            raise digest.rotten(slot)
        pieces = self._pieces(slot, entry)
        if len(pieces) == 1:
            at = pieces[0][0] * self._quantum + WORD
            address, data = self._address + at, self._bytes[at : at + length]
        else:
            done = 0
            for piece, quanta in pieces:
                part = min(quanta * self._quantum - WORD, length - done)
                at = piece * self._quantum + WORD
                self._scratch.view[done : done + part] = self._bytes[at : at + part]
                done += part
            address, data = self._scratch.address, self._scratch.view[:length]
        with data:  # released here: the traceback of an error would keep the pool from being unmapped
            checksum = self._checksum(data, slot)
        if checksum != self._table[3 * slot + 1 + (entry >> _SIDE_SHIFT & 1)]:
            raise digest.rotten(slot)
        return address, length

    def row(self) -> PoolRow:
        """What native code needs to know to find an item, as :meth:`find` does: but for scratch memory, and a codec."""
        return PoolRow(
            words=self._address,
            table=self._address + self._words.nbytes,
            ledger=address_of(self._ledger.entries),
            slots=self._slots.most,
            quanta=self._holes.quanta,
            quantum=self._quantum,
            page_size=self.most,
        )

    def size(self, slot: int) -> int:
        """Bytes charged for a reserved slot; `item_bytes` when it holds nothing.

        The table's words only where a successor could not tell the pieces: to him they are free.
        """
        if not self._ledger.entry(slot):
            return self.item_bytes
        return self._ledger.quanta(slot) * self._quantum + RECORD

    def release(self, slot: int) -> None:
        """Forget a slot and free its pieces."""
        pieces = self._proven_pieces(slot) if self._ledger.entry(slot) else []
        self._table[3 * slot] = 0
        self._ledger.forget(slot)
        for start, quanta in pieces:
            self._holes.give(start, quanta)
        self._slots.release(slot)

    def recover(self, slots: Iterable[int]) -> None:
        """Rebuild everything from the table: these slots are taken, and all else is free.

        An item that has rotted so that its pieces cannot be told is lost, and found to be when it is read. So is one
        that has rotted so that it has a piece in common with another: there, the checksum says which.

        Raises
        ------
        StoreError
            EIO: the pool has no such slots.
        """
        taken = list(slots)
        for slot in taken:
            if not 0 < slot <= self._slots.most:
                raise StoreError(errno.EIO, f"the pool has no slot {slot}")
        self._find_touched()
        self._ledger.clear()
        for slot in taken:
            entry = self._table[3 * slot]
            try:
                pieces = self._pieces(slot, entry)
            except StoreError:
                self._ledger.note(slot, ROTTEN, 0, in_one=True)
            else:
                quanta = sum(quanta for _, quanta in pieces)
                self._ledger.note(slot, entry, quanta, in_one=len(pieces) == 1)
        for slot in self._overlapping():
            if not self._is_proven(slot):
                self._ledger.note(slot, ROTTEN, 0, in_one=True)
        self._sweep()
        self._slots.recover(taken)

    def trim(self) -> int:
        """Give free base pages back to the kernel, at most `TRIM_PAGES` of them -> bytes."""
        left = TRIM_PAGES
        grown = self._holes.grown
        while grown and left:
            start = grown.pop()
            until = self._holes.end(start)
            end = until * self._quantum // _BASE if until < self._holes.quanta else len(self._touched)
            first = self._touched.find(1, -(-start * self._quantum // _BASE), end)
            if first < 0:
                continue
            last = self._touched.find(0, first, end)
            pages = min((end if last < 0 else last) - first, left)
            punch_hole(self._fd, first * _BASE, pages * _BASE)
            self._touched[first : first + pages] = bytes(pages)
            left -= pages
            grown.add(start)  # there may be more in it
        return (TRIM_PAGES - left) * _BASE

    def close(self) -> None:
        """Unmap the pool."""
        for view in (self._words, self._table, self._bytes):
            view.release()
        self._map.close()
        self._ledger.close()
        self._scratch.close()

    def _take(self, length: int) -> list[tuple[int, int]]:
        """Free pieces that hold `length` bytes together -> (start, quanta) of each; StoreError (ENOSPC)."""
        pieces: list[tuple[int, int]] = []
        whole = length
        while True:
            quanta = -(-(length + WORD) // self._quantum)
            start = self._holes.take(quanta)
            if start is not None:
                pieces.append((start, quanta))
                return pieces
            piece = self._holes.take_longest()
            if piece is None:
                for start, quanta in pieces:
                    self._holes.give(start, quanta)
                if self._lost:
                    self._sweep()
                    return self._take(whole)
                raise StoreError(errno.ENOSPC, "the pool is full")
            pieces.append(piece)
            length -= piece[1] * self._quantum - WORD

    def _proven_pieces(self, slot: int) -> list[tuple[int, int]]:
        """The pieces of an item that is let go; none, and the room counts as lost, where they cannot be told for sure.

        Where there is one piece the ledger says which. The links of more are in the pool, and may be old ones.
        """
        if self._ledger.in_one(slot):
            return self._in_one(slot)
        if self._is_proven(slot):
            return self._pieces(slot, self._ledger.entry(slot))
        self._lost = True
        return []

    def _in_one(self, slot: int) -> list[tuple[int, int]]:
        """The piece of an item that has but one; none when the item was lost."""
        quanta = self._ledger.quanta(slot)
        return [(self._ledger.entry(slot) >> _START_SHIFT, quanta)] if quanta else []

    def _is_proven(self, slot: int) -> bool:
        """Whether an item is what was written."""
        try:
            self.find(slot)
        except StoreError:
            return False
        return True

    def _sweep(self) -> None:
        """Find what is free: all that no item has."""
        pieces: list[tuple[int, int]] = []
        for slot in self._ledger.slots():
            if self._ledger.in_one(slot):
                pieces += self._in_one(slot)
            elif self._is_proven(slot):
                pieces += self._pieces(slot, self._ledger.entry(slot))
        used = (self._touched.rfind(1) + 1) * _BASE // self._quantum
        self._holes.rebuild(pieces, min(used, self._holes.quanta))
        self._lost = False

    def _overlapping(self) -> set[int]:
        """The slots of items that have a piece in common with another."""
        pieces = []
        for slot in self._ledger.slots():
            if self._ledger.entry(slot) != ROTTEN:
                pieces += [(*piece, slot) for piece in self._pieces(slot, self._ledger.entry(slot))]
        found = set()
        end = last = 0
        for start, quanta, slot in sorted(pieces):
            if start < end:
                found |= {last, slot}
            if start + quanta > end:
                end, last = start + quanta, slot
        return found

    def _pieces(self, slot: int, entry: int) -> list[tuple[int, int]]:
        """The (start, quanta) of each piece of an item; StoreError (EBADMSG) where they do not add up to it."""
        start, length = entry >> _START_SHIFT, entry & _LENGTH_MASK
        pieces = []
        while start < self._holes.quanta:
            word = self._words[start * self._quantum // WORD]
            quanta, following = word & _QUANTA_MASK, word >> _START_SHIFT
            if word != _header(slot, start, following, quanta):
                break
            pieces.append((start, quanta))
            least = -(-(length + WORD) // self._quantum)
            if quanta >= least:  # the last one: as long as is needed, and none follows
                if quanta > least or following or start + quanta > self._holes.quanta:
                    break
                return pieces
            length -= quanta * self._quantum - WORD
            start = following
        raise digest.rotten(slot)

    def _find_touched(self) -> None:
        """Ask the kernel which base pages hold memory."""
        self._touched[:] = bytes(len(self._touched))
        for begin, end in data_extents(self._fd, 0, len(self._touched) * _BASE):
            first, last = begin // _BASE, end // _BASE
            self._touched[first:last] = b"\1" * (last - first)


def worst_case(most: int) -> int:
    """Bytes that an item of so many is charged when each of its quanta is a piece."""
    quantum = _quantum(most)
    return -(-most // (quantum - WORD)) * quantum + RECORD


def _quantum(most: int) -> int:
    """The unit of room: small beside an item, so that rounding costs little, and never below a cache line."""
    return max(64, most // 256)


def _layout(capacity: int, slots: int) -> tuple[int, int]:
    """Bytes of the pool and of the table, each in whole base pages. Slots are counted from 1 on."""
    table = (slots + 1) * RECORD
    return -(-capacity // _BASE) * _BASE, -(-table // _BASE) * _BASE


def _header(slot: int, start: int, following: int, quanta: int) -> int:
    """The word that a piece begins with."""
    # Odd constants without a pattern (the golden ratio, and two of XXH64's): the top bits of the sum depend on every
    # bit of what goes in.
    mixed = (
        slot * 0x9E3779B97F4A7C15
        + start * 0xC2B2AE3D27D4EB4F
        + (following << _QUANTA_BITS | quanta) * 0x165667B19E3779F9
    )
    mark = (mixed & _WORD_MASK) >> (64 - _MARK_BITS)
    return following << _START_SHIFT | mark << _QUANTA_BITS | quanta
