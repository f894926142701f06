"""Which arrays are tiered, and that they are arrays like all others."""

import io
import sys
import threading
import tracemalloc
from collections.abc import Callable

import numpy as np
import pytest
from arena import PAGE, Arena
from installed import HIGH, LOW, MIN, Array, address, is_tiered

from thermocline import numpy_allocator
from thermocline.numpy_allocator.handler import default_handler


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
        np.sort,
        lambda x: np.unique(np.round(x, 2), return_inverse=True)[1],
        lambda x: x.reshape(250, -1) @ x.reshape(-1, 250),
        np.fft.rfft,
        lambda x: np.linalg.inv(x[: 200 * 200].reshape(200, 200)),
        lambda x: np.concatenate([x, x[::-1], np.repeat(x, 3)]),
        lambda x: np.where(x > 0.5, x, -x).cumsum(),
        lambda x: np.char.mod("%.3f", x[:5000]),
        lambda x: np.array([x[:100].tolist()] * 500, dtype=object),
        lambda x: x.astype("f4")[np.argsort(x)],
        lambda x: np.lib.stride_tricks.sliding_window_view(x, 16).sum(1),
        lambda x: np.loadtxt(io.StringIO("\n".join(map(str, x[:20000].tolist())))),
        lambda x: np.fromiter((y for y in x.tolist()), float),
        lambda x: np.fromstring("\n".join(map(str, x.tolist())), sep="\n"),
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
