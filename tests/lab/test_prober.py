"""Probing threads: on plain memory, where it is known what they must find, and on tiered memory."""

import ctypes
import errno
import mmap
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from numpy.typing import NDArray

import thermocline
from structures import in_c, in_python
from thermocline.lab.prober import Probe, Prober, Touches

PAGE = 4096
PAGES = 64

Words = NDArray[np.uint64]  # a row for each page


@pytest.fixture
def words() -> Words:
    """Plain memory, all zeros."""
    return np.frombuffer(mmap.mmap(-1, PAGES * PAGE), np.uint64).reshape(PAGES, -1)


def accesses(*touches: tuple[int, bool]) -> NDArray[np.uint32]:
    """Pages, and whether each is written."""
    return np.array([page << 1 | write for page, write in touches], np.uint32)


def random_accesses(seed: int, count: int, pages: int) -> NDArray[np.uint32]:
    """As many reads as writes, of any page."""
    return np.random.default_rng(seed).integers(0, pages << 1, count, np.uint32)


def written(touches: NDArray[np.uint32], pages: int) -> Words:
    """How often each page is written."""
    return np.bincount(touches[touches & 1 == 1] >> 1, minlength=pages).astype(np.uint64)


def prober_of(memory: Words, touches: NDArray[np.uint32], word: int = 0, think: float = 0) -> Prober:
    return Prober(memory.ctypes.data, PAGE, len(memory), touches, word, think)


def run_together(*probers: Prober) -> list[Touches]:
    with ThreadPoolExecutor(len(probers)) as threads:
        return list(threads.map(Prober.run, probers))


# --- what is touched ---


def test_each_write_adds_one_to_the_probers_word_of_the_page(words: Words) -> None:
    touches = random_accesses(1, 10_000, PAGES)
    outcome = prober_of(words, touches, word=3).run()
    assert outcome.mismatches == 0
    assert outcome.nanoseconds.dtype == np.uint32
    assert len(outcome.nanoseconds) == 10_000
    assert outcome.nanoseconds.any()
    assert np.array_equal(words[:, 3], written(touches, PAGES))
    words[:, 3] = 0
    assert not words.any()


def test_a_read_changes_nothing(words: Words) -> None:
    outcome = prober_of(words, accesses((0, False), (PAGES - 1, False))).run()
    assert (len(outcome.nanoseconds), outcome.mismatches) == (2, 0)
    assert not words.any()


