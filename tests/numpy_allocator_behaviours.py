"""What NumPy's allocator promises, with the filter installed in this very process.

Not collected by itself: NumPy's functions are replaced once in a process and for good, so `test_numpy_allocator` runs
this file in a process of its own, for each way the filter is made.
"""

import ctypes
import gc
import io
import os
import signal
import sys
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from multiprocessing import get_context
from operator import call

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy_allocator_arena import PAGE, Arena, reserve

from thermocline import numpy_allocator
from thermocline.numpy_allocator.handler import default_handler

Array = npt.NDArray[np.generic]

MIN = 1 << 16
HALF = 1 << 32
LOW = reserve(2 * HALF)
HIGH = LOW + 2 * HALF

freed_in_child_hook: list[Array] = []
os.register_at_fork(after_in_child=freed_in_child_hook.clear)  # runs before the allocator's own hook

numpy_allocator.install(LOW, HIGH)


class SignalledError(Exception):
    """What a signal handler raises here."""


@contextmanager
def sources() -> Iterator[tuple[Arena, Arena]]:
    first, second = Arena(LOW, LOW + HALF), Arena(LOW + HALF, HIGH)
    for source in (first, second):
        numpy_allocator.register_source(source, source.low, source.high)
    try:
        yield first, second
    finally:
        for source in (first, second):
            numpy_allocator.unregister_source(source)


@pytest.fixture
def both() -> Iterator[tuple[Arena, Arena]]:
    """Two sources, none active; all blocks must have come back at the end."""
    with sources() as pair:
        yield pair
        gc.collect()
        assert [source.live() for source in pair] == [0, 0]


@pytest.fixture
def arena(both: tuple[Arena, Arena]) -> Iterator[Arena]:
    """A source that is active for arrays of MIN bytes."""
    with numpy_allocator.tiered(both[0], MIN):
        yield both[0]


@contextmanager
def handling(number: int, handler: Callable[..., object]) -> Iterator[None]:
    before = signal.signal(number, handler)
    try:
        yield
    finally:
        signal.signal(number, before)


def address(array: Array) -> int:
    return int(array.ctypes.data)


def is_tiered(array: Array, source: Arena | None = None) -> bool:
    low, high = (source.low, source.high) if source else (LOW, HIGH)
    return low <= address(array) < high


def raise_signalled(*_: object) -> None:
    raise SignalledError("from the handler")


# --- what is tiered ---


def test_the_size_decides(arena: Arena) -> None:
    for make in (np.empty, np.zeros, np.ones):
        assert is_tiered(make(MIN, "u1"))
        assert is_tiered(make((256, 256)))
        assert not is_tiered(make(MIN - 1, "u1"))
        assert not is_tiered(make(0))
    assert is_tiered(np.array(range(MIN)))
    assert is_tiered(np.arange(MIN) * 2)
    assert is_tiered(np.random.default_rng(1).random(MIN))


def test_nothing_is_tiered_outside(both: tuple[Arena, Arena]) -> None:
    assert not is_tiered(np.zeros(MIN))
    with numpy_allocator.tiered(both[0], MIN):
        pass
    assert not is_tiered(np.zeros(MIN))


def test_zeros_are_zeros_in_a_block_used_before(arena: Arena) -> None:
    first = np.full(MIN, 7, "u1")
    place = address(first)
    del first
    again = np.zeros(MIN, "u1")
    assert address(again) == place
    assert not again.any()


def test_small_arrays_never_enter_python(arena: Arena) -> None:
    entered = []
    sys.setprofile(lambda frame, event, _: entered.append(frame.f_code.co_name) if event == "call" else None)
    try:
        for _ in range(100):
            np.empty(10)
            np.zeros(1000)
        small = list(entered)
        np.empty(MIN)
    finally:
        sys.setprofile(None)
    assert small == []
    assert {"serve", "drain"} <= set(entered)


