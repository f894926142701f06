"""Making arrays in tiered memory: what a :class:`~thermocline.Memory` and its groups have in common.

The arrays are ordinary ``numpy.ndarray``. What is not ordinary is their buffer: a ctypes array over addresses of the
arena, which gives its block back when the last array that looks at it is gone.
"""

from __future__ import annotations

import ctypes
import math
import operator
import os
import stat
import sys
import weakref
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, SupportsIndex, cast

from thermocline.errors import ClosedError, OutOfMemory, SpecError
from thermocline.live.address_space import address_space
from thermocline.live.descriptor import leased
from thermocline.live.guard import Guard, Holding, Lease, end, leased_bytes, process_guard, value_of
from thermocline.live.limits import refused
from thermocline.live.regions import CLOSED, DECLINED, Regions
from thermocline.live.session import FileRange
from thermocline.sizes import format_size, parse_size

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import ArrayLike, DTypeLike, NDArray

    Shape = SupportsIndex | Sequence[SupportsIndex]

#: Arrays below this many bytes stay in ordinary memory under :meth:`Arrays.numpy`.
DEFAULT_MIN_ARRAY = 1 << 20


class Arrays:
    """Makes arrays whose pages are charged to one group of a memory."""

    def __init__(self, regions: Regions, group: int) -> None:
        self._regions = regions
        self._group = group

    def empty(self, shape: Shape, dtype: DTypeLike = float) -> NDArray[Any]:
        """An array of zeros: the same as `zeros`.

        Parameters
        ----------
        shape : int or tuple of int
        dtype : data-type
            Anything but Python objects.

        Raises
        ------
        TypeError, ValueError
            The shape is none, as for NumPy.
        OutOfMemory
            (a MemoryError) The nodes cannot hold it in the worst case, or a limit of the process forbids its addresses.
            Nothing has been touched.
        """
        kind = _dtype(dtype)
        return self._make(_extents(shape), kind)

    zeros = empty

    def full(self, shape: Shape, fill_value: ArrayLike, dtype: DTypeLike | None = None) -> NDArray[Any]:
        """An array of one value, of the value's own type unless ``dtype`` says otherwise."""
        import numpy as np

        kind = _dtype(np.asarray(fill_value).dtype if dtype is None else dtype)
        made = self._make(_extents(shape), kind)
        made[...] = fill_value
        return made

    def array(self, values: ArrayLike, dtype: DTypeLike | None = None) -> NDArray[Any]:
        """A copy of an array, or of what can be made one."""
        import numpy as np

        given = np.asarray(values, dtype=dtype)
        made = self._make(given.shape, _dtype(given.dtype))
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
            Whatever the rest of the file holds, in one dimension, if not given. One extent may be -1: as many as the
            rest of the file has, without remainder.
        offset : int
            Bytes of the file to skip.

        Raises
        ------
        SpecError
            (a ValueError) The file is shorter than that, is not a regular file, or does not fill the shape; or the
            elements of the dtype take no bytes.
        TypeError
            The shape or the offset is not of integers.
        OutOfMemory
            (a MemoryError) The nodes cannot hold it in the worst case, or a limit of the process forbids its addresses.
        ClosedError
            The memory is closed, or cannot reach its supervisor (see ``docs/limits.md``).
        """
        import numpy as np

        if not np.dtype(dtype).itemsize:
            raise SpecError(f"elements of dtype {dtype!r} take no bytes of a file; write their length, such as S8")
        kind = _dtype(dtype)
        offset = operator.index(offset)
        if offset < 0:
            raise SpecError(f"offset is {offset}; write 0 or more bytes to skip")
        # Not blocking: opening a FIFO would otherwise wait for a writer.
        lease = leased(os.open, file, os.O_RDONLY | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK)
        try:
            fd = value_of(lease)
            status = os.fstat(fd)
            if not stat.S_ISREG(status.st_mode):
                raise SpecError(f"{os.fspath(file)!r} is not a regular file; only those can be read at any place")
            os.set_blocking(fd, True)
            there = max(status.st_size - offset, 0)
            extents = _file_shape(shape, there // kind.itemsize)
            size = _size(extents, kind)
            if size > there:
                raise SpecError(
                    f"{os.fspath(file)!r} holds {there} bytes from byte {offset} on, an array of this shape takes "
                    f"{size}; give a smaller shape"
                )
            return self._make(extents, kind, FileRange(fd, offset, size) if size else None)
        finally:
            end(lease)

    def numpy(self, min_array: int | str = DEFAULT_MIN_ARRAY) -> Holding[None]:
        """While this context is open, every large array that NumPy makes, in any thread and library, is made here.

        Parameters
        ----------
        min_array : int or str
            Bytes from which on an array is large.

        Raises
        ------
        ClosedError
            The memory is closed, or this is a forked child.
        SpecError
            ``min_array`` is no size, or 0.
        """
        return Holding(partial(self._tier, min_array))

    def _tier(self, min_array: int | str) -> tuple[None, tuple[Lease, ...]]:
        from thermocline import numpy_allocator

        if not self._regions.usable:
            raise ClosedError(CLOSED)
        threshold = parse_size(min_array)
        if threshold < 1:
            raise SpecError("min_array is 0 bytes; write a positive size, such as 1MiB")
        blocks = _blocks_of(self._regions)
        return None, (blocks.charge(self._group), numpy_allocator.lease(blocks, threshold))

    def _make(self, extents: tuple[int, ...], kind: np.dtype[Any], source: FileRange | None = None) -> NDArray[Any]:
        """An array of checked extents and dtype: zeros, or the bytes of a file."""
        import numpy as np

        buffer = self._buffer(_size(extents, kind), source)
        return np.ndarray(extents, kind, buffer=memoryview(buffer))

    def _buffer(self, size: int, source: FileRange | None) -> ctypes.Array[ctypes.c_char]:
        regions = self._regions
        refusals: list[int] = []
        lease = regions.allocate_block(size, self._group, source, refusals)
        if lease == DECLINED:
            raise ClosedError(f"{CLOSED} (or an array was made inside the making of another)")
        if lease == 0:
            raise OutOfMemory(f"{format_size(size)} more {_why_not(regions, refusals)}")
        lease = cast("Lease", lease)
        return leased_bytes(value_of(lease), max(size, 1), lease)


def _why_not(regions: Regions, refusals: list[int]) -> str:
    """Why an array cannot be had, and what to do."""
    if refusals:
        return f"cannot be mapped: {refused(refusals[-1])}"
    commitment = regions.commitment
    committed, limit = (format_size(pages * regions.page_size) for pages in (commitment.committed, commitment.limit))
    if commitment.overcommits:
        return (
            f"do not fit: {committed} of {limit} are committed, and the kernel would not grant that much beside it"
            " (vm.overcommit_memory, ulimit -v); free arrays, give the last node more, or raise that limit"
        )
    return (
        f"do not fit: {committed} of {limit} are committed (worst case, nothing compresses); free arrays, give the last"
        ' node more, or write commit="heuristic" if little is used'
    )


_FIRST = (0,)


class Blocks:
    """Where NumPy's own allocations go: a memory, as :class:`thermocline.numpy_allocator.BlockSource`.

    There is one a memory, for a block is given back to the memory whatever group it was charged to.
    """

    def __init__(self, regions: Regions) -> None:
        self._regions = regions
        #: A group, by a number of its own: what is allocated is charged to the last of them.
        self._charged: dict[int, int] = {}
        self._last = 0
        self._group = 0
        self.bins = regions.bins.address
        self._guard = Guard(self._settle, self._derive)

    def charge(self, group: int) -> Lease:
        """Charge what is allocated while a lease lives, by any thread, to a group; the innermost counts."""
        return cast("Lease", self._guard.lease(self._charge, group))

    def _charge(self, group: int) -> int:
        self._last += 1
        self._guard.journal.append((self._charged.pop, self._last, None))
        self._charged[self._last] = group
        self._derive()
        return self._last

    def _settle(self) -> None:
        while self._guard.released:
            self._charged.pop(self._guard.released[0], None)
            del self._guard.released[0]
        self._derive()

    def _derive(self) -> None:
        self._group = next(reversed(self._charged.values()), 0)
        self._regions.bins.charge(self._group)

    def allocate_block(self, nbytes: int) -> Lease | int:
        """See :meth:`~thermocline.live.regions.Regions.allocate_block`."""
        return self._regions.allocate_block(nbytes, self._group)

    def take_back(self, freed: list[int]) -> None:
        """Free the block whose address is the first of a list, and take it off that, in one step."""
        # The calls of pop() are made by extend() itself: no instruction of Python, and so no exception, comes between.
        self._regions.released.extend(map(freed.pop, _FIRST))

    def settle(self) -> None:
        """See :meth:`~thermocline.live.regions.Regions.settle`."""
        if self._regions.released:
            self._regions.settle()

    def block_size(self, address: int) -> int:
        """Bytes of a block."""
        return self._regions.block_size(address)


_known_blocks: weakref.WeakKeyDictionary[Regions, Blocks] = weakref.WeakKeyDictionary()


def _blocks_of(regions: Regions) -> Blocks:
    """The blocks of a memory, made known to NumPy's allocator when first asked for."""
    import numpy  # noqa: F401 - before the guard: a thread that imports it may be on its way to here

    guard = process_guard("blocks")
    blocks: Blocks = guard.run(_make_known, guard, regions)
    return blocks


