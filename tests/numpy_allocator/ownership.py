"""Whose block an array is, and what happens when there is none."""

import ctypes
import sys

import numpy as np
import pytest
from arena import Arena
from installed import HIGH, LOW, MIN, address, is_tiered, sources

from thermocline import numpy_allocator
from thermocline.numpy_allocator.handler import default_handler


def test_views_keep_the_block(arena: Arena) -> None:
    array = np.arange(MIN)
    view = array[10:20].reshape(2, 5).T
    del array
    assert arena.live() == 1
    assert view.sum() == sum(range(10, 20))
    del view
    assert arena.live() == 0


def test_the_innermost_activation_counts(both: tuple[Arena, Arena]) -> None:
    first, second = both
    with numpy_allocator.tiered(first, MIN):
        with numpy_allocator.tiered(second, 2 * MIN):
            kept = np.zeros(2 * MIN, "u1")
            assert is_tiered(kept, second)
            assert not is_tiered(np.zeros(MIN, "u1"))
        assert is_tiered(np.zeros(MIN, "u1"), first)
        other = np.zeros(2 * MIN, "u1")
        assert (first.live(), second.live()) == (1, 1)
        del kept
        assert (first.live(), second.live()) == (1, 0)
    del other
    assert first.live() == 0


def test_activations_may_end_in_any_order(both: tuple[Arena, Arena]) -> None:
    outer = numpy_allocator.activate(both[0], MIN)
    numpy_allocator.activate(both[1], MIN)
    numpy_allocator.deactivate(outer)
    numpy_allocator.deactivate(outer)  # has ended already: no error, and no other's end
    assert is_tiered(np.zeros(MIN), both[1])
    numpy_allocator.deactivate()
    assert not is_tiered(np.zeros(MIN))
    numpy_allocator.deactivate()


def test_arrays_outlive_the_activation(both: tuple[Arena, Arena]) -> None:
    with numpy_allocator.tiered(both[0], MIN):
        array = np.arange(MIN)
    assert array.sum() == sum(range(MIN))
    assert both[0].live() == 1
    del array
    assert both[0].live() == 0


def test_arrays_of_a_forgotten_source() -> None:
    with sources() as (first, _), numpy_allocator.tiered(first, MIN):
        array = np.ones(MIN, "u1")
    assert array.sum() == MIN
    with pytest.raises(MemoryError):
        array.resize(3 * MIN)
    assert array.sum() == MIN
    del array
    assert (first.frees, first.live()) == (0, 1)


def test_forgetting_a_source_ends_its_activations() -> None:
    with sources() as (first, second):
        numpy_allocator.activate(second, MIN)
        with numpy_allocator.tiered(first, MIN):
            numpy_allocator.unregister_source(first)
            assert is_tiered(np.zeros(MIN), second)
        numpy_allocator.unregister_source(second)
        assert not is_tiered(np.zeros(MIN))


def test_the_source_of_an_address(both: tuple[Arena, Arena]) -> None:
    with numpy_allocator.tiered(both[1], MIN):
        array = np.zeros(MIN)
    assert numpy_allocator.source_of(address(array) + array.nbytes - 1) is both[1]
    assert numpy_allocator.source_of(LOW) is both[0]
    assert numpy_allocator.source_of(LOW - 1) is None
    assert numpy_allocator.source_of(HIGH) is None
    del array


def test_out_of_memory_is_a_memory_error_and_the_program_goes_on() -> None:
    small = Arena(LOW, LOW + 4 * MIN)
    numpy_allocator.register_source(small, small.low, small.high)
    try:
        with numpy_allocator.tiered(small, MIN):
            array = np.arange(MIN // 4)  # of eight bytes
            for make in (np.empty, np.zeros):
                with pytest.raises(MemoryError, match="Unable to allocate"):
                    make(3 * MIN, "u1")
            with pytest.raises(MemoryError):
                array.resize(MIN)
            plain = np.arange(10)
            with pytest.raises(MemoryError):
                plain.resize(MIN)
            assert np.array_equal(plain, range(10))
            assert np.array_equal(array, range(MIN // 4))
            assert np.arange(100).sum() == 4950
            del array
            assert is_tiered(np.ones(2 * MIN, "u1"))
    finally:
        numpy_allocator.unregister_source(small)


def test_a_memory_error_that_comes_meanwhile_is_raised_as_it_is(arena: Arena) -> None:
    def fail() -> None:
        raise MemoryError("a watchdog's")

    arena.during_allocation = fail
    with pytest.raises(MemoryError, match="a watchdog's"):
        np.zeros(MIN)


def test_a_product_that_overflows_is_no_memory(arena: Arena) -> None:
    context, _, calloc, *_ = default_handler().functions
    prototype = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_size_t)
    assert prototype(calloc)(context, 2**33, 2**33) is None
    assert prototype(calloc)(context, 2**33 + 1, 2**31) is None
    assert arena.allocations == 0


def test_a_source_may_decline(arena: Arena) -> None:
    array = np.ones(MIN, "u1")
    with arena._lock:
        arena._busy = True
        try:
            assert not is_tiered(np.zeros(MIN))
            plain = np.ones(10, "u1")
            plain.resize(2 * MIN)
            assert not is_tiered(plain)
            array.resize(3 * MIN)  # must go somewhere
        finally:
            arena._busy = False
    assert not is_tiered(array)
    assert array.sum() == MIN
    assert plain.sum() == 10


def test_arrays_that_come_and_go_leave_no_object_behind(arena: Arena) -> None:
    def come_and_go(times: int) -> int:
        for _ in range(times):
            np.zeros(MIN)
        return sys.getallocatedblocks()

    before = come_and_go(100)
    assert come_and_go(1000) < before + 500
    assert arena.live() == 0
