"""What the arrays hold, such that each word can be checked without a copy of them.

A few blocks of a kind are made beforehand and repeated. The first word of each 4 KiB says which of them it is, so that
no two places are alike, and a page that is in the wrong place is found.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

#: Words of a block, and of the stretch whose first word is its number.
BLOCK, STRETCH = 1 << 17, 512
#: Blocks that are repeated.
BLOCKS = 4
KINDS = ("float32", "int64", "text", "random")


class WrongError(Exception):
    """What came back is not what was written. This ends the suite: it is no figure."""


def check(right: object, what: str) -> None:
    """WrongError unless it is so."""
    if not right:
        raise WrongError(what)


class Contents:
    """Contents of one kind, as words of 64 bits."""

    def __init__(self, kind: str) -> None:
        random = np.random.default_rng(KINDS.index(kind))
        words = BLOCK * BLOCKS
        if kind == "float32":
            made = np.cumsum(random.normal(size=2 * words)).astype("f4").view("u8")
        elif kind == "int64":
            made = random.integers(0, 10**6, words).astype("u8")
        elif kind == "text":
            sources = sorted(Path(os.__file__).parent.rglob("*.py"))
            text = b"".join(path.read_bytes() for path in sources[:400])
            made = np.frombuffer((text * (8 * words // len(text) + 1))[: 8 * words], "u8")
        else:
            made = random.integers(0, 1 << 64, words, dtype="u8")
        self._blocks = made.reshape(BLOCKS, BLOCK)

    def write(self, array: np.ndarray, block: int) -> None:
        """Put a block where it belongs."""
        begin = block * BLOCK
        array[begin : begin + BLOCK] = self._blocks[block % BLOCKS]
        array[begin : begin + BLOCK : STRETCH] = np.arange(begin // STRETCH, (begin + BLOCK) // STRETCH)

    def at(self, places: np.ndarray) -> np.ndarray:
        """What is right at these words."""
        blocks, within = np.divmod(places, BLOCK)
        numbers = (places // STRETCH).astype("u8")  # beside signed ones, NumPy would make all of it floating point
        return np.where(places % STRETCH == 0, numbers, self._blocks[blocks % BLOCKS, within])

    def sum(self, block: int) -> int:
        """The sum of a block, modulo 2**64."""
        begin = block * BLOCK
        right = self._blocks[block % BLOCKS]
        numbers = np.arange(begin // STRETCH, (begin + BLOCK) // STRETCH, dtype="u8")
        with np.errstate(over="ignore"):
            return int(right.sum() - right[::STRETCH].sum() + numbers.sum())