@pytest.mark.parametrize(
    "compute",
    [
        lambda x: np.sort(x),
        lambda x: np.unique(np.round(x, 2), return_inverse=True)[1],
        lambda x: x.reshape(250, -1) @ x.reshape(-1, 250),
        lambda x: np.fft.rfft(x),
        lambda x: np.linalg.inv(x[: 200 * 200].reshape(200, 200)),
        lambda x: np.concatenate([x, x[::-1], np.repeat(x, 3)]),
        lambda x: np.where(x > 0.5, x, -x).cumsum(),
        lambda x: np.char.mod("%.3f", x[:5000]),
        lambda x: np.array([x[:100].tolist()] * 500, dtype=object),
        lambda x: x.astype("f4")[np.argsort(x)],
        lambda x: np.lib.stride_tricks.sliding_window_view(x, 16).sum(1),
        lambda x: np.loadtxt(io.StringIO("\n".join(map(str, x[:20000].tolist())))),
        lambda x: np.fromiter((y for y in x.tolist()), float),
        lambda x: np.load(stored(x)),
        lambda x: np.frombuffer(x.tobytes()).copy(),
        lambda x: np.pad(x, 1000, mode="reflect"),
        lambda x: np.lexsort((x, np.round(x))),
    ],
)
def test_results_are_those_of_plain_memory(both: tuple[Arena, Arena], compute: Callable[[Array], Array]) -> None:
    x = np.random.default_rng(5).random(62_500)
    expected = compute(x)
    with numpy_allocator.tiered(both[0], 4096):
        result = compute(x.copy())
        assert is_tiered(result)
        np.testing.assert_array_equal(result, expected)
        del result


def stored(x: Array) -> io.BytesIO:
    file = io.BytesIO()
    np.save(file, x)
    file.seek(0)
    return file


def test_threads_started_before_and_after(both: tuple[Arena, Arena]) -> None:
    seen: list[bool] = []
    active, made = threading.Event(), threading.Event()

    def early() -> None:
        active.wait()
        seen.append(is_tiered(np.zeros(MIN)))
        made.set()

    started_before = threading.Thread(target=early)
    started_before.start()
    with numpy_allocator.tiered(both[0], MIN):
        active.set()
        made.wait()
        started_after = threading.Thread(target=lambda: seen.append(is_tiered(np.zeros(MIN))))
        started_after.start()
        started_after.join()
    started_before.join()
    assert seen == [True, True]


def test_many_threads_at_once(arena: Arena) -> None:
    wrong: list[object] = []

    def work(seed: int) -> None:
        try:
            random = np.random.default_rng(seed)
            held: list[tuple[int, Array]] = []
            for step in range(400):
                size = int(random.integers(1, 4 * MIN))
                array = np.zeros(size, "u1")
                if array.any():
                    wrong.append((seed, step, "not zero"))
                array[:] = step % 251
                held.append((step % 251, array))
                if len(held) > 8:
                    mark, old = held.pop(int(random.integers(len(held))))
                    old.resize(int(random.integers(1, 4 * MIN)), refcheck=False)
                    if not np.isin(old, [mark, 0]).all() or old[0] != mark:
                        wrong.append((seed, step, "bytes"))
        except BaseException as error:
            wrong.append(error)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


# --- resizing ---


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


# --- whose block it is ---


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


def test_the_source_of_an_address(both: tuple[Arena, Arena]) -> None:
    with numpy_allocator.tiered(both[1], MIN):
        array = np.zeros(MIN)
    assert numpy_allocator.source_of(address(array) + array.nbytes - 1) is both[1]
    assert numpy_allocator.source_of(LOW) is both[0]
    assert numpy_allocator.source_of(LOW - 1) is None
    assert numpy_allocator.source_of(HIGH) is None
    del array


# --- no memory ---


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


def test_memory_error_of_the_source(arena: Arena) -> None:
    def fail() -> None:
        raise MemoryError

    arena.during_allocation = fail
    with pytest.raises(MemoryError, match="Unable to allocate"):
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


# --- exceptions ---


def do_nothing(*_: object) -> None:
    pass


def fail_with(error: BaseException) -> None:
    raise error


@pytest.mark.parametrize("items", [10, MIN])
def test_a_pending_exception_survives_a_free(arena: Arena, items: int) -> None:
    cause, error = ValueError("the cause"), KeyError("pending")
    error.__cause__ = cause
    error.add_note("a note")
    with pytest.raises(KeyError) as caught:
        do_nothing(np.zeros(items), np.zeros((items, 2)), fail_with(error))  # freed while the exception passes
    assert caught.value is error
    assert error.__cause__ is cause
    assert error.__notes__ == ["a note"]
    assert caught.traceback[-1].name == "fail_with"
    assert error.__context__ is None
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
    for _ in range(50):
        cycle: list[object] = [np.zeros(MIN)]
        cycle.append(cycle)
        del cycle
        with pytest.raises(KeyError):
            do_nothing(np.zeros(MIN), fail_with(KeyError("pending")))


