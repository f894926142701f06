"""One reserved range of addresses that all arenas of a process lie in.

So one comparison tells a tiered block from any other, and no mapping of anybody else's can come to lie where an arena
was: the range stays reserved (mapped without access) for the life of the process.

A forked child is not given the arenas, so there are holes where they were until it attaches itself. The kernel hands
out addresses from the top; the range is asked for far below, so that nothing a child maps meanwhile comes to lie there.
"""

from __future__ import annotations

from thermocline.errors import UnsupportedError
from thermocline.live import libc
from thermocline.live.extents import Extents
from thermocline.live.guard import Guard

#: Bytes to reserve, the first that the process's limits allow (a 47-bit address space holds 128 TiB).
_SIZES = [1 << shift for shift in range(45, 34, -1)]
#: Where the range is asked for. It lies elsewhere where a process has something there.
_WANTED = 0x200000000000
#: Arenas begin at multiples of this, so that a huge page may lie anywhere in them.
_UNIT = 2 << 20


class AddressSpace:
    """The reserved range."""

    def __init__(self) -> None:
        for size in _SIZES:
            try:
                base = libc.mmap(_WANTED, size + _UNIT, libc.PROT_NONE, _RESERVED)
            except OSError as error:
                failure = error
                continue
            self.low = -(-base // _UNIT) * _UNIT
            self.high = self.low + size
            break
        else:
            raise UnsupportedError(f"no address space for tiered memory: {failure}; raise the limit (ulimit -v)")
        libc.madvise(self.low, size, libc.MADV_DONTDUMP)
        self._size = size // _UNIT
        #: What is taken: units, by the first. What is free is derived from it.
        self._taken: dict[int, int] = {}
        self._free = Extents(self._size)
        self._guard = Guard(repair=self._derive)

    def take(self, size: int) -> int:
        """An unused range of at least ``size`` bytes -> its address."""
        start: int | None = self._guard.run(self._take, -(-size // _UNIT))
        if start is None:
            raise UnsupportedError(f"no address space for {size} bytes of tiered memory; close other memories first")
        return self.low + start * _UNIT

    def _take(self, units: int) -> int | None:
        start = self._free.allocate(units)
        if start is not None:
            self._guard.journal.append((self._taken.pop, start, None))
            self._taken[start] = units
        return start

    def give(self, address: int, size: int) -> None:
        """Return a range that nothing points into any more. Doing it again is nothing, until it is taken again."""
        self._guard.run(self._give, (address - self.low) // _UNIT, address, size)

    def _give(self, start: int, address: int, size: int) -> None:
        if start in self._taken:
            self.fence(address, size)
            self._free.free(start, self._taken.pop(start))

    def _derive(self) -> None:
        self._free = Extents.around(self._size, self._taken.items())

    @staticmethod
    def fence(address: int, size: int) -> None:
        """Replace whatever is mapped in a range by nothing: a touch of it is a SIGSEGV."""
        libc.mmap(address, size, libc.PROT_NONE, _RESERVED | libc.MAP_FIXED)


_RESERVED = libc.MAP_PRIVATE | libc.MAP_ANONYMOUS | libc.MAP_NORESERVE
_instance: AddressSpace | None = None
_making: dict[str, Guard] = {}


def address_space() -> AddressSpace:
    """The process's reserved range, made when first asked for."""
    if _instance is None:
        _making.setdefault("the only one", Guard()).run(_make)
    assert _instance is not None
    return _instance


def _make() -> None:
    global _instance  # noqa: PLW0603 - there is one address space a process
    if _instance is None:
        _instance = AddressSpace()
