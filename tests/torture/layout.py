"""What a store holds of each page, field by field: what damage may be done to, and whose page it would be.

It is said here once more and independently of the stores, as far as that goes: from the layouts that the docstrings of
`pool` and `seals` give.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from dataclasses import dataclass

from thermocline.live.stores.pool import RECORD, WORD

#: The bytes of a store by name: "store" is the file or the pool with its table, "seals" what belongs to a file.
Images = dict[str, bytearray]
#: A page of the workload: the array, and the page of that.
Page = tuple[int, int]

KEY, COUNT, TAG = 32, 6, 16


@dataclass(frozen=True)
class Field:
    """A stretch of bytes that says something of pages.

    Attributes
    ----------
    counts : bool
        Whether each bit of it matters, so that its page is refused when one has changed.
    """

    name: str
    pages: tuple[Page, ...]
    image: str
    start: int
    length: int
    counts: bool = True

    def of(self, images: Images) -> bytes:
        """Its bytes; fewer when they have been cut off."""
        return bytes(images[self.image][self.start : self.start + self.length])


def file_fields(slots: dict[Page, int], page_size: int, *, encrypted: bool) -> Iterator[Field]:
    """Of a file and its seals: a page a slot; a key; three words a slot."""
    yield Field("key", tuple(slots) if encrypted else (), "seals", 0, KEY, counts=False)
    for page, slot in slots.items():
        record = mmap.PAGESIZE + 3 * WORD * slot
        yield Field("page", (page,), "store", (slot - 1) * page_size, page_size)
        yield Field("count", (page,), "seals", record, COUNT, counts=encrypted)
        yield Field("rest of count", (page,), "seals", record + COUNT, WORD - COUNT, counts=False)
        yield Field("tag", (page,), "seals", record + WORD, TAG)
        yield Field("record", (page,), "seals", record, 3 * WORD, counts=False)


def pool_fields(slots: dict[Page, int], page_size: int, capacity: int, images: Images) -> Iterator[Field]:
    """Of a pool: pieces that begin with a word, and three words a slot."""
    quantum = max(64, page_size // 256)
    table = -(-capacity // mmap.PAGESIZE) * mmap.PAGESIZE
    for page, slot in slots.items():
        at = table + RECORD * slot
        entry = _word(images, at)
        start, side, length = entry >> 24, entry >> 23 & 1, entry & (1 << 23) - 1
        yield Field("entry", (page,), "store", at, WORD)
        yield Field("checksum", (page,), "store", at + WORD + side * WORD, WORD)
        yield Field("other checksum", (page,), "store", at + 2 * WORD - side * WORD, WORD, counts=False)
        yield Field("record", (page,), "store", at, RECORD, counts=False)
        name = ""
        while length:
            header = _word(images, start * quantum)
            size = (header & 1023) * quantum - WORD
            part = min(size, length)
            yield Field(f"{name}header", (page,), "store", start * quantum, WORD)
            yield Field(f"{name}data", (page,), "store", start * quantum + WORD, part)
            if part < size:
                yield Field("slack", (page,), "store", start * quantum + WORD + part, size - part, counts=False)
            start, length = header >> 24, length - part
            name = "next piece's "


def _word(images: Images, at: int) -> int:
    return int.from_bytes(images["store"][at : at + WORD], "little")
