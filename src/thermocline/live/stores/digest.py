"""The checksum of what is stored: XXH3, which costs a hundredth of a copy to a disk and misses no flipped bit."""

from __future__ import annotations

import errno
from functools import cache
from types import ModuleType

from thermocline.errors import StoreError


@cache
def library() -> ModuleType:
    """The package ``xxhash``.

    Raises
    ------
    StoreError
        It is not there.
    """
    try:
        import xxhash
    except ImportError:
        raise StoreError(errno.ENOENT, "the checksums of pages need xxhash: pip install xxhash") from None
    return xxhash


def rotten(slot: int) -> StoreError:
    """The error of a page that came back changed from this slot."""
    return StoreError(errno.EBADMSG, f"slot {slot}: the bytes read are not those that were written")
