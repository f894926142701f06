"""The Python half of the allocator: who serves a block, and what becomes of it."""

import atexit
import bisect
import ctypes
import os
import sys
from collections import deque
from dataclasses import dataclass
from typing import cast

from thermocline.live.guard import Guard, Lease, value_of
from thermocline.live.interrupts import ERRORS
from thermocline.numpy_allocator.handler import Handler
from thermocline.numpy_allocator.source import BlockSource
from thermocline.numpy_allocator.state import NEVER, new_state

_EXHAUSTED, _DECLINED = 0, -1
_FRAMES = 32  # how deep a source may go

_libc = ctypes.CDLL(None)
_usable_size = ctypes.CFUNCTYPE(ctypes.c_size_t, ctypes.c_void_p)(("malloc_usable_size", _libc))


@dataclass(frozen=True, eq=False)
class Activation:
    """One ``activate``, to be undone by ``deactivate``."""

    source: BlockSource
    min_array: int


@dataclass(frozen=True)
class _Range:
    low: int
    high: int
    source: BlockSource


class Allocator:
    """Serves NumPy's blocks from sources, for the life of the process.

    Parameters
    ----------
    handler
        NumPy's, whose functions are replaced.
    low, high
        The arena: addresses in ``[low, high)`` are ours and all others are not.

    Notes
    -----
    ``serve`` and ``drain`` are called by the filter (``native/filter.c``), which sends the blocks that are not ours
    to NumPy's own functions. They may be entered in any thread and while they run already.
    What they read of this object are therefore tuples that are replaced and never changed, by operations of
    `_guard`.
    """

    def __init__(self, handler: Handler, low: int, high: int) -> None:
        self.low, self.high = low, high
        self._pid = os.getpid()
        self._handler = handler
        self._guard = Guard(self._settle, self._publish)
        self._activations: tuple[Activation, ...] = ()
        self._ranges: tuple[_Range, ...] = ()
        #: Of the process that this one was forked from, and its own: their blocks can be read here.
        self._inherited: tuple[_Range, ...] = ()
        self._backlog: list[int] = []
        self._closed = False
        #: Plain memory, until NumPy has it.
        self._plain = Guard(self._free_plain)
        #: Who takes blocks off the backlog.
        self._draining = Guard(self._drain)
        originals = [word or 0 for word in handler.functions]
        self._originals = originals
        self._raw_is_malloc = not _has_debug_hooks()
        self._original_malloc = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)(originals[1])
        self._original_free = ctypes.PYFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)(originals[4])
        self._state, self._functions = new_state(
            low,
            high,
            originals,
            serve=self.serve,
            drain=self.drain,
            backlog=self._backlog,
        )
        os.register_at_fork(after_in_child=self._become_child)
        atexit.register(self.close)

    def begin(self) -> None:
        """Replace NumPy's functions. Doing it again is nothing."""
        self._handler.replace(self._functions)

    # --- which source ---

    def register(self, source: BlockSource, low: int, high: int) -> None:
        """See `thermocline.numpy_allocator.register_source`."""
        if not self.low <= low < high <= self.high:
            raise ValueError(f"[{low:#x}, {high:#x}) is not in the arena [{self.low:#x}, {self.high:#x})")
        self._guard.run(self._register, source, low, high)

    def _register(self, source: BlockSource, low: int, high: int) -> None:
        self._settle()
        if any(each.low < high and low < each.high for each in self._ranges):
            raise ValueError(f"[{low:#x}, {high:#x}) overlaps the range of another source")
        self._ranges = tuple(sorted((*self._ranges, _Range(low, high, source)), key=lambda each: each.low))
        self._state.open = not self._closed

    def unregister(self, source: BlockSource) -> None:
        """See `thermocline.numpy_allocator.unregister_source`."""
        self._guard.released.append(source)
        self._guard.settle()

    def _settle(self) -> None:
        """End the activations that are over, and forget the sources that are."""
        released = self._guard.released
        while released:
            over = released[0]
            self._activations = tuple(each for each in self._activations if over not in (each, each.source))
            self._ranges = tuple(each for each in self._ranges if each.source is not over)
            del released[0]
        self._publish()

    def source_of(self, address: int) -> BlockSource | None:
        """The source in whose range an address lies."""
        return _source_in(self._ranges, address)

    def activate(self, source: BlockSource, min_array: int) -> Activation:
        """See `thermocline.numpy_allocator.activate`."""
        activation: Activation = self._guard.run(self._activate, source, min_array)
        return activation

    def lease(self, source: BlockSource, min_array: int) -> Lease:
        """A lease of an activation."""
        return cast("Lease", self._guard.lease(self._activate, source, min_array))

    def _activate(self, source: BlockSource, min_array: int) -> Activation:
        if min_array < 1:
            raise ValueError(f"min_array is {min_array} bytes; write a positive size")
        if all(each.source is not source for each in self._ranges):
            raise ValueError("this source has no range; register it before it is activated")
        activation = Activation(source, min_array)
        self._guard.journal.append((self._forget, activation))
        self._activations = (*self._activations, activation)
        self._publish()
        return activation

    def _forget(self, activation: Activation) -> None:
        self._activations = tuple(each for each in self._activations if each is not activation)

    def deactivate(self, activation: Activation | None = None) -> None:
        """See `thermocline.numpy_allocator.deactivate`."""
        activations = self._activations
        self._guard.released.extend([activation] if activation else activations[-1:])
        self._guard.settle()

    def _publish(self) -> None:
        active = self._activations and self._state.open
        self._state.bins = self._activations[-1].source.bins if active else None
        self._state.threshold = min(self._activations[-1].min_array, NEVER) if active else NEVER

    # --- the calls of the filter ---

    def serve(self, pointer: int, nbytes: int) -> Lease | int:
        """A block of ``nbytes`` with what ``pointer`` (0: nothing) holds: an address, or a source's 0 or -1.

        The address may be in a lease, which the filter ends when it has it. The block at ``pointer`` is left alone: the
        filter frees it when it has the new one in its hands.
        """
        _assure_room(_FRAMES)
        self._leave_parent()
        if self.low <= pointer < self.high:
            return self._resized(pointer, nbytes)
        activations = self._activations
        if not activations or (pointer and not self._raw_is_malloc):
            return _DECLINED
        block = activations[-1].source.allocate_block(nbytes)
        if pointer and block not in _NONE:
            # NumPy does not say how large the old block is. The C library's figure is what can be read there.
            ctypes.memmove(_address(block), pointer, min(nbytes, _usable_size(pointer)))
        return block

    def drain(self) -> int:
        """Free every block on the backlog: the one just put there, and any whose own drain was cut short."""
        _assure_room(_FRAMES)
        self._leave_parent()
        self._draining.settle()
        return 0

    def _drain(self) -> None:
        backlog = self._backlog
        while backlog:
            source = self.source_of(backlog[0])
            if source is None:  # its memory is closed
                del backlog[0]
            else:
                source.take_back(backlog)
        for each in self._ranges:
            each.source.settle()

    def _resized(self, pointer: int, nbytes: int) -> Lease | int:
        source = self.source_of(pointer)
        holder = _source_in(self._inherited, pointer) if source is None else source
        if holder is None:  # its memory is closed
            return _EXHAUSTED
        held = holder.block_size(pointer)
        if held // 2 <= nbytes <= held:
            return pointer
        block = _DECLINED if source is None or self._closed else source.allocate_block(nbytes)
        if block in _NONE and nbytes <= held:
            return pointer
        if block == _DECLINED:
            block = self._plain.lease(self._original_malloc, self._originals[0], nbytes) or _EXHAUSTED
        if block not in _NONE:
            ctypes.memmove(_address(block), pointer, min(nbytes, held))
        return block

    def _free_plain(self) -> None:
        released = self._plain.released
        while released:
            # One step of the interpreter: a block that is off the list is free.
            deque(map(self._original_free, (self._originals[0],), map(released.pop, (0,)), (NEVER,)), maxlen=0)

    # --- forks and the end ---

    def close(self) -> None:
        """From now on no array is tiered and no block freed: the process ends. Arrays stay readable.

        One that is resized, by a thread that runs on or a function of ``atexit``, is plain from then on.
        """
        self._closed = True
        self._state.threshold = NEVER
        self._state.open = 0

    def _become_child(self) -> None:
        """The blocks of this process are its parent's: here they are not freed, and plain once they are resized."""
        self._state.threshold = NEVER
        self._state.open = 0
        self._activations = ()
        self._inherited = tuple(sorted((*self._inherited, *self._ranges), key=lambda each: each.low))
        self._ranges = ()
        self._backlog.clear()
        ERRORS.clear()
        self._pid = os.getpid()

    def _leave_parent(self) -> None:
        # Another module's at-fork hook may run before ours, and a garbage collection in it may free arrays.
        if os.getpid() != self._pid:
            self._become_child()


