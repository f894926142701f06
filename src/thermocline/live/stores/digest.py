"""The checksums of what is stored, which miss no flipped bit.

XXH3 costs a hundredth of a copy to a disk. In compressed memory it is XXH64, which the native library computes as well
(``native/digest.c``).
"""

from __future__ import annotations

import errno
from functools import cache
from importlib.util import find_spec
from types import ModuleType

from thermocline.errors import StoreError


@cache
def library() -> ModuleType:
    """The package ``xxhash``: the helpers use it."""
    import xxhash

    return xxhash


def check() -> None:
    """See whether it is there, without importing it: the program would have a module that it never asked for.

    Raises
    ------
    StoreError
        It is not.
    """
    if find_spec("xxhash") is None:
        raise StoreError(errno.ENOENT, "the checksums of pages need xxhash: pip install xxhash")


def rotten(slot: int) -> StoreError:
    """The error of a page that came back changed from this slot."""
    return StoreError(errno.EBADMSG, f"slot {slot}: the bytes read are not those that were written")
