"""Exceptions, collections and signals that meet the allocator."""

import ctypes
import gc
import operator
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from arena import Arena
from installed import MIN, Array, Handler, SignalledError, do_nothing, handling, is_tiered, raise_signalled

from thermocline.numpy_allocator.handler import default_handler

# Calls its argument, without a line of Python.
call: Callable[[Callable[[], object]], Any] = operator.call


def fail_with(error: BaseException) -> object:
    raise error


@pytest.mark.parametrize("items", [10, MIN])
def test_a_pending_exception_survives_a_free(arena: Arena, items: int) -> None:
    cause, error = ValueError("the cause"), KeyError("pending")
    error.__cause__ = cause
    error.add_note("a note")
    with pytest.raises(KeyError) as caught:
        # Both arrays are freed while the exception passes.
        do_nothing(np.zeros(items), np.zeros((items, 2)), fail_with(error))
    assert caught.value is error
    assert error.__cause__ is cause
    assert error.__notes__ == ["a note"]
    assert caught.traceback[-1].name == "fail_with"
    assert error.__context__ is None
    assert arena.live() == 0


RAISE_AND_ALLOCATE = """
#include <stddef.h>

void *raise_and_allocate(void (*raise)(void *), void *exception, void *(*malloc)(void *, size_t),
                         void *context, size_t bytes)
{
    raise(exception);
    return malloc(context, bytes);
}
"""


def test_a_pending_exception_survives_an_allocation(arena: Arena, tmp_path: Path) -> None:
    """Nothing in NumPy is known to do this, so it takes a function that does."""
    source, made = tmp_path / "raise_and_allocate.c", tmp_path / "raise_and_allocate.so"
    source.write_text(RAISE_AND_ALLOCATE)
    subprocess.run([os.environ.get("CC", "cc"), "-shared", "-fPIC", "-o", made, source], check=True)
    types = (ctypes.c_void_p, ctypes.py_object, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)
    raise_and_allocate = ctypes.PYFUNCTYPE(ctypes.c_void_p, *types)(("raise_and_allocate", ctypes.CDLL(str(made))))
    raise_ = ctypes.cast(ctypes.pythonapi.PyErr_SetNone, ctypes.c_void_p)
    context, malloc, *_ = default_handler().functions
    with pytest.raises(LookupError):
        raise_and_allocate(raise_, LookupError, malloc, context, MIN)
    assert arena.live() == 1
    arena.take_back(list(arena.blocks))
    assert arena.live() == 0


def test_an_exception_in_the_middle_of_an_array(arena: Arena) -> None:
    def items() -> Iterator[float]:
        yield from map(float, range(2 * MIN))
        raise LookupError("no more")

    with pytest.raises(LookupError, match="no more"):
        np.fromiter(items(), float)
    with pytest.raises(ValueError, match="could not convert"):
        np.array([*map(float, range(2 * MIN)), "a word"], dtype=float)
    assert arena.live() == 0
    assert arena.frees >= 2


def test_exceptions_that_meet_collections(arena: Arena) -> None:
    """The free of a block with an exception pending runs Python, which collects, which frees more."""
    arena.during_free = gc.collect
    for _ in range(20):
        cycle: list[object] = [np.zeros(MIN)]
        cycle.append(cycle)
        del cycle
        with pytest.raises(KeyError):
            do_nothing(np.zeros(MIN), fail_with(KeyError("pending")))


def test_a_collection_inside_the_source(arena: Arena) -> None:
    arena.during_allocation = gc.collect
    for _ in range(20):
        cycle: list[object] = [np.zeros(MIN)]
        cycle.append(cycle)
        del cycle
        assert not np.zeros(MIN).any()
    gc.collect()
    assert arena.live() == 0


def test_the_recursion_limit_stops_no_allocation(arena: Arena) -> None:
    made: list[Array] = []
    steps: list[str] = []

    def go_deep(frames: int) -> None:
        if frames:
            go_deep(frames - 1)

    def work() -> None:
        steps.append("begin")
        go_deep(20)
        steps.append("end")

    def descend() -> None:
        made.append(np.empty(MIN, "u1"))
        descend()

    arena.during_allocation = work
    with pytest.raises(RecursionError):
        descend()
    assert steps.count("begin") == steps.count("end") == arena.allocations
    assert is_tiered(made[0])
    assert not is_tiered(made[-1])  # there was no room to ask for more


def test_the_recursion_limit_loses_no_block(arena: Arena) -> None:
    held = [np.empty(MIN, "u1") for _ in range(sys.getrecursionlimit())]

    def descend() -> None:
        held.pop()
        descend()

    with pytest.raises(RecursionError):
        descend()
    held.clear()
    assert arena.live() == 0


def test_the_recursion_limit_leaves_what_is_resized_as_it_was(arena: Arena) -> None:
    array = np.ones(MIN, "u1")

    def descend() -> None:
        array.resize(array.size ^ (3 * MIN), refcheck=False)
        descend()

    with pytest.raises(MemoryError):
        descend()
    assert is_tiered(array)
    assert array[:MIN].all()
    assert not array[MIN:].any()


def test_a_signal_handler_may_allocate(arena: Arena) -> None:
    made: list[Array] = []
    arena.during_allocation = lambda: signal.raise_signal(signal.SIGUSR1)
    arena.during_free = lambda: signal.raise_signal(signal.SIGUSR1)
    with handling(signal.SIGUSR1, lambda *_: made.append(np.ones(MIN))):
        array = np.zeros(MIN)
        assert is_tiered(array)
        del array
    assert [int(each.sum()) for each in made] == [MIN, MIN]


def test_what_a_handler_raises_inside_the_source_reaches_the_program(arena: Arena) -> None:
    once = [signal.SIGUSR1]

    def strike() -> None:
        if once:
            signal.raise_signal(once.pop())

    arena.during_allocation = strike
    made: list[Array] = []
    with handling(signal.SIGUSR1, raise_signalled), pytest.raises(SignalledError, match="from the handler"):
        made.extend(map(np.zeros, [MIN]))
        do_nothing()
        pytest.fail("not raised")
    assert is_tiered(made[0])


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGINT])
def test_a_signal_that_came_during_a_numpy_call(arena: Arena, number: signal.Signals) -> None:
    """The first Python to run after the signal is the allocator's, so the handler runs there."""
    strike = partial(ctypes.CDLL(None)["raise"], int(number))
    made: list[Array] = []
    expected = KeyboardInterrupt if number == signal.SIGINT else SignalledError
    handlers: dict[int, Handler] = {signal.SIGINT: signal.default_int_handler, signal.SIGUSR1: raise_signalled}
    with handling(number, handlers[number]):
        with pytest.raises(expected):
            steps: list[Callable[[], object]] = [strike, partial(np.zeros, MIN)]
            made.extend(map(call, steps))  # all of it in C
            do_nothing()
            pytest.fail("not raised")
        assert len(made) == 2
        assert is_tiered(made[1])
        with pytest.raises(expected):
            steps = [strike, made.clear]
            list(map(call, steps))
            do_nothing()
            pytest.fail("not raised")
    assert arena.live() == 0


def test_an_error_of_the_source_reaches_the_thread_it_happened_in(arena: Arena) -> None:
    def break_down() -> None:
        raise SignalledError

    arena.during_allocation = break_down
    caught: list[BaseException] = []

    def work() -> None:
        try:
            np.zeros(MIN)
            while True:
                do_nothing()
        except SignalledError as error:
            caught.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    while thread.is_alive():
        do_nothing()  # the main thread passes the exception on
    assert len(caught) == 1
