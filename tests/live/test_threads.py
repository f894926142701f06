"""Two threads use one memory, and take turns as often as the interpreter lets them."""

import sys
import threading
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from thermocline import Memory
from thermocline.arrays import _known_blocks


@pytest.fixture(autouse=True)
def quick_turns() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def at_once(*calls: Callable[[], object]) -> None:
    """Make calls in threads of their own, and raise what one raises."""
    errors: list[BaseException] = []
    barrier = threading.Barrier(len(calls))

    def run(call: Callable[[], object]) -> None:
        barrier.wait()
        try:
            call()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(call,)) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for error in errors:
        raise error


def test_groups_are_opened_and_closed_by_many_threads(memory: Memory) -> None:
    groups = [memory.group(f"group {number}", dram="1MiB") for number in range(4)]

    def open_often(number: int) -> None:
        for _ in range(5000):
            with groups[number].numpy(1 << 40):
                pass

    at_once(*(lambda number=number: open_often(number) for number in range(4)))  # type: ignore[misc]
    assert _known_blocks[memory._regions]._charged == {}


def test_a_memory_is_made_known_to_numpy_once() -> None:
    for _ in range(30):
        with Memory("dram=2MiB, zstd=16MiB") as memory:

            def make(memory: Memory = memory) -> None:
                with memory.numpy():
                    assert np.ones(1 << 18).sum() == 1 << 18

            at_once(make, make, make)


def test_what_is_pinned_is_counted_by_many_threads(memory: Memory) -> None:
    arrays = [memory.zeros(10) for _ in range(3)]

    def pin_often(array: "np.ndarray[tuple[int, ...], np.dtype[np.float64]]") -> None:
        for _ in range(300):
            with memory.pin(array):
                pass

    at_once(*(lambda array=array: pin_often(array) for array in arrays))  # type: ignore[misc]
    assert memory._regions.pins.pages == 0
