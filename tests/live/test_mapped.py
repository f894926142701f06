"""Which stretches of an arena are mapped, against a set of units, on a real arena."""

import contextlib
import os
import random
from array import array
from collections.abc import Iterator

import pytest
from test_interruptions import attempt

from thermocline.live import libc
from thermocline.live.address_space import address_space, place
from thermocline.live.mapped import UNIT, Mapped, OccupiedError
from thermocline.live.userfaultfd import open_userfaultfd

MAP_FIXED_NOREPLACE = 0x100000
UNITS = 40
SIZE = UNITS * UNIT + 65536


class Arena:
    """A memfd with addresses, and which of its units the kernel says are mapped."""

    def __init__(self) -> None:
        self.fd = os.memfd_create("thermocline-test-arena", os.MFD_CLOEXEC)
        os.ftruncate(self.fd, SIZE)
        self.uffd = open_userfaultfd().fd
        self.address = address_space().take(SIZE)

    def mapped(self) -> set[int]:
        found: set[int] = set()
        with open("/proc/self/maps") as lines:
            for line in lines:
                begin, end = (int(word, 16) - self.address for word in line.split(" ", 1)[0].split("-"))
                if "thermocline-test-arena" in line:
                    assert "rw-s" in line
                    found.update(range(begin // UNIT, -(-end // UNIT)))
        return found


@pytest.fixture
def arena() -> Iterator[Arena]:
    made = Arena()
    yield made
    os.close(made.fd)
    os.close(made.uffd)
    address_space().give(made.address)


@pytest.fixture
def mapped(arena: Arena) -> Iterator[Mapped]:
    made = Mapped(arena.address, SIZE, lambda: (arena.fd, arena.uffd))
    yield made
    made.close()
    assert not arena.mapped()
    assert made.bytes == 0


def units(begin: int, end: int) -> set[int]:
    """The units that a stretch touches."""
    return set(range(begin // UNIT, -(-end // UNIT)))


def test_it_agrees_with_the_kernel(arena: Arena, mapped: Mapped) -> None:
    numbers = random.Random(1)
    published: list[array[int]] = []
    mapped.publish = published.append
    expected: set[int] = set()
    for _ in range(300):
        begin = numbers.randrange(SIZE - 1)
        end = min(numbers.randrange(begin, begin + 12 * UNIT) + 1, SIZE)
        if numbers.random() < 0.5:
            made = mapped.cover(begin, end)
            assert set().union(*(units(*gap) for gap in made)) == units(begin, end) - expected
            expected |= units(begin, end)
        else:
            mapped.uncover(begin, end)
            last = UNITS + 1 if end == SIZE else end // UNIT
            expected -= set(range(-(-begin // UNIT), last))
        assert arena.mapped() == expected
        bounds = mapped.bounds
        assert list(bounds) == sorted(set(bounds))
        assert not published or published[-1] == bounds
        assert mapped.bytes == sum(bounds[1::2]) - sum(bounds[::2])
        assert set().union(*(units(*pair) for pair in zip(bounds[::2], bounds[1::2], strict=True))) == expected


def test_what_is_there_already_is_not_mapped_over(arena: Arena, mapped: Mapped) -> None:
    other = Mapped(arena.address, SIZE, lambda: (arena.fd, arena.uffd))
    other.cover(8 * UNIT, 9 * UNIT)
    with pytest.raises(OccupiedError):
        mapped.cover(7 * UNIT, 10 * UNIT)
    assert arena.mapped() == {8}
    mapped.cover(0, 8 * UNIT)
    other.close()


def test_a_call_that_is_cut_short_is_made_up_for(arena: Arena, mapped: Mapped) -> None:
    class Interrupted(Exception):
        pass

    def interrupt(bounds: object) -> None:
        raise Interrupted

    nothing = mapped.publish
    mapped.publish = interrupt
    with pytest.raises(Interrupted):
        mapped.cover(UNIT, 3 * UNIT)
    mapped.publish = nothing
    assert mapped.cover(0, 4 * UNIT) == [(0, 4 * UNIT)]
    assert arena.mapped() == {0, 1, 2, 3}
    mapped.publish = interrupt
    with pytest.raises(Interrupted):
        mapped.uncover(UNIT, 2 * UNIT)
    mapped.publish = nothing
    mapped.cover(UNIT, 2 * UNIT)
    assert arena.mapped() == {0, 1, 2, 3}


def test_a_call_that_is_interrupted_anywhere_is_made_up_for(arena: Arena, mapped: Mapped) -> None:
    """What is noted is mapped, and prepared; and what the program maps meanwhile stays."""
    prepared: set[int] = set()

    def cover() -> None:
        mapped.cover(UNIT, 4 * UNIT, lambda begin, end: prepared.update(units(begin, end)))

    def uncover() -> None:
        mapped.uncover(UNIT, 3 * UNIT)

    def check() -> None:
        assert mapped.settle()
        noted = set().union(*(units(*part) for part in mapped.parts(0, SIZE)))
        assert arena.mapped() == noted
        assert mapped.bytes == len(noted) * UNIT
        assert noted <= prepared

    interrupted, point = True, 0
    while interrupted:
        point += 1
        mapped.close()
        prepared.clear()
        mapped.cover(2 * UNIT, 3 * UNIT, lambda begin, end: prepared.update(units(begin, end)))
        interrupted = attempt(point, cover)
        with other_mapping(arena.address + UNIT):
            check()
        cover()
        assert arena.mapped() == {1, 2, 3}
        interrupted = attempt(point, uncover) or interrupted
        with other_mapping(arena.address + UNIT):
            check()
        cover()
        assert arena.mapped() == {1, 2, 3}
    assert point > 100


@contextlib.contextmanager
def other_mapping(address: int) -> Iterator[None]:
    """The program maps something by number, if nothing is there; and it is there at the end."""
    flags = libc.MAP_PRIVATE | libc.MAP_ANONYMOUS | MAP_FIXED_NOREPLACE
    try:
        libc.mmap(address, UNIT, libc.PROT_READ, flags)
    except FileExistsError:
        yield
        return
    yield
    libc.mprotect(address, UNIT, libc.PROT_READ | libc.PROT_WRITE)  # fails where nothing is mapped
    libc.munmap(address, UNIT)


def test_a_limit_on_mappings_leaves_what_is_mapped(
    arena: Arena, mapped: Mapped, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("thermocline.live.mapped._MOST_RANGES", 2)
    mapped.cover(0, 9 * UNIT)
    for unit in (1, 3, 5, 7):
        mapped.uncover(unit * UNIT, (unit + 1) * UNIT)
    assert arena.mapped() == {0, 2, 3, 4, 5, 6, 7, 8}


# -- where arenas lie -------------------------------------------------------------------------------------------------

GIB, TIB = 1 << 30, 1 << 40
STACK = 0x7FFC00000000, 0x7FFC00021000


def test_arenas_lie_between_the_heap_and_what_the_kernel_chooses() -> None:
    heap, libraries = (0x555555554000, 0x555560000000), (0x7F0000000000, 0x7FF000000000)
    assert place([heap, libraries, STACK]) == (0x100000000000, 0x2A0000000000)


def test_arenas_lie_below_libraries_that_are_mapped_from_below() -> None:
    """As under ulimit -s unlimited: from a third of the address space upwards."""
    low, high = place([(0x2AAAAAAAA000, 0x2AAB00000000), (0x555555554000, 0x555560000000), STACK]) or (0, 0)
    assert (low, high) == (0x100000000000, 0x2A0000000000)


def test_arenas_lie_beside_what_is_in_their_place() -> None:
    sanitizer = 0x7FFF7000, 0x10007FFF8000
    assert place([sanitizer, (0x180000000000, 0x180000001000), STACK]) == (0x180000200000, 0x2A0000000000)


def test_a_small_address_space_has_room_for_arenas() -> None:
    """39 bits: 512 GiB in all."""
    low, high = place([(0x5555554000, 0x5560000000), (0x7F00000000, 0x7FF0000000)]) or (0, 0)
    assert high - low >= 32 * GIB
    assert 0 < low < high < 0x5555554000


def test_where_no_gap_is_large_enough_there_is_no_place() -> None:
    assert place([(number * 16 * GIB + GIB, (number + 1) * 16 * GIB) for number in range(20)]) is None