def test_the_last_word_of_the_last_page(words: Words) -> None:
    prober_of(words, accesses((PAGES - 1, True)), word=PAGE // 8 - 1).run()
    assert words[-1, -1] == 1
    assert words.sum() == 1


def test_pages_of_another_size(words: Words) -> None:
    Prober(words.ctypes.data, PAGE // 2, 2 * PAGES, accesses((3, True)), 0).run()
    assert words[1, PAGE // 2 // 8] == 1
    assert words.sum() == 1


def test_no_access_at_all(words: Words) -> None:
    outcome = prober_of(words, accesses()).run()
    assert (len(outcome.nanoseconds), outcome.mismatches) == (0, 0)


def test_a_second_run_goes_on_from_the_first(words: Words) -> None:
    made = prober_of(words, accesses((5, False), (5, True), (5, False)))
    first, second = made.run(), made.run()
    assert (first.mismatches, second.mismatches) == (0, 0)
    assert words[5, 0] == 2
    assert not np.shares_memory(first.nanoseconds, second.nanoseconds)


def test_the_accesses_are_copied(words: Words) -> None:
    touches = accesses((1, True))
    made = prober_of(words, touches)
    touches[:] = accesses((2, True))
    made.run()
    assert words[1, 0] == words.sum() == 1


def test_several_threads_at_once_each_with_a_word_of_its_own(words: Words) -> None:
    touches = [random_accesses(word, 20_000, PAGES) for word in range(5)]
    outcomes = run_together(*(prober_of(words, each, word) for word, each in enumerate(touches)))
    assert [outcome.mismatches for outcome in outcomes] == [0] * 5
    for word, each in enumerate(touches):
        assert np.array_equal(words[:, word], written(each, PAGES))
    assert not words[:, 5:].any()


@pytest.mark.parametrize("byte", range(8))
def test_a_wrong_byte_is_counted_by_each_read_until_the_word_is_written(words: Words, byte: int) -> None:
    words.view("u1")[7, 8 + byte] ^= 1
    touches = accesses((7, False), (6, False), (7, False), (7, True), (7, False))
    outcome = prober_of(words, touches, word=1).run()
    assert outcome.mismatches == 2
    assert len(outcome.nanoseconds) == 5
    assert words[7, 1] == 1


def test_mismatches_are_those_of_one_run(words: Words) -> None:
    words[0, 0] = 9
    made = prober_of(words, accesses((0, False)))
    assert [made.run().mismatches for _ in range(2)] == [1, 1]


def test_the_word_of_another_is_none_of_its_business(words: Words) -> None:
    words[:, 0] = words[:, 2] = 9
    assert prober_of(words, random_accesses(1, 1000, PAGES), word=1).run().mismatches == 0


# --- how long it takes ---


class Time(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_int64), ("nanoseconds", ctypes.c_int64))

    def total(self) -> int:
        return int(self.seconds) * 10**9 + int(self.nanoseconds)


class Clock:
    """Stands in for the C library's clock and sleep. Writes down what it is asked, and what page 0 holds by then.

    Parameters
    ----------
    times
        What the clock shows each time that somebody looks.
    left
        What is left of each sleep that a signal ends; later ones sleep to their end.
    """

    def __init__(self, made: Prober, words: Words, times: list[tuple[int, int]], left: tuple[int, ...] = ()) -> None:
        self.story: list[str] = []
        shown, leftover = iter(times), iter(left)

        def get_time(clock: int, result: "ctypes._Pointer[Time]") -> int:
            result.contents.seconds, result.contents.nanoseconds = next(shown)
            self.story.append(f"look at clock {clock}, page 0 holds {words[0, 0]}")
            return 0

        def sleep(clock: int, flags: int, wanted: "ctypes._Pointer[Time]", rest: "ctypes._Pointer[Time]") -> int:
            self.story.append(f"sleep {wanted.contents.total()} by clock {clock}, flags {flags}")
            unslept = next(leftover, 0)
            rest.contents.seconds, rest.contents.nanoseconds = divmod(unslept, 10**9)
            return errno.EINTR if unslept else 0

        pointer = ctypes.POINTER(Time)
        self._kept = (
            ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int, pointer)(get_time),
            ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int, ctypes.c_int, pointer, pointer)(sleep),
        )
        made._probe.get_time, made._probe.sleep = (ctypes.cast(each, ctypes.c_void_p).value for each in self._kept)


@pytest.mark.parametrize(
    ("before", "after", "shown"),
    [
        ((5, 100), (5, 350), 250),
        ((5, 999_999_900), (6, 100), 200),
        ((5, 0), (8, 1), 3_000_000_001),
        ((5, 0), (9, 294_967_295), 2**32 - 1),
        ((5, 0), (9, 294_967_296), 2**32 - 1),
        ((5, 0), (500, 0), 2**32 - 1),
    ],
)
def test_a_touch_takes_the_time_between_two_looks_at_the_clock(
    words: Words, before: tuple[int, int], after: tuple[int, int], shown: int
) -> None:
    made = prober_of(words, accesses((0, True), (0, False)))
    Clock(made, words, [before, after, (1000, 0), (1000, 7)])
    assert made.run().nanoseconds.tolist() == [shown, 7]


def test_the_touch_is_between_the_two_looks_and_the_sleep_before_them(words: Words) -> None:
    made = prober_of(words, accesses((0, True), (0, True)), think=2.5)
    clock = Clock(made, words, [(0, 0)] * 4)
    made.run()
    assert clock.story == [
        "sleep 2500000000 by clock 1, flags 0",
        "look at clock 1, page 0 holds 0",
        "look at clock 1, page 0 holds 1",
        "sleep 2500000000 by clock 1, flags 0",
        "look at clock 1, page 0 holds 1",
        "look at clock 1, page 0 holds 2",
    ]


def test_a_sleep_that_a_signal_ends_is_taken_up_again(words: Words) -> None:
    made = prober_of(words, accesses((0, True)), think=2.5)
    clock = Clock(made, words, [(0, 0)] * 2, left=(1_200_000_000, 5))
    made.run()
    sleeps = [f"sleep {time} by clock 1, flags 0" for time in (2_500_000_000, 1_200_000_000, 5)]
    assert clock.story[:3] == sleeps
    assert len(clock.story) == 5


# --- stopping ---


