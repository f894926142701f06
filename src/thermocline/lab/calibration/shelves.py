"""The stores: what a page takes to write and to read, and how much room it takes there."""

from __future__ import annotations

import errno
import os
import random
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager

from thermocline.errors import StoreError
from thermocline.lab.calibration.contents import buffer_of
from thermocline.lab.calibration.samples import Samples
from thermocline.live.buffer import Buffer
from thermocline.live.stores import STORES, Store
from thermocline.spec import Codec, Compressed, File
from thermocline.virtual.costs import StoreCosts

#: Pages of these sizes are stored. The ratio is that of the last.
_PAGE_SIZES = (4 << 10, 64 << 10)
#: Pages that are written, and read in another order, at a time.
_PAGES = 64

_clock = time.perf_counter_ns


def compressed(codec: Codec, rounds: int) -> StoreCosts:
    """The costs of compressed memory, for pages of numbers (see `random_walk`)."""
    return _measure(lambda page_size: Compressed(2 * _PAGES * page_size, codec), rounds)


def file(directory: str, rounds: int) -> StoreCosts:
    """The costs of a file in a directory, in which nothing is left; past the page cache, if its filesystem can.

    Raises
    ------
    StoreError
        The directory takes no file.
    """
    return _measure(lambda page_size: File(directory, _PAGES * page_size), rounds)


def _measure(spec: Callable[[int], Compressed | File], rounds: int) -> StoreCosts:
    read, write = Samples(), Samples()
    for page_size in _PAGE_SIZES:
        with _store(spec(page_size), page_size) as store:
            ratio = _use(store, page_size, rounds, read, write)
    return StoreCosts(read.cost(), write.cost(), round(ratio, 3))


def _use(store: Store, page_size: int, rounds: int, read: Samples, write: Samples) -> float:
    """Write pages and read them again, several times -> bytes of a page for each byte that it takes there.

    What was written is released and its room used again, as it is where pages come and go.
    """
    order = random.Random(0)
    pages, page = buffer_of(_PAGES, page_size), Buffer(page_size)
    with closing(pages), closing(page):
        for _ in range(rounds):
            slots = []
            for index in range(_PAGES):
                slots.append(store.reserve())
                begun = _clock()
                store.write(slots[index], pages, index * page_size)
                write.add(_clock() - begun, page_size)
            for index in order.sample(range(_PAGES), _PAGES):
                begun = _clock()
                store.read(slots[index], page, 0)
                read.add(_clock() - begun, page_size)
                if page.view != pages.view[index * page_size : (index + 1) * page_size]:
                    raise StoreError(errno.EIO, "a page that was written came back as another")
            taken = sum(store.size(slot) for slot in slots)
            for slot in slots:
                store.release(slot)
    return _PAGES * page_size / taken


@contextmanager
def _store(spec: Compressed | File, page_size: int) -> Iterator[Store]:
    kind = STORES[type(spec)]
    descriptors = kind.create(spec, page_size, _PAGES)
    try:
        with closing(kind(descriptors, spec, page_size, _PAGES)) as store:
            yield store
    finally:
        for fd in descriptors:
            os.close(fd)