def _make_known(guard: Guard, regions: Regions) -> Blocks:
    from thermocline import numpy_allocator

    blocks = _known_blocks.get(regions)
    if blocks is None:
        space = address_space()
        numpy_allocator.install(space.low, space.high)
        blocks = Blocks(regions)
        session = regions.session
        guard.journal.append((numpy_allocator.unregister_source, blocks))
        numpy_allocator.register_source(blocks, session.address, session.address + session.size)
        session.teardown.callback(numpy_allocator.unregister_source, blocks)
        _known_blocks[regions] = blocks
    return blocks


def _dtype(dtype: DTypeLike) -> np.dtype[Any]:
    """The data type that NumPy's own functions would use: strings without a length have one character."""
    import numpy as np

    kind = np.dtype(dtype)
    if kind.hasobject:
        raise SpecError("an array of Python objects cannot be tiered: its bytes are addresses; use a numeric dtype")
    return np.dtype(f"{kind.kind}1") if kind.kind in "SU" and not kind.itemsize else kind


def _extents(shape: Shape) -> tuple[int, ...]:
    """A shape as a tuple of integers.

    Raises
    ------
    TypeError
        It has something else in it, as for NumPy.
    """
    import numpy as np

    # Asked, not tried: an exception that comes meanwhile need not be ours.
    if isinstance(shape, Sequence) or np.ndim(cast("Any", shape)):
        return tuple(map(operator.index, cast("Sequence[SupportsIndex]", shape)))
    return (operator.index(shape),)


