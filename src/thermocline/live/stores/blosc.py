"""The codec: C-Blosc2's own library, called through ctypes.

The ``blosc2`` package brings the library and is never imported: its import takes 0.3 s and hundreds of
modules, and its Python layer copies what we want to leave in place. We use five functions of ``blosc2.h``.
Their parameter struct is passed by value, so its layout must be right: the major version is checked, and each
context packs a sample whose header must tell the parameters we meant, before it is trusted with a page.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import sys
from array import array
from collections.abc import Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from thermocline.errors import StoreError
from thermocline.live.buffer import Buffer
from thermocline.live.stores.filters import FILTERS, Filter
from thermocline.live.stores.pool import PoolRow
from thermocline.native import load

OVERHEAD = 32  # BLOSC2_MAX_OVERHEAD: what incompressible data may grow by

_CODECS = {"lz4": (1, 9), "zstd": (5, 1)}  # BLOSC_LZ4 at its densest, BLOSC_ZSTD at level 1
#: Bytes that are shuffled and packed as one, and so the least that can be unpacked: a part of a page is had for less
#: from small blocks. Of large ones a codec sees more at once: text packs 3.7 times for 3.3 in a page of 64 KiB, and a
#: matrix whose rows are alike, but longer than a small block, 3.9 times for 1.2.
BLOCK = 16 * 1024
_SPLIT = 4  # BLOSC_FORWARD_COMPAT_SPLIT: the bytes of numbers apart for fast codecs and whole numbers for others
_MAX_FILTERS = 6
_WIDTH_AT = 3  # where a packed page says of how many bytes its numbers are: `_Header.typesize`
_BLOCK_AT = 8  # and of how many its blocks: `_Header.blocksize`
_MAJORS = ("2", "3")


class _PackParameters(ctypes.Structure):
    """``blosc2_cparams``."""

    _fields_ = (
        ("compcode", ctypes.c_uint8),
        ("compcode_meta", ctypes.c_uint8),
        ("clevel", ctypes.c_uint8),
        ("use_dict", ctypes.c_int),
        ("typesize", ctypes.c_int32),
        ("nthreads", ctypes.c_int16),
        ("blocksize", ctypes.c_int32),
        ("splitmode", ctypes.c_int32),
        ("schunk", ctypes.c_void_p),
        ("filters", ctypes.c_uint8 * _MAX_FILTERS),
        ("filters_meta", ctypes.c_uint8 * _MAX_FILTERS),
        ("prefilter", ctypes.c_void_p),
        ("preparams", ctypes.c_void_p),
        ("tuner_params", ctypes.c_void_p),
        ("tuner_id", ctypes.c_int),
        ("instr_codec", ctypes.c_bool),
        ("codec_params", ctypes.c_void_p),
        ("filter_params", ctypes.c_void_p * _MAX_FILTERS),
    )


class _UnpackParameters(ctypes.Structure):
    """``blosc2_dparams``."""

    _fields_ = (
        ("nthreads", ctypes.c_int16),
        ("schunk", ctypes.c_void_p),
        ("postfilter", ctypes.c_void_p),
        ("postparams", ctypes.c_void_p),
        ("typesize", ctypes.c_int32),
    )


class _Header(ctypes.Structure):
    """What a packed page begins with (C-Blosc2, README_CHUNK_FORMAT.rst)."""

    _fields_ = (
        ("version", ctypes.c_uint8),
        ("versionlz", ctypes.c_uint8),
        ("flags", ctypes.c_uint8),
        ("typesize", ctypes.c_uint8),
        ("nbytes", ctypes.c_int32),
        ("blocksize", ctypes.c_int32),
        ("cbytes", ctypes.c_int32),
        ("filters", ctypes.c_uint8 * _MAX_FILTERS),
        ("rest", ctypes.c_uint8 * 10),
    )


@cache
def library() -> ctypes.CDLL:
    """C-Blosc2, loaded but not started.

    Raises
    ------
    StoreError
        It is not there, or of a version whose structs we do not know.
    """
    blosc = _load()
    blosc.blosc2_get_version_string.restype = ctypes.c_char_p
    version = blosc.blosc2_get_version_string().decode()
    if version.partition(".")[0] not in _MAJORS:
        raise StoreError(
            errno.ENOTSUP,
            f"compressed memory needs C-Blosc2 2.x or 3.x, not {version}; pip install -U blosc2",
        )
    pointer, length = ctypes.c_void_p, ctypes.c_int32
    blosc.blosc2_create_cctx.argtypes = (_PackParameters,)
    blosc.blosc2_create_cctx.restype = pointer
    blosc.blosc2_create_dctx.argtypes = (_UnpackParameters,)
    blosc.blosc2_create_dctx.restype = pointer
    blosc.blosc2_free_ctx.argtypes = (pointer,)
    blosc.blosc2_free_ctx.restype = None
    blosc.blosc2_compress_ctx.argtypes = (pointer, pointer, length, pointer, length)
    blosc.blosc2_decompress_ctx.argtypes = (pointer, pointer, length, pointer, length)
    blosc.blosc2_getitem_ctx.argtypes = (pointer, pointer, length, ctypes.c_int, ctypes.c_int, pointer, length)
    return blosc


def _load() -> ctypes.CDLL:
    package = find_spec("blosc2")
    if package is None or not package.submodule_search_locations:
        raise StoreError(errno.ENOENT, "compressed memory needs blosc2: pip install blosc2")
    folder = Path(package.submodule_search_locations[0])
    # Where wheels of 4.x, of 3.x and of 2.x put it, and conda.
    places = [folder / "lib", folder.parent / "lib64", Path(sys.prefix, "lib64"), Path(sys.prefix, "lib")]
    for place in places:
        loaded = load(str(place / "libblosc2.so"))
        if not isinstance(loaded, str):
            return loaded
    raise StoreError(
        errno.ENOENT, f"compressed memory needs libblosc2.so, and {folder} has none; pip install -U blosc2"
    )


def compressor() -> int | None:
    """Where the function is that packs (``blosc2_compress_ctx``)."""
    return ctypes.cast(library().blosc2_compress_ctx, ctypes.c_void_p).value


class Unpacker:
    """Unpacks pages, whatever they were packed with, for one thread at a time.

    Parameters
    ----------
    page_size : int
        Bytes.
    """

    def __init__(self, page_size: int) -> None:
        self._page_size = page_size
        self._blosc = library()
        self._blosc.blosc2_init()
        with _own_environment():
            self._unpacker = self._blosc.blosc2_create_dctx(_UnpackParameters(nthreads=1, typesize=1))

    def unpack(self, source: int, length: int, target: int) -> None:
        """Unpack `length` bytes into the page at an address.

        Raises
        ------
        StoreError
            EIO: they are not a packed page.
        """
        size = self._blosc.blosc2_decompress_ctx(self._unpacker, source, length, target, self._page_size)
        if size != self._page_size:
            raise StoreError(errno.EIO, f"a compressed page does not unpack (C-Blosc2 error {size})")

    def unpack_part(self, source: int, length: int, page: int, begin: int, size: int) -> None:
        """Unpack the blocks of a page that have `size` bytes from its byte `begin` on, to their places in the page.

        Whole blocks only: asked for as many bytes as a block has, the library takes them for one, wherever they begin.

        Raises
        ------
        StoreError
            EIO: `length` bytes at the source are not a packed page.
        """
        width = ctypes.c_uint8.from_address(source + _WIDTH_AT).value
        block = ctypes.c_int32.from_address(source + _BLOCK_AT).value
        got = -1
        if width and block in (BLOCK, self._page_size) and not block % width:
            first = begin - begin % block
            size += begin - first
            size += -size % block
            got = self._blosc.blosc2_getitem_ctx(
                self._unpacker, source, length, first // width, size // width, page + first, size
            )
        if got != size:
            raise StoreError(errno.EIO, f"a part of a compressed page does not unpack (C-Blosc2 error {got})")

    def describe(self, row: PoolRow) -> None:
        """Write down how native code unpacks."""
        row.block = min(self._page_size, BLOCK)
        row.unpacker = self._unpacker
        row.decompress = ctypes.cast(self._blosc.blosc2_decompress_ctx, ctypes.c_void_p).value
        row.get_items = ctypes.cast(self._blosc.blosc2_getitem_ctx, ctypes.c_void_p).value

    def close(self) -> None:
        """Free the context."""
        self._blosc.blosc2_free_ctx(self._unpacker)
        self._unpacker = None


class Codec(Unpacker):
    """Packs pages with one codec under any of the `FILTERS`, for one thread at a time.

    Parameters
    ----------
    name : str
        ``"lz4"`` or ``"zstd"``.
    page_size : int
        Bytes.
    block : int
        Bytes of a page that are packed as one, unless the page is smaller: `BLOCK`, or all of it.

    Raises
    ------
    StoreError
        The library is missing or is not what we know.
    """

    def __init__(self, name: str, page_size: int, block: int = BLOCK) -> None:
        super().__init__(page_size)
        self._block = min(page_size, block)
        with _own_environment():
            self._packers = [self._packer(name, each) for each in FILTERS]
        self._prove(name)

    def pack(self, which: int, source: int, target: int, limit: int) -> int:
        """Pack the page at an address under a filter -> bytes at the target, or 0 when that is too many.

        Parameters
        ----------
        which : int
            An index of `FILTERS`.
        source, target : int
            Addresses.
        limit : int
            Bytes that may be written to the target, at least `OVERHEAD`.
        """
        size: int = self._blosc.blosc2_compress_ctx(self._packers[which], source, self._page_size, target, limit)
        return max(size, 0)  # an error means that the page is kept as it is, which is never wrong

    def context(self, which: int) -> int:
        """What native code packs with under a filter, an index of `FILTERS`: a ``blosc2_context``."""
        return self._packers[which]

    def close(self) -> None:
        """Free the contexts."""
        super().close()
        for context in self._packers:
            self._blosc.blosc2_free_ctx(context)
        self._packers.clear()

    def _packer(self, name: str, each: Filter) -> int:
        code, level = _CODECS[name]
        wanted = _PackParameters(
            compcode=code,
            clevel=level,
            typesize=each.width,
            nthreads=1,
            blocksize=self._block,
            splitmode=_SPLIT,
        )
        wanted.filters[_MAX_FILTERS - 1] = each.shuffle
        context: int | None = self._blosc.blosc2_create_cctx(wanted)
        if not context:
            raise StoreError(errno.ENOTSUP, f"this blosc2 has no {name}; pip install -U blosc2")
        return context

    def _prove(self, name: str) -> None:
        """Pack and unpack a sample with every filter, and read what the library understood in between."""
        page = Buffer(self._page_size)
        packed = Buffer(self._page_size + OVERHEAD)
        sound = False
        try:
            # No stretch of it is like another.
            sample = array("Q", (number // 64 for number in range(self._page_size // 8))).tobytes()
            for which, each in enumerate(FILTERS):
                page.view[:] = sample
                length = self.pack(which, page.address, packed.address, packed.size)
                header = _Header.from_buffer_copy(packed.view[:OVERHEAD])
                understood = (header.typesize, header.nbytes, header.blocksize, bytes(header.filters)[-1])
                meant = (each.width, self._page_size, self._block, each.shuffle)
                page.view[:] = bytes(page.size)
                if length:
                    stretch = slice(self._block // 2, min(self._block // 2 + self._block, self._page_size))
                    # First what is asked for least: a stretch of a block's length across the border of two.
                    self.unpack_part(packed.address, length, page.address, stretch.start, stretch.stop - stretch.start)
                    sound = bytes(page.view[stretch]) == sample[stretch]
                    self.unpack(packed.address, length, page.address)
                if understood != meant or not 0 < length < page.size or page.view != sample or not sound:
                    raise StoreError(
                        errno.ENOTSUP,
                        f"the {name} of this blosc2 is not the one we know; pip install -U blosc2 thermocline",
                    )
        finally:
            page.close()
            packed.close()


@contextlib.contextmanager
def _own_environment() -> Iterator[None]:
    """Hide ``BLOSC_NTHREADS`` and the like, which the library obeys when it makes a context.

    What a user sets for arrays of his own is not meant for us.
    """
    hidden = {name: os.environ.pop(name) for name in list(os.environ) if name.startswith("BLOSC_")}
    try:
        yield
    finally:
        os.environ.update(hidden)
