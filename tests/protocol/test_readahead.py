"""Streams: what is read ahead of sequential, strided, backward and interleaved readers, and of none."""

from __future__ import annotations

import random

import pytest

from thermocline.protocol.readahead import Stream

LARGEST = 16


def misses(stream: Stream, touches: list[int], present: set[int], largest: int = LARGEST) -> list[range]:
    """The windows of a reader that faults only where the page is not there yet."""
    windows = []
    for page in touches:
        if page not in present:
            window = stream.window(page, largest)
            present.update(window, [page])
            windows.append(window)
    return windows


@pytest.mark.parametrize("stride", [1, 3, 64, -1, -5])
def test_a_stream_is_found_and_its_window_doubles_up_to_the_largest(stride: int) -> None:
    start = 10_000
    windows = misses(Stream(), [start + stride * step for step in range(100)], set())
    seen_twice = [] if stride == 1 else [0]  # a stride of one page is expected from the first fault on
    assert [len(window) for window in windows][:7] == [0, *seen_twice, 2, 4, 8, 16, 16, 16][:7]
    assert all(window.step == stride for window in windows if window)
    assert max(len(window) for window in windows) == LARGEST


def test_a_window_begins_behind_the_fault_and_the_next_fault_is_expected_at_its_end() -> None:
    stream = Stream()
    assert list(stream.window(0, 16)) == []
    assert list(stream.window(1, 16)) == [2, 3]
    assert list(stream.window(4, 16)) == [5, 6, 7, 8]


def test_a_window_is_cut_to_the_largest_that_is_allowed_now() -> None:
    stream = Stream()
    stream.window(0, 16)
    assert [len(stream.window(page, 3)) for page in (1, 4, 8)] == [2, 3, 3]


def test_interleaved_readers_are_told_apart() -> None:
    bases = [0, 10_000, 20_000, 30_000]
    touches = [base + step for step in range(60) for base in bases]
    present: set[int] = set()
    windows = misses(Stream(), touches, present)
    assert max(len(window) for window in windows) == LARGEST
    assert len(windows) < len(touches) / 4
    assert len(present) < len(touches) + LARGEST * len(bases)


def test_random_faults_read_nothing_ahead() -> None:
    """Far apart, that is: near faults look like a stride until the third."""
    random_pages = random.Random(1).sample(range(0, 100_000_000, 1000), 500)
    stream = Stream()
    assert not any(len(stream.window(page, LARGEST)) for page in random_pages)


def test_a_stride_beyond_the_largest_is_no_stream() -> None:
    stream = Stream()
    assert not any(len(stream.window(65 * step, LARGEST)) for step in range(20))


def test_sequential_advice_begins_with_the_largest_window() -> None:
    stream = Stream()
    assert stream.window(7, LARGEST, eager=True) == range(8, 8 + LARGEST)
    assert len(stream.window(8 + LARGEST, LARGEST, eager=True)) == LARGEST


def test_a_page_that_is_missed_again_soon_in_another_place_is_wanted_as_a_whole() -> None:
    """A reader of rows that are longer than a part, or of columns, several rows of which are in a page."""
    stream = Stream()
    assert stream.run(7, 2, 16) == range(2, 3)
    assert stream.run(7, 6, 16) is None


def test_a_page_that_is_missed_again_much_later_is_not() -> None:
    """As two of many words that are looked up anywhere are in one page."""
    stream = Stream()
    assert stream.run(7, 2, 16) == range(2, 3)
    for page in range(1000, 100_000, 1000):
        assert stream.run(page, 0, 16) == range(1)
    assert stream.run(7, 6, 16) == range(6, 7)


def test_two_readers_of_one_page_that_go_on_where_they_were_are_told_from_one_with_long_steps() -> None:
    stream = Stream()
    assert stream.run(7, 2, 16) == range(2, 3)
    assert stream.run(9, 8, 16) == range(8, 9)
    assert stream.run(7, 3, 16) == range(3, 6)
    assert stream.run(9, 9, 16) == range(9, 12)
