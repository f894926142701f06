"""Arguments that are refused change nothing: everything is checked before shared state is touched."""

import gc
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from thermocline import Memory
from thermocline.errors import OutOfMemory, SpecError, ThermoclineError
from thermocline.spec import parse_spec

PAGE = 64 << 10


def write(file: Path, value: float, count: int = 100_000) -> Path:
    np.full(count, value).tofile(file)
    return file


# -- from_file --------------------------------------------------------------------------------------------------------


def test_a_refused_shape_leaves_each_array_the_bytes_of_its_own_file(memory: Memory, tmp_path: Path) -> None:
    """A source that was dropped twice had a free number twice, and two arrays were made of it."""
    ones, twos = write(tmp_path / "ones", 1.0), write(tmp_path / "twos", 2.0)
    for shape in ((-2, 250), (-1, -1), (-1, 0), (-1, 251), (400, 250, *(1,) * 80), 10**6):
        with pytest.raises(ValueError):
            memory.from_file(ones, "f8", shape=shape)
    first = memory.from_file(ones, "f8", shape=(400, 250))
    between = memory.zeros(1000)
    second = memory.from_file(twos, "f8", shape=(400, 250))
    assert (first.min(), first.max(), second.min(), second.max()) == (1.0, 1.0, 2.0, 2.0)
    assert not between.any()


@pytest.mark.parametrize("shape", [(2.5, 3), 1001 / 2, (1001 / 2, 2), "12", (None, 2), {"a": 1}, object()])
def test_what_is_no_shape_is_a_type_error_as_for_numpy(memory: Memory, tmp_path: Path, shape: Any) -> None:
    with pytest.raises(TypeError):
        np.zeros(shape)
    file = write(tmp_path / "file", 3.0)
    for make in (memory.zeros, memory.empty, lambda shape: memory.from_file(file, "f8", shape)):
        with pytest.raises(TypeError):
            make(shape)
    with pytest.raises(TypeError):
        memory.from_file(file, "f8", offset=8.0)  # type: ignore[arg-type]
    assert memory.from_file(file).sum() == 300_000
    assert memory.zeros(3).tolist() == [0, 0, 0]


def test_one_extent_of_a_file_may_be_left_open(memory: Memory, tmp_path: Path) -> None:
    file = tmp_path / "file"
    plain = np.arange(1000.0)
    plain.tofile(file)
    for shape in ((-1, 250), (4, -1), (2, -1, 5), -1, (-1,)):
        assert np.array_equal(memory.from_file(file, "f8", shape), plain.reshape(shape))
    assert memory.from_file(file, "f8", (-1, 9), offset=80 * 8 + 20 * 8).shape == (100, 9)
    with pytest.raises(SpecError, match="do not fill"):
        memory.from_file(file, "f8", shape=(-1, 7))
    for shape in (np.int64(10), np.array(10), np.array([5, 2]), [2, 5]):
        assert memory.from_file(file, "f8", shape).shape == np.empty(shape).shape
    with pytest.raises(ValueError, match="negative"):
        memory.zeros((-1, 250))


@pytest.mark.parametrize("dtype", ["S", "U", "V", "S0", []])
def test_elements_without_bytes_are_no_file_s(memory: Memory, tmp_path: Path, dtype: Any) -> None:
    with pytest.raises(SpecError, match="take no bytes"):
        memory.from_file(write(tmp_path / "file", 1.0), dtype)
    assert memory.zeros(3, dtype).dtype == np.zeros(3, dtype).dtype


def test_what_is_not_a_regular_file_is_refused_without_waiting(memory: Memory, tmp_path: Path) -> None:
    """open(2) of a FIFO waits for a writer."""
    os.mkfifo(tmp_path / "fifo")
    for file in (tmp_path / "fifo", tmp_path, "/dev/zero", "/dev/tty", str(tmp_path / "fifo").encode()):
        with pytest.raises((SpecError, OSError)):
            memory.from_file(file)  # type: ignore[arg-type]
    assert memory.zeros(3).tolist() == [0, 0, 0]


def test_an_empty_rest_of_a_file_needs_no_file(memory: Memory, tmp_path: Path) -> None:
    file = write(tmp_path / "file", 1.0)
    assert memory.from_file(file, offset=800_000).shape == (0,)
    assert memory.from_file(file, offset=10**30).shape == (0,)
    assert memory.from_file(file, shape=(3, 0)).shape == (3, 0)
    assert memory.stat()["processes"] == 1


