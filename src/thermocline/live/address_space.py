"""The addresses that all arenas of a process lie in: one range, so that one comparison tells a tiered block from any.

Nothing is mapped there until an array is (:mod:`thermocline.live.mapped`): the kernel counts what is merely reserved
against a limit on addresses, too (setrlimit(2), ``RLIMIT_AS``). What keeps other mappings away is the place. The kernel
hands out addresses from the top of the address space down, or, under ``ulimit -s unlimited``, from a third of it
upwards; the range ends below both. A program that asks for addresses in it by number gets them, and keeps them: an
arena maps nothing where anything is (``MAP_FIXED_NOREPLACE``).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from thermocline.errors import UnsupportedError
from thermocline.live.extents import Extents
from thermocline.live.guard import Guard, process_guard

#: Where the range is if nothing is in the way: 26 of the 128 TiB of an address space of 47 bits.
_WANTED = 0x100000000000, 0x2A0000000000
#: How long it is at least.
_LEAST = 1 << 35
#: Arenas begin at multiples of this, so that a huge page may lie anywhere in them.
_UNIT = 2 << 20


class AddressSpace:
    """The range."""

    def __init__(self) -> None:
        with open("/proc/self/maps", encoding="utf-8", errors="replace") as lines:
            found = place(_ranges(lines))
        if found is None:
            raise UnsupportedError("no addresses for tiered memory: other mappings leave no gap of 32 GiB between them")
        self.low, self.high = found
        self._size = (self.high - self.low) // _UNIT
        #: What is taken: units, by the first. What is free is derived from it.
        self._taken: dict[int, int] = {}
        self._free = Extents(self._size)
        self._guard = Guard(repair=self._derive)

    def take(self, size: int) -> int:
        """An unused stretch of at least ``size`` bytes -> its address."""
        start: int | None = self._guard.run(self._take, -(-size // _UNIT))
        if start is None:
            raise UnsupportedError(f"no addresses for {size} bytes of tiered memory; close other memories first")
        return self.low + start * _UNIT

    def _take(self, units: int) -> int | None:
        start = self._free.allocate(units)
        if start is not None:
            self._guard.journal.append((self._taken.pop, start, None))
            self._taken[start] = units
        return start

    def give(self, address: int) -> None:
        """Return a stretch in which nothing is mapped, and that nothing points into any more.

        Doing it again is nothing, until it is taken again.
        """
        self._guard.run(self._give, (address - self.low) // _UNIT)

    def _give(self, start: int) -> None:
        if start in self._taken:
            self._free.free(start, self._taken.pop(start))

    def _derive(self) -> None:
        self._free = Extents.around(self._size, self._taken.items())


def place(mapped: Iterable[tuple[int, int]]) -> tuple[int, int] | None:
    """Where the range goes between what is mapped (begin and end, ascending) -> its begin and end, or None.

    In the longest gap of the wanted place. If that is too little (an address space of 39 bits, or a sanitizer that has
    its tables there), in the middle of the longest gap of all: its ends are where the heap and the kernel's own choices
    grow.
    """
    gaps = []
    before = 0
    for begin, end in mapped:
        gaps.append((before, begin))
        before = max(before, end)
    low, high = max(((max(low, _WANTED[0]), min(high, _WANTED[1])) for low, high in gaps), key=_length, default=(0, 0))
    if high - low < _LEAST:
        low, high = max(gaps, key=_length, default=(0, 0))
        quarter = (high - low) // 4
        low, high = low + quarter, low + 2 * quarter
    low, high = -(-low // _UNIT) * _UNIT, high // _UNIT * _UNIT
    return (low, high) if high - low >= _LEAST else None


def _length(gap: tuple[int, int]) -> int:
    return gap[1] - gap[0]


def _ranges(lines: Iterable[str]) -> Iterator[tuple[int, int]]:
    """What is mapped (proc(5), ``maps``)."""
    for line in lines:
        begin, _, end = line.split(" ", 1)[0].partition("-")
        if int(begin, 16) < 1 << 63:  # not vsyscall
            yield int(begin, 16), int(end, 16)


_instance: AddressSpace | None = None


def address_space() -> AddressSpace:
    """The process's range, chosen when first asked for."""
    if _instance is None:
        process_guard("address space").run(_make)
    assert _instance is not None
    return _instance


def _make() -> None:
    global _instance  # noqa: PLW0603 - there is one address space a process
    if _instance is None:
        _instance = AddressSpace()
