"""A small real source of blocks for the tests of the allocator: anonymous memory and a bump pointer."""

import ctypes
import mmap
import threading
from collections import defaultdict, deque
from collections.abc import Callable

PAGE = mmap.PAGESIZE
_MAP_NORESERVE = 0x4000  # mmap(2); Python names it from 3.13 on

_libc = ctypes.CDLL(None, use_errno=True)
_libc.madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
_kept: list[mmap.mmap] = []


def reserve(nbytes: int) -> int:
    """The address of so much private memory, which stays for the life of the process."""
    memory = mmap.mmap(-1, nbytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _MAP_NORESERVE)
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(memory))
    _kept.append(memory)
    return ctypes.addressof(ctypes.c_char.from_buffer(memory))


class Arena:
    """A `BlockSource` over the addresses ``[low, high)``.

    ``during_allocation`` and ``during_free`` are called inside, where a collection or a signal may come.
    """

    bins = 0

    def __init__(self, low: int, high: int) -> None:
        self.low, self.high = low, high
        self.blocks: dict[int, int] = {}
        self.during_allocation: Callable[[], object] = lambda: None
        self.during_free: Callable[[], object] = lambda: None
        self.allocations = 0
        self.frees = 0
        self._next = low
        self._spare: dict[int, list[int]] = defaultdict(list)
        self._returned: deque[int] = deque()
        self._lock = threading.RLock()
        self._busy = False

    def allocate_block(self, nbytes: int) -> int:
        with self._lock:
            if self._busy:
                return -1
            self._busy = True
            try:
                self._take_back()
                self.during_allocation()
                size = -(-nbytes // PAGE) * PAGE
                if self._spare[size]:
                    address = self._spare[size].pop()
                elif size <= self.high - self._next:
                    address = self._next
                    self._next += size
                else:
                    return 0
                self.blocks[address] = size
                self.allocations += 1
                return address
            finally:
                self._busy = False

    def take_back(self, freed: list[int]) -> None:
        self._returned.extend(map(freed.pop, (0,)))

    def settle(self) -> None:
        with self._lock:
            if self._returned and not self._busy:
                self._busy = True
                try:
                    self.during_free()
                    self._take_back()
                finally:
                    self._busy = False

    def block_size(self, address: int) -> int:
        return self.blocks[address]

    def live(self) -> int:
        """How many blocks are in use."""
        with self._lock:
            self._take_back()
            return len(self.blocks)

    def _take_back(self) -> None:
        while self._returned:
            address = self._returned.popleft()
            size = self.blocks.pop(address)  # KeyError: freed twice, or never allocated
            if _libc.madvise(address, size, mmap.MADV_DONTNEED):  # zeros again
                raise OSError(ctypes.get_errno(), "madvise")
            self._spare[size].append(address)
            self.frees += 1