def test_a_block_that_cannot_be_described_is_not_taken(memory: Memory, monkeypatch: pytest.MonkeyPatch) -> None:
    """madvise(2) fails where the program has locked its memory, for example."""
    from thermocline.live import regions

    committed = memory._regions.commitment.committed
    with monkeypatch.context() as patch:

        def refuse(*_: object) -> None:
            raise OSError(22, "madvise: Invalid argument")

        patch.setattr(regions.libc, "discard", refuse)
        for _ in range(3):
            with pytest.raises(OSError, match="madvise"):
                memory.zeros(100_000)
    assert memory._regions.commitment.committed == committed
    array = memory.zeros(100_000)
    assert array.ctypes.data == memory._regions.session.address
    assert not array.any()


# -- nonsense ---------------------------------------------------------------------------------------------------------

_extents = st.one_of(
    st.integers(-3, 12),
    st.sampled_from([2**31, 2**40, 2**63 - 1, 2**63, 2**64, 2**100, -(2**63), -(2**70)]),
    st.floats(),
    st.sampled_from([None, "3", b"3", np.int8(3), np.float32(2.5), np.nan, True, [2], object()]),
)
_shapes = st.one_of(_extents, st.lists(_extents, max_size=4).map(tuple), st.just((1,) * 70), st.just(np.zeros((2, 2))))
_dtypes = st.sampled_from(
    ["f8", "u1", "S", "S7", "U", "V", "V3", "O", "nonsense", "M8[s]", "f8,i4", None, [], "(2,3)f4", 7, float, object]
).flatmap(lambda dtype: st.sampled_from([dtype, np.dtype([("b", "S0")]), np.dtype(("f8", (0,)))]))
_offsets = st.one_of(st.integers(-10, 900), st.sampled_from([2**63, 2**64, 2**200]), st.floats(), st.none())
_values = st.one_of(st.floats(), st.text(max_size=3), st.none(), st.lists(st.one_of(st.floats(), st.lists(st.none()))))
_sizes = st.one_of(st.integers(-2, 3), st.floats(), st.sampled_from(["", "1MiB", "x", None, 2**70, "4EiB"]))


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@example(shape=(-1, 250), dtype="f8", offset=0, value=0, size=1, kind="file")
@example(shape=(2.5, 3), dtype="f8", offset=0, value=0, size=1, kind="missing")
@example(shape=(1,) * 70, dtype="f8", offset=0, value=0, size=1, kind="file")
@given(
    shape=_shapes,
    dtype=_dtypes,
    offset=_offsets,
    value=_values,
    size=_sizes,
    kind=st.sampled_from(["file", "missing", "fifo", ".", "empty", "\0", 5, None]),
)
def test_nonsense_leaves_a_memory_as_it_was(
    memory: Memory, tmp_path: Path, shape: Any, dtype: Any, offset: Any, value: Any, size: Any, kind: Any
) -> None:
    file, other = tmp_path / "file", tmp_path / "other"
    if not file.exists():
        write(file, 1.0, 1000)
        write(other, 2.0, 1000)
        os.mkfifo(tmp_path / "fifo")
        (tmp_path / "empty").touch()
    named = tmp_path / kind if isinstance(kind, str) else kind
    arrays = [memory.from_file(other)]
    calls: list[Callable[[], object]] = [
        lambda: memory.from_file(named, dtype, shape, offset),
        lambda: memory.zeros(shape, dtype),
        lambda: memory.full(shape, value, "f8"),
        lambda: memory.full(3, value, dtype),
        lambda: memory.full(3, value),
        lambda: memory.array(value, dtype),
        lambda: memory.array(shape),
        lambda: memory.advise(value, dtype),
        lambda: memory.advise(arrays[0], value),
        lambda: memory.share(value),
        lambda: memory.pin(value).__enter__(),
        lambda: memory.numpy(size).__enter__(),
        lambda: memory.group(value, dram=size, memory=offset),
        lambda: memory.group("limited", dram=offset, memory=size),
        lambda: Memory(value),
        lambda: Memory(dtype, page_size=size),
        lambda: Memory("dram=1MiB", page_size=size, readahead=offset, design=value).close(),
        lambda: Memory("dram=1MiB", clean=value, fork=dtype).close(),
        lambda: parse_spec(value, offset),
    ]
    for call in calls:
        # Whatever a caller may be told; never a signal, a hang or an error of another class.
        with suppress(TypeError, ValueError, OSError, MemoryError, OverflowError, AttributeError, ThermoclineError):
            call()
    gc.collect()
    assert np.unique(memory.from_file(file)).tolist() == [1.0]
    assert np.unique(arrays[0]).tolist() == [2.0]
    assert not memory.zeros(PAGE, "u1").any()
    arrays.clear()
    books = memory.stat()
    assert memory._regions.commitment.committed == 0
    assert (books["processes"], books["pager"]["starts"]) == (1, 1)


def test_more_than_a_memory_holds_is_a_memory_error_however_much(memory: Memory) -> None:
    for shape in (2**40, 2**63, (2**62, 2**62), 10**40):
        with pytest.raises(OutOfMemory):
            memory.zeros(shape)