def test_it_can_be_stopped_while_python_goes_on(words: Words) -> None:
    """Were the GIL not free all the while, this thread could do nothing before all of the thousand touches."""
    made = prober_of(words, accesses((2, True)).repeat(1000), think=0.01)
    outcomes: list[Touches] = []
    thread = threading.Thread(target=lambda: outcomes.append(made.run()))
    thread.start()
    while not words[2, 0]:
        pass
    made.stop()
    thread.join()
    assert len(outcomes[0].nanoseconds) == words[2, 0]
    assert 0 < words[2, 0] < 1000


def test_one_that_was_stopped_touches_nothing_any_more(words: Words) -> None:
    words[2, 0] = 9
    made = prober_of(words, accesses((2, False), (2, True)))
    made.run()
    made.stop()
    for _ in range(2):
        outcome = made.run()
        assert (len(outcome.nanoseconds), outcome.mismatches) == (0, 0)
    assert words[2, 0] == 1


def test_a_touch_is_not_begun_when_it_is_stopped_in_the_pause_before(words: Words) -> None:
    made = prober_of(words, accesses((0, True), (0, True)), think=1)
    clock = Clock(made, words, [(0, 0)] * 4)
    made._probe.sleep = ctypes.cast(stop := stopping(made), ctypes.c_void_p).value
    assert len(made.run().nanoseconds) == 0
    assert clock.story == []
    del stop


def stopping(made: Prober) -> object:
    """A sleep in the middle of which the prober is stopped."""

    def sleep(*_: object) -> int:
        made.stop()
        return 0

    return ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)(sleep)


# --- what it is made of ---


def test_the_structure_is_laid_out_as_the_probe_has_it() -> None:
    assert in_python(Probe) == in_c("tc_probe_fields")


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda base: Prober(base, 3000, 1, accesses(), 0), "power of two"),
        (lambda base: Prober(base, 4, 1, accesses(), 0), "power of two"),
        (lambda base: Prober(base + 8, PAGE, 1, accesses(), 0), "begins at"),
        (lambda _: Prober(0, PAGE, 1, accesses(), 0), "begins at"),
        (lambda base: Prober(base, PAGE, 1, accesses(), -1), "words 0 to 511"),
        (lambda base: Prober(base, PAGE, 1, accesses(), 512), "words 0 to 511"),
        (lambda base: Prober(base, PAGE, 1, accesses(), 0, -1), "think"),
        (lambda base: Prober(base, PAGE, 2, accesses((1, True), (2, False)), 0), "page 2 is touched"),
    ],
)
def test_touches_that_would_go_astray(words: Words, wrong: Callable[[int], Prober], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        wrong(words.ctypes.data)


def test_accesses_of_another_type_are_not_cut_short(words: Words) -> None:
    with pytest.raises(TypeError, match="Cannot cast"):
        prober_of(words, np.array([2**33]))  # type: ignore[arg-type]


# --- on tiered memory ---


@pytest.fixture
def memory() -> Iterator[thermocline.Memory]:
    """256 pages of DRAM. Nothing is read ahead, so each page is waited for that is not there."""
    with thermocline.Memory("dram=1MiB, zstd=4MiB", page_size=PAGE, readahead=0) as made:
        yield made
        assert made.stat()["pager"]["starts"] == 1, "the pager died and was replaced"


def test_two_probers_of_more_pages_than_dram_holds_find_every_byte(memory: thermocline.Memory) -> None:
    array = memory.zeros((512, PAGE // 8), np.uint64)
    touches = [random_accesses(word, 5000, len(array)) for word in range(2)]
    outcomes = run_together(*(prober_of(array, each, word) for word, each in enumerate(touches)))
    assert [(len(outcome.nanoseconds), outcome.mismatches) for outcome in outcomes] == [(5000, 0)] * 2
    assert memory.stat()["vmstat"]["pgmajfault"] > 0
    for word, each in enumerate(touches):
        assert np.array_equal(array[:, word], written(each, len(array)))


def test_a_touch_that_waits_for_its_page_takes_longer_than_one_that_finds_it(memory: thermocline.Memory) -> None:
    array = memory.zeros((512, PAGE // 8), np.uint64)
    array[:, 1] = 1  # a page of zeros would be made anew and not read
    twice_each = np.random.default_rng(1).permutation(512).astype(np.uint32).repeat(2)
    before = memory.stat()["vmstat"]["pgmajfault"]
    outcome = prober_of(array, twice_each << 1).run()
    waits = memory.stat()["vmstat"]["pgmajfault"] - before
    first, again = outcome.nanoseconds[::2], outcome.nanoseconds[1::2]
    assert outcome.mismatches == 0
    assert waits >= 256
    assert np.sort(first)[-waits // 2] > 5 * np.median(again)
