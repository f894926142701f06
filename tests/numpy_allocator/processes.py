"""Forked children."""

import gc
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing import get_context

import numpy as np
import pytest
from arena import Arena
from installed import HALF, HIGH, LOW, MIN, Array, freed_in_child_hook, is_tiered

from thermocline import numpy_allocator


def outcome_of_child(action: Callable[[], object]) -> int:
    """The exit status of a forked child: 0 if the action returns, 1 if it raises, and a signal's negative."""
    child = os.fork()
    if child == 0:
        try:
            action()
        except BaseException:
            import traceback

            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_a_forked_child_leaves_the_arena_alone(arena: Arena) -> None:
    held = [np.arange(MIN), np.ones(MIN)]
    freed_in_child_hook.append(np.ones(MIN))

    def act() -> None:
        assert not is_tiered(np.zeros(MIN))
        assert held[0].sum() == sum(range(MIN))
        held[1].resize(10 * MIN, refcheck=False)
        assert not is_tiered(held[1])
        assert (held[1].size, held[1].sum()) == (10 * MIN, MIN)
        held.clear()
        gc.collect()
        assert arena.frees == 0
        numpy_allocator.deactivate()  # what the parent's `with` would do here
        assert not is_tiered(np.zeros(MIN))
        own = Arena(LOW + HALF, HIGH)
        numpy_allocator.register_source(own, own.low, own.high)
        with numpy_allocator.tiered(own, MIN):
            mine = np.zeros(MIN)
            assert is_tiered(mine, own)
            del mine
        assert own.live() == 0

    assert outcome_of_child(act) == 0
    freed_in_child_hook.clear()
    assert arena.live() == 2


@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
def test_a_forked_child_may_have_a_source_at_once(arena: Arena) -> None:
    held = np.ones(MIN)

    def act() -> None:
        own = Arena(LOW + HALF // 2, LOW + HALF)  # where the parent's source is
        numpy_allocator.register_source(own, own.low, own.high)
        with numpy_allocator.tiered(own, MIN):
            assert is_tiered(np.zeros(MIN), own)

    with another_thread_holds_the_lock():
        assert outcome_of_child(act) == 0
    assert held.sum() == MIN


@contextmanager
def another_thread_holds_the_lock() -> Iterator[None]:
    """Another thread is in the middle of an operation for as long as this lasts."""
    allocator = numpy_allocator._installed()
    holds, may_end = threading.Event(), threading.Event()

    def hold() -> None:
        holds.set()
        may_end.wait()

    thread = threading.Thread(target=allocator._guard.run, args=(hold,))
    thread.start()
    holds.wait()
    try:
        yield
    finally:
        may_end.set()
        thread.join()


def double(array: Array) -> tuple[bool, Array]:
    result = array + array
    return is_tiered(result), result


def test_pools_of_forked_processes(arena: Arena) -> None:
    arrays = [np.full(MIN, number) for number in range(4)]
    with get_context("fork").Pool(2) as pool:
        for array, (tiered, result) in zip(arrays, pool.map(double, arrays), strict=True):
            assert not tiered
            assert np.array_equal(result, array * 2)
