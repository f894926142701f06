"""What becomes of an array that is resized: which memory it is in, and its bytes."""

import ctypes
import threading
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
from arena import PAGE, Arena
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from installed import MIN, address, is_tiered

from thermocline import numpy_allocator
from thermocline.numpy_allocator.handler import default_handler


@pytest.mark.parametrize(
    ("before", "after", "tiered"),
    [
        (10, 3 * MIN, True),  # plain to tiered
        (MIN - 1, MIN, True),
        (10, MIN - 1, False),  # plain all along
        (MIN, 4 * MIN, True),  # grows
        (4 * MIN, 3 * MIN, True),  # fits its block
        (64 * MIN, 2 * MIN, True),  # moves to a smaller one
        (MIN, 100, True),
        (MIN + 1, MIN + 2, True),  # the rest of its page
    ],
)
def test_resizing_keeps_the_bytes(arena: Arena, before: int, after: int, tiered: bool) -> None:
    array = (np.arange(before) % 251).astype("u1")
    array.resize(after)
    expected = np.zeros(after, "u1")
    kept = min(before, after)
    expected[:kept] = np.arange(kept) % 251
    assert is_tiered(array) == tiered
    assert np.array_equal(array, expected)


def test_an_array_much_smaller_than_its_block_moves_to_a_smaller_one(arena: Arena) -> None:
    array = np.ones(64 * MIN, "u1")
    array.resize(2 * MIN)
    assert arena.blocks == {address(array): 2 * MIN}


def test_resizing_in_place_moves_nothing(arena: Arena) -> None:
    array = np.ones(MIN + 1, "u1")
    place = address(array)
    array.resize(MIN + PAGE)
    assert address(array) == place
    assert arena.allocations == 1


def test_arrays_grow_in_their_own_memory_when_none_is_active(both: tuple[Arena, Arena]) -> None:
    with numpy_allocator.tiered(both[0], MIN):
        array = np.ones(MIN, "u1")
    with numpy_allocator.tiered(both[1], MIN):
        array.resize(3 * MIN)
    assert is_tiered(array, both[0])
    array.resize(9 * MIN)
    assert is_tiered(array, both[0])
    assert array.sum() == MIN
    del array


def test_reading_a_text_resizes_without_the_gil(arena: Arena) -> None:
    """The array that NumPy reads into begins as plain memory, below MIN, and grows as it goes."""
    text = " ".join(map(str, range(50_000)))
    wrong: list[object] = []

    def read() -> None:
        for _ in range(5):
            array = np.fromstring(text, int, sep=" ")
            if not (is_tiered(array) and np.array_equal(array, range(50_000))):
                wrong.append(array)

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_no_more_is_copied_than_the_plain_block_holds(arena: Arena) -> None:
    context, malloc, _, realloc, free = default_handler().functions
    pointer, size = ctypes.c_void_p, ctypes.c_size_t
    plain = ctypes.PYFUNCTYPE(pointer, pointer, size)(malloc)(context, 2000)
    moved = ctypes.PYFUNCTYPE(pointer, pointer, pointer, size)(realloc)(context, plain, 1 << 31)
    assert list(arena.blocks) == [moved]
    ctypes.PYFUNCTYPE(None, pointer, pointer, size)(free)(context, moved, 1 << 31)


def test_the_plain_block_left_behind_is_freed(arena: Arena) -> None:
    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE

    before = resident()
    for _ in range(1000):
        array = np.ones(MIN - 1, "u1")
        array.resize(MIN)
    assert resident() - before < 100 * MIN


def test_the_plain_block_left_behind_is_not_kept_for_a_larger_one(arena: Arena) -> None:
    """NumPy keeps freed blocks of less than 1024 bytes by the size it is told."""
    usable = ctypes.CDLL(None).malloc_usable_size
    usable.argtypes, usable.restype = (ctypes.c_void_p,), ctypes.c_size_t
    taken_from_the_cache = [np.empty(size, "u1") for size in range(64, 1024) for _ in range(8)]
    arrays = [np.zeros(8, "u1") for _ in range(8)]
    for array in arrays:
        array.resize(MIN, refcheck=False)
    for size in range(64, 1024):
        assert usable(address(np.empty(size, "u1"))) >= size
    del taken_from_the_cache


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.integers(1, 5 * MIN), st.booleans(), st.integers(0, 255)), max_size=12))
def test_any_sequence_of_sizes(both: tuple[Arena, Arena], steps: list[tuple[int, bool, int]]) -> None:
    array, model = np.zeros(1, "u1"), bytearray(1)
    for size, active, value in steps:
        with ExitStack() as stack:
            if active:
                stack.enter_context(numpy_allocator.tiered(both[value % 2], MIN))
            array.resize(size, refcheck=False)
        model = model[:size] + bytes(max(0, size - len(model)))
        array[size // 2 :] = value
        model[size // 2 :] = bytes([value]) * (size - size // 2)
        assert array.tobytes() == model
    del array