_NONE = _EXHAUSTED, _DECLINED


def _source_in(ranges: tuple[_Range, ...], address: int) -> BlockSource | None:
    """The source of the range, of several in ascending order, that an address lies in."""
    place = bisect.bisect_right(ranges, address, key=lambda each: each.low) - 1
    return ranges[place].source if place >= 0 and address < ranges[place].high else None


def _address(block: Lease | int) -> int:
    return block if isinstance(block, int) else int(value_of(block))


def _assure_room(frames: int) -> None:
    """Meet the recursion limit here, where nothing has begun, and not in the middle of a source's work."""
    if frames:
        _assure_room(frames - 1)


def _has_debug_hooks() -> bool:
    """Whether Python's raw allocator, which NumPy 2.4 uses, hands out addresses that are not malloc's own.

    It does when it puts guard bytes around a block (``PYTHONMALLOC=debug``). The size of such a block
    cannot be asked of the C library, so plain arrays that grow stay plain.
    """
    hooks = _RawAllocator()
    ctypes.pythonapi.PyMem_GetAllocator(ctypes.c_int(0), ctypes.byref(hooks))  # 0: PYMEM_DOMAIN_RAW
    if not hooks.context:
        return False  # it is malloc itself
    import tracemalloc

    debugs = sys.flags.dev_mode or "debug" in os.environ.get("PYTHONMALLOC", "") or hasattr(sys, "gettotalrefcount")
    return debugs or not tracemalloc.is_tracing()  # tracemalloc hooks in as well, and changes no address


class _RawAllocator(ctypes.Structure):
    """``PyMemAllocatorEx`` of CPython's ``pymem.h``."""

    _fields_ = (("context", ctypes.c_void_p), ("functions", ctypes.c_void_p * 4))