def test_a_collection_inside_the_source(arena: Arena) -> None:
    arena.during_allocation = gc.collect
    for _ in range(50):
        cycle: list[object] = [np.zeros(MIN)]
        cycle.append(cycle)
        del cycle
        assert not np.zeros(MIN).any()
    gc.collect()
    assert arena.live() == 0


def test_the_recursion_limit_loses_no_block(arena: Arena) -> None:
    deepest = 0

    def descend(depth: int) -> float:
        nonlocal deepest
        deepest = depth
        array = np.ones(MIN, "u1")
        return descend(depth + 1) + float(array[0])

    with pytest.raises(RecursionError):
        descend(0)
    assert deepest > 100
    np.empty(MIN)
    assert arena.live() == 0


# --- signals ---


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
    arena.during_allocation = lambda: once and signal.raise_signal(once.pop())
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
    handler = signal.default_int_handler if number == signal.SIGINT else raise_signalled
    with handling(number, handler):
        with pytest.raises(expected):
            made.extend(map(call, [strike, partial(np.zeros, MIN)]))  # all of it in C
            do_nothing()
            pytest.fail("not raised")
        assert len(made) == 2
        assert is_tiered(made[1])
        with pytest.raises(expected):
            list(map(call, [strike, made.clear]))
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
            done.wait()  # until the main thread has run its pending calls
            do_nothing()
        except SignalledError as error:
            caught.append(error)

    done = threading.Event()
    thread = threading.Thread(target=work)
    thread.start()
    while thread.is_alive() and not caught:
        do_nothing()
        done.set()
    thread.join()
    assert len(caught) == 1


# --- processes ---


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
        with pytest.raises(MemoryError):
            held[1].resize(10 * MIN, refcheck=False)
        assert held[1].sum() == MIN
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


def double(array: Array) -> tuple[bool, Array]:
    result = array + array
    return is_tiered(result), result


def test_pools_of_forked_processes(arena: Arena) -> None:
    arrays = [np.full(MIN, number) for number in range(4)]
    with get_context("fork").Pool(2) as pool:
        for array, (tiered, result) in zip(arrays, pool.map(double, arrays), strict=True):
            assert not tiered
            assert np.array_equal(result, array * 2)


# --- with the rest of Python ---


def test_tracemalloc_counts_tiered_arrays(arena: Arena) -> None:
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        array = np.zeros(100 * MIN, "u1")
        assert is_tiered(array)
        assert tracemalloc.get_traced_memory()[0] - before > 99 * MIN
        growing = np.zeros(10, "u1")
        growing.resize(MIN)
        assert is_tiered(growing)
        del array, growing
        assert tracemalloc.get_traced_memory()[0] - before < MIN
    finally:
        tracemalloc.stop()


def test_installing_again() -> None:
    before = list(default_handler().functions)
    numpy_allocator.install(LOW, HIGH)
    assert list(default_handler().functions) == before
    with pytest.raises(RuntimeError, match="cannot be another"):
        numpy_allocator.install(LOW, HIGH + PAGE)


def test_wrong_arguments(both: tuple[Arena, Arena]) -> None:
    for low, high in ((LOW - PAGE, LOW + PAGE), (LOW, HIGH + PAGE), (LOW + PAGE, LOW + PAGE)):
        with pytest.raises(ValueError, match="not in the arena"):
            numpy_allocator.register_source(Arena(low, high), low, high)
    with pytest.raises(ValueError, match="overlaps"):
        numpy_allocator.register_source(Arena(LOW, LOW + PAGE), LOW, LOW + PAGE)
    with pytest.raises(ValueError, match="positive"):
        numpy_allocator.activate(both[0], 0)
    with pytest.raises(ValueError, match="no range"):
        numpy_allocator.activate(Arena(LOW, HIGH), MIN)
    assert not is_tiered(np.zeros(MIN))
