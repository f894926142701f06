"""Making arrays in tiered memory: what a :class:`~thermocline.Memory` and its groups have in common.

The arrays are ordinary ``numpy.ndarray``. What is not ordinary is their buffer: a ctypes array over addresses of the
arena, which gives its block back when the last array that looks at it is gone.
"""

from __future__ import annotations

import ctypes
import math
import os
import stat
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from thermocline.errors import ClosedError, OutOfMemory, SpecError
from thermocline.live.address_space import address_space
from thermocline.live.regions import CLOSED, DECLINED, Regions
from thermocline.sizes import format_size, parse_size

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, DTypeLike, NDArray

    Shape = int | Sequence[int]

#: Arrays below this many bytes stay in ordinary memory under :meth:`Arrays.numpy`.
DEFAULT_MIN_ARRAY = 1 << 20


class Arrays:
    """Makes arrays whose pages are charged to one group of a memory."""

    def __init__(self, regions: Regions, group: int) -> None:
        self._regions = regions
        self._group = group

    def empty(self, shape: Shape, dtype: DTypeLike = float) -> NDArray[Any]:
        """An array of zeros; `zeros` by the name for those who do not care.

        Parameters
        ----------
        shape : int or tuple of int
        dtype : data-type
            Anything but Python objects.

        Raises
        ------
        OutOfMemory
            (a MemoryError) The nodes cannot hold it in the worst case. Nothing has been touched.
        """
        return self._make(shape, dtype)

    zeros = empty

    def full(self, shape: Shape, fill_value: ArrayLike, dtype: DTypeLike | None = None) -> NDArray[Any]:
        """An array of one value, of the value's own type unless ``dtype`` says otherwise."""
        import numpy as np

        made = self._make(shape, np.asarray(fill_value).dtype if dtype is None else dtype)
        made[...] = fill_value
        return made

    def array(self, values: ArrayLike, dtype: DTypeLike | None = None) -> NDArray[Any]:
        """A copy of an array, or of what can be made one."""
        import numpy as np

        given = np.asarray(values, dtype=dtype)
        made = self._make(given.shape, given.dtype)
        made[...] = given
        return made

    def from_file(
        self,
        file: str | os.PathLike[str],
        dtype: DTypeLike = float,
        shape: Shape | None = None,
        offset: int = 0,
    ) -> NDArray[Any]:
        """An array of a file's bytes, read when they are touched. Writing to it never changes the file.

        Parameters
        ----------
        shape : int or tuple of int, optional
            Whatever the rest of the file holds, in one dimension, if not given.
        offset : int
            Bytes of the file to skip.

        Raises
        ------
        SpecError
            The file is shorter than that.
        """
        import numpy as np

        kind = np.dtype(dtype)
        if offset < 0:
            raise SpecError(f"offset is {offset}; write 0 or more bytes to skip")
        fd = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
        try:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise SpecError(f"{os.fspath(file)} is not a regular file; only those can be read at any place")
            there = max(os.fstat(fd).st_size - offset, 0)
            if shape is None:
                shape = there // kind.itemsize
            needed = _count(shape) * kind.itemsize
            if needed > there:
                raise SpecError(
                    f"{os.fspath(file)} holds {there} bytes from byte {offset} on, an array of this shape takes "
                    f"{needed}; give a smaller shape"
                )
            source = self._regions.add_source(fd, offset, needed)
        finally:
            os.close(fd)
        try:
            return self._make(shape, kind, source)
        except BaseException:
            self._regions.drop_source(source)
            raise

    @contextmanager
    def numpy(self, min_array: int | str = DEFAULT_MIN_ARRAY) -> Iterator[None]:
        """While this context is open, every large array that NumPy makes, for anybody in the process, is made here.

        Parameters
        ----------
        min_array : int or str
            Bytes from which on an array is large.
        """
        from thermocline import numpy_allocator

        if not self._regions.usable:
            raise ClosedError(CLOSED)
        threshold = parse_size(min_array)
        if threshold < 1:
            raise SpecError("min_array is 0 bytes; write a positive size, such as 1MiB")
        blocks = _blocks_of(self._regions)
        with blocks.charged_to(self._group), numpy_allocator.tiered(blocks, threshold):
            yield

    def _make(self, shape: Shape, dtype: DTypeLike, source: int = 0) -> NDArray[Any]:
        import numpy as np

        kind = np.dtype(dtype)
        if kind.hasobject:
            raise SpecError("an array of Python objects cannot be tiered: its bytes are addresses; use a numeric dtype")
        size = _count(shape) * kind.itemsize
        return np.ndarray(shape, kind, buffer=memoryview(self._buffer(size, source)))

    def _buffer(self, size: int, source: int) -> ctypes.Array[ctypes.c_char]:
        regions = self._regions
        address = regions.allocate_block(size, self._group, source)
        if address == DECLINED:
            raise ClosedError(f"{CLOSED} (or an array was made inside the making of another)")
        if address == 0:
            raise OutOfMemory(
                f"{format_size(size)} more do not fit: {format_size(regions.commitment.committed * regions.page_size)} "
                f"of {format_size(regions.commitment.limit * regions.page_size)} are committed (worst case, nothing "
                "compresses); free arrays, or give the last node more"
            )
        held = (ctypes.c_char * max(size, 1)).from_address(address)
        weakref.finalize(held, regions.free_block, address).atexit = False
        return held


class Blocks:
    """Where NumPy's own allocations go: a memory, as :class:`thermocline.numpy_allocator.BlockSource`.

    There is one a memory, for a block is given back to the memory whatever group it was charged to.
    """

    def __init__(self, regions: Regions) -> None:
        self._regions = regions
        self._groups: tuple[int, ...] = (0,)

    @contextmanager
    def charged_to(self, group: int) -> Iterator[None]:
        """Charge what is allocated in this context, by any thread, to a group; the innermost counts."""
        self._groups = (*self._groups, group)
        try:
            yield
        finally:
            last = len(self._groups) - 1 - self._groups[::-1].index(group)
            self._groups = self._groups[:last] + self._groups[last + 1 :]

    def allocate_block(self, nbytes: int) -> int:
        """See :meth:`~thermocline.live.regions.Regions.allocate_block`."""
        return self._regions.allocate_block(nbytes, self._groups[-1])

    def free_block(self, address: int) -> None:
        """See :meth:`~thermocline.live.regions.Regions.free_block`."""
        self._regions.free_block(address)

    def block_size(self, address: int) -> int:
        """Bytes of a block."""
        return self._regions.block_size(address)


_known_blocks: weakref.WeakKeyDictionary[Regions, Blocks] = weakref.WeakKeyDictionary()


def _blocks_of(regions: Regions) -> Blocks:
    """The blocks of a memory, made known to NumPy's allocator when first asked for."""
    from thermocline import numpy_allocator

    blocks = _known_blocks.get(regions)
    if blocks is None:
        space = address_space()
        numpy_allocator.install(space.low, space.high)
        blocks = _known_blocks[regions] = Blocks(regions)
        session = regions.session
        numpy_allocator.register_source(blocks, session.address, session.address + session.size)
        session.before_close.append(lambda: numpy_allocator.unregister_source(_known_blocks.pop(regions)))
    return blocks


def _count(shape: Shape) -> int:
    return math.prod(shape) if isinstance(shape, Sequence) else int(shape)
