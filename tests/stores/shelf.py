"""A store with the descriptors under it, and its caller's side of the bargain: books of room and of contents."""

from __future__ import annotations

import os
import random
from collections.abc import Iterable
from typing import Any

from thermocline.live.buffer import Buffer
from thermocline.live.stores import STORES, NodeStore
from thermocline.spec import Compressed


def page(seed: int, page_size: int) -> bytes:
    """A page that is unlike those of other seeds, and packs anywhere from not at all to very well."""
    dice = random.Random(seed)
    noise = dice.choice((0, 8, page_size // 8, page_size // 3, page_size // 2, page_size))
    return seed.to_bytes(8, "little") + dice.randbytes(page_size - 8 if noise == page_size else noise).ljust(
        page_size - 8, b"\7"
    )


class Shelf:
    """Keeps pages in a store as a node does: a slot is reserved only when its worst case fits."""

    def __init__(self, spec: Any, page_size: int, pages: int = 1 << 12) -> None:
        self.spec, self.page_size, self.pages = spec, page_size, pages
        self.kind = STORES[type(spec)]
        self.descriptors = self.kind.create(spec, page_size, pages)
        self.buffer = Buffer(2 * page_size)
        self.charged: dict[int, int] = {}
        self.store = self.open()

    def open(self) -> NodeStore[Any]:
        """Another store over the same descriptors."""
        return self.kind(self.descriptors, self.spec, self.page_size, self.pages)

    def succeed(self, slots: Iterable[int]) -> None:
        """Replace the store by one that finds exactly these slots."""
        self.store.close()
        self.store = self.open()
        self.store.recover(iter(slots))
        self.charged = {slot: self.store.size(slot) for slot in slots}

    @property
    def used(self) -> int:
        return sum(self.charged.values())

    @property
    def has_room(self) -> bool:
        return self.used + self.store.slot_bytes <= self.spec.capacity

    def reserve(self) -> int:
        assert self.has_room
        slot = self.store.reserve()
        assert slot not in self.charged
        self.charged[slot] = self.store.size(slot)
        return slot

    def write(self, slot: int, content: bytes, hint: int = 0) -> int:
        self.buffer.view[self.page_size :] = content
        charged = self.store.write(slot, self.buffer, self.page_size, hint)
        assert 0 < charged <= self.store.slot_bytes
        assert charged == self.store.size(slot)
        self.charged[slot] = charged
        return charged

    def put(self, content: bytes, hint: int = 0) -> int:
        slot = self.reserve()
        self.write(slot, content, hint)
        return slot

    def get(self, slot: int) -> bytes:
        self.buffer.view[: self.page_size] = b"\xa5" * self.page_size
        self.store.read(slot, self.buffer, 0)
        return bytes(self.buffer.view[: self.page_size])

    def drop(self, slot: int) -> None:
        del self.charged[slot]
        self.store.release(slot)

    def fill(self, seed: int) -> dict[int, bytes]:
        """Put pages until there is no room -> what was put."""
        put = {}
        while self.has_room:
            seed += 1
            content = page(seed, self.page_size)
            put[self.put(content, seed % 3)] = content
        return put

    def trim(self) -> int:
        total = 0
        while returned := self.store.trim():
            total += returned
        return total

    @property
    def blocks(self) -> int:
        """Bytes the kernel holds for the descriptors."""
        return sum(os.fstat(fd).st_blocks * 512 for fd in self.descriptors)

    @property
    def exact(self) -> bool:
        """Whether the kernel counts pages of ours only, and no blocks in which a filesystem notes where they are."""
        return isinstance(self.spec, Compressed)

    def close(self) -> None:
        self.store.close()
        self.buffer.close()
        for fd in self.descriptors:
            os.close(fd)