def _file_shape(shape: Shape | None, there: int) -> tuple[int, ...]:
    """The extents of an array of a file that holds ``there`` elements, with what -1 or None leaves open filled in."""
    extents = (-1,) if shape is None else _extents(shape)
    if extents == (-1,):
        return (there,)
    if -1 not in extents:
        return extents
    known = math.prod(extents) * -1
    if extents.count(-1) > 1 or known <= 0:
        raise SpecError(f"shape {extents} leaves more open than one extent; write -1 once, and the others above 0")
    if there % known:
        raise SpecError(f"the {there} elements in the file do not fill shape {extents}; give the first extents, too")
    return tuple(there // known if extent == -1 else extent for extent in extents)


def _size(extents: tuple[int, ...], kind: np.dtype[Any]) -> int:
    """Bytes of an array, which NumPy could make.

    Raises
    ------
    ValueError
        An extent is negative, or there are too many, or they come to more than can be addressed.
    """
    import numpy as np

    if any(extent < 0 for extent in extents):
        raise SpecError(f"shape {extents} has a negative extent; write 0 or more")
    size = math.prod(extents) * kind.itemsize
    if size <= sys.maxsize:  # otherwise the allocation says that no memory has as much
        np.ndarray(extents, kind, bytes(max(kind.itemsize, 1)), strides=(0,) * len(extents))
    return size
