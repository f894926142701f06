"""The Python half of the allocator: who serves a block, and what becomes of it."""

import atexit
import bisect
import ctypes
import os
import sys
import threading
from dataclasses import dataclass

from thermocline.numpy_allocator.handler import Handler
from thermocline.numpy_allocator.interrupts import Courier
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
    What they read of this object are therefore tuples that are replaced and never changed; `_lock` is for
    those who replace them.
    """

    def __init__(self, handler: Handler, low: int, high: int) -> None:
        self.low, self.high = low, high
        self._pid = os.getpid()
        self._lock = threading.RLock()
        self._activations: tuple[Activation, ...] = ()
        self._ranges: tuple[_Range, ...] = ()
        self._backlog: list[int] = []
        self._closed = False
        self._errors: list[tuple[int, BaseException]] = []
        originals = [word or 0 for word in handler.functions]
        self._originals = originals
        self._raw_is_malloc = not _has_debug_hooks()
        self._original_malloc = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)(originals[1])
        self._original_free = ctypes.PYFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)(originals[4])
        self._state, functions = new_state(
            low,
            high,
            originals,
            serve=self.serve,
            drain=self.drain,
            backlog=self._backlog,
            errors=self._errors,
            courier=Courier(self._errors),
        )
        os.register_at_fork(after_in_child=self._become_child)
        atexit.register(self.close)
        handler.replace(functions)

    # --- which source ---

    def register(self, source: BlockSource, low: int, high: int) -> None:
        """See `thermocline.numpy_allocator.register_source`."""
        if not self.low <= low < high <= self.high:
            raise ValueError(f"[{low:#x}, {high:#x}) is not in the arena [{self.low:#x}, {self.high:#x})")
        with self._lock:
            if any(each.low < high and low < each.high for each in self._ranges):
                raise ValueError(f"[{low:#x}, {high:#x}) overlaps the range of another source")
            self._ranges = tuple(sorted((*self._ranges, _Range(low, high, source)), key=lambda each: each.low))
            self._state.open = not self._closed

    def unregister(self, source: BlockSource) -> None:
        """See `thermocline.numpy_allocator.unregister_source`."""
        with self._lock:
            self._activations = tuple(each for each in self._activations if each.source is not source)
            self._ranges = tuple(each for each in self._ranges if each.source is not source)
            self._publish()

    def source_of(self, address: int) -> BlockSource | None:
        """The source in whose range an address lies."""
        ranges = self._ranges
        place = bisect.bisect_right(ranges, address, key=lambda each: each.low) - 1
        return ranges[place].source if place >= 0 and address < ranges[place].high else None

    def activate(self, source: BlockSource, min_array: int) -> Activation:
        """See `thermocline.numpy_allocator.activate`."""
        if min_array < 1:
            raise ValueError(f"min_array is {min_array} bytes; write a positive size")
        with self._lock:
            if all(each.source is not source for each in self._ranges):
                raise ValueError("this source has no range; register it before it is activated")
            activation = Activation(source, min_array)
            self._activations = (*self._activations, activation)
            self._publish()
        return activation

    def deactivate(self, activation: Activation | None = None) -> None:
        """See `thermocline.numpy_allocator.deactivate`."""
        with self._lock:
            undone = activation or (self._activations[-1] if self._activations else None)
            self._activations = tuple(each for each in self._activations if each is not undone)
            self._publish()

    def _publish(self) -> None:
        active = self._activations and self._state.open
        self._state.threshold = min(self._activations[-1].min_array, NEVER) if active else NEVER

    # --- the calls of the filter ---

    def serve(self, pointer: int, nbytes: int) -> int:
        """A block of ``nbytes`` with what ``pointer`` (0: nothing) holds: an address, or a source's 0 or -1.

        The block at ``pointer`` is left alone: the filter frees it when it has the new one in its hands.
        """
        _assure_room(_FRAMES)
        self._leave_parent()
        if self.low <= pointer < self.high:
            return self._resized(pointer, nbytes)
        activations = self._activations
        if not activations or (pointer and not self._raw_is_malloc):
            return _DECLINED
        source = activations[-1].source
        block = self._allocated(source, nbytes)
        if pointer and block > 0:
            # NumPy does not say how large the old block is. The C library's figure is what can be read there.
            self._copy(block, pointer, min(nbytes, _usable_size(pointer)), source)
        return block

    def drain(self) -> int:
        """Free every block on the backlog: the one just put there, and any whose own drain was cut short."""
        _assure_room(_FRAMES)
        self._leave_parent()
        backlog = self._backlog
        while backlog:
            try:
                address = backlog.pop()
            except IndexError:  # another thread was faster
                break
            source = self.source_of(address)
            if source is not None:
                source.free_block(address)
        return 0

    def _resized(self, pointer: int, nbytes: int) -> int:
        source = self.source_of(pointer)
        if source is None:  # its memory is closed
            return _EXHAUSTED
        held = source.block_size(pointer)
        if held // 2 <= nbytes <= held:
            return pointer
        block = self._allocated(source, nbytes)
        if block <= 0 and nbytes <= held:
            return pointer
        if block == _DECLINED:
            block, source = self._original_malloc(self._originals[0], nbytes) or _EXHAUSTED, None
        if block > 0:
            self._copy(block, pointer, min(nbytes, held), source)
        return block

    def _allocated(self, source: BlockSource, nbytes: int) -> int:
        try:
            return source.allocate_block(nbytes)
        except MemoryError:
            return _EXHAUSTED

    def _copy(self, block: int, pointer: int, nbytes: int, source: BlockSource | None) -> None:
        try:
            ctypes.memmove(block, pointer, nbytes)
        except BaseException:  # a signal handler's: the filter asks again
            if source is None:
                self._original_free(self._originals[0], block, NEVER)
            else:
                source.free_block(block)
            raise

    # --- forks and the end ---

    def close(self) -> None:
        """From now on no array is tiered and no block freed: the process ends. Arrays stay readable."""
        with self._lock:
            self._closed = True
            self._state.threshold = NEVER
            self._state.open = 0

    def _become_child(self) -> None:
        """The blocks of this process are its parent's: here they are neither freed nor resized."""
        self._state.threshold = NEVER
        self._state.open = 0
        self._pid = os.getpid()
        self._lock = threading.RLock()  # the old one may be held by a thread that the child does not have
        self._activations = ()
        self._ranges = ()
        self._backlog.clear()
        self._errors.clear()

    def _leave_parent(self) -> None:
        # Another module's at-fork hook may run before ours, and a garbage collection in it may free arrays.
        if os.getpid() != self._pid:
            self._become_child()


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
