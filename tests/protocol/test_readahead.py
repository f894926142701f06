"""Streams: what is read ahead of sequential, strided, backward and interleaved readers, and of none."""

from __future__ import annotations

import random

import pytest

from thermocline.protocol.readahead import LONGEST_RUN, MARKED, SLACK, Stream

LARGEST = 16


def misses(stream: Stream, touches: list[int], present: set[int], largest: int = LARGEST) -> list[range]:
    """The windows of a reader that faults only where the page is not there yet."""
    windows = []
    for page in touches:
        if page not in present:
            ahead = stream.window(page, largest)
            window = range(ahead[0].start, ahead[-1].stop, ahead[0].step) if ahead else range(0)
            present.update(window, [page])
            windows.append(window)
    return windows


@pytest.mark.parametrize("stride", [1, 3, 64, -1, -5])
def test_a_stream_is_found_and_its_window_doubles_up_to_the_largest(stride: int) -> None:
    start = 10_000
    windows = misses(Stream(), [start + stride * step for step in range(100)], set())
    seen_twice = [] if stride == 1 else [0]  # a stride of one page is expected from the first fault on
    # Of a window that has a marker, one page is left out.
    assert [len(window) for window in windows][:7] == [0, *seen_twice, 2, 4, 7, 15, 15, 15][:7]
    assert all(window.step == stride for window in windows if window)
    assert max(len(window) for window in windows) == LARGEST - 1


def test_a_short_window_begins_behind_the_fault_and_the_next_fault_is_expected_at_its_end() -> None:
    stream = Stream()
    assert stream.window(0, 16) == []
    assert stream.window(1, 16) == [range(2, 4)]
    assert stream.window(4, 16) == [range(5, 9)]


def test_a_long_window_leaves_out_its_first_page_at_which_the_next_window_is_read() -> None:
    """So the reader has all of one window before it while the next one is on its way."""
    stream = Stream()
    for page in (0, 1, 4):
        stream.window(page, 16)
    assert stream.window(9, 16) == [range(11, 18)]
    assert stream.window(10, 16) == [range(19, 34)]
    assert stream.window(18, 16) == [range(35, 50)]


def test_a_long_window_is_read_in_runs() -> None:
    stream = Stream()
    ahead = stream.window(0, 100, eager=True)
    assert [page for run in ahead for page in run] == list(range(2, 101))
    assert max(map(len, ahead)) == LONGEST_RUN


def test_a_fault_within_a_window_that_is_on_its_way_reads_nothing_ahead() -> None:
    stream = Stream()
    stream.window(0, 16, eager=True)
    stream.window(1, 16)
    assert stream.window(5, 16) == []
    assert stream.window(17, 16) == [range(34, 49)]


@pytest.mark.parametrize("past", range(SLACK + 1))
def test_a_reader_that_steps_over_pages_that_are_there_goes_on_with_its_window(past: int) -> None:
    stream = Stream()
    for page in (0, 1, 4):
        stream.window(page, 8)
    assert stream.window(9, 8) == [range(11, 18)]
    # Its marker, page 10, and what is behind it were there; the window does not grow by that.
    assert sum(map(len, stream.window(18 + past, 8))) == MARKED - 1
    assert stream.window(18 + past + MARKED + SLACK + 2, 8) == []


def test_a_window_is_cut_to_the_largest_that_is_allowed_now() -> None:
    stream = Stream()
    stream.window(0, 16)
    assert [[len(run) for run in stream.window(page, 3)] for page in (1, 4, 8)] == [[2], [3], [3]]


def test_interleaved_readers_are_told_apart() -> None:
    bases = [0, 10_000, 20_000, 30_000]
    touches = [base + step for step in range(60) for base in bases]
    present: set[int] = set()
    windows = misses(Stream(), touches, present)
    assert max(len(window) for window in windows) == LARGEST - 1
    assert len(windows) < len(touches) / 4
    assert len(present) < len(touches) + 2 * LARGEST * len(bases)


def test_random_faults_read_nothing_ahead() -> None:
    """Far apart, that is: near faults look like a stride until the third."""
    random_pages = random.Random(1).sample(range(0, 100_000_000, 1000), 500)
    stream = Stream()
    assert not any(len(stream.window(page, LARGEST)) for page in random_pages)


def test_random_misses_close_to_a_short_window_are_no_stream() -> None:
    stream = Stream()
    for page in (0, 1):
        stream.window(page, LARGEST)
    assert stream.window(1000, LARGEST) == []
    assert stream.run(3, 5, 16) == range(5, 6), "a part of the page, though the window has the page"
    assert stream.run(6, 5, 16) == range(5, 6)
    assert stream.run(4, 5, 16) is None, "where the stream is expected"


def test_a_stride_beyond_the_largest_is_no_stream() -> None:
    stream = Stream()
    assert not any(len(stream.window(65 * step, LARGEST)) for step in range(20))


def test_sequential_advice_begins_with_the_largest_window() -> None:
    stream = Stream()
    assert stream.window(7, LARGEST, eager=True) == [range(9, 8 + LARGEST)]
    assert stream.window(8, LARGEST, eager=True) == [range(9 + LARGEST, 8 + 2 * LARGEST)]


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
