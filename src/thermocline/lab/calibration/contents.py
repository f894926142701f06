"""What is in the pages that are stored."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from thermocline.live.buffer import Buffer

_SEED = 20


def random_walk(page_size: int) -> Iterator[bytes]:
    """Pages of numbers as instruments and simulations write them: a random walk, rounded to float32.

    Neighbours are alike and their last bits are noise, so a page packs, and not to nothing. Always the same pages.
    """
    random = np.random.default_rng(_SEED)
    at = 0.0
    while True:
        walk = at + random.standard_normal(page_size // 4).cumsum()
        at = float(walk[-1])
        yield walk.astype(np.float32).tobytes()


def buffer_of(pages: int, page_size: int) -> Buffer:
    """A buffer with so many of them."""
    buffer = Buffer(pages * page_size)
    for index, page in zip(range(pages), random_walk(page_size), strict=False):
        buffer.view[index * page_size : (index + 1) * page_size] = page
    return buffer
