from __future__ import annotations

import itertools
from collections.abc import Sequence

import pytest

from thermocline.live.stores.filters import EVERY, FILTERS, HINTS, LAST_INTERVAL, Choice, Shuffle

PAGE = 4096
NONE = EVERY[-1]


def sizes(best: int, size: int = 1000, others: int = 3000) -> list[int]:
    """What a page packs into under each filter."""
    return [size if which == best else others for which in EVERY]


def write(choice: Choice, hint: int, packed: Sequence[int]) -> tuple[list[int], int]:
    """Pack one page as a store does -> the filters tried, and the size in the end."""
    tried = []
    best = PAGE
    search = choice.search(hint)
    which = next(search, None)
    while which is not None:
        tried.append(which)
        less = packed[which] < best
        best = min(best, packed[which])
        try:
            which = search.send(packed[which] if less else None)
        except StopIteration:
            break
    return tried, best


@pytest.mark.parametrize("best", EVERY)
def test_after_the_first_page_the_best_filter_is_used(best: int) -> None:
    choice = Choice(PAGE)
    assert write(choice, 7, sizes(best)) == (list(EVERY), 1000)
    assert write(choice, 7, sizes(best)) == ([best], 1000)


def test_what_does_not_pack_is_tried_without_a_filter() -> None:
    assert FILTERS[NONE].shuffle is Shuffle.NONE
    choice = Choice(PAGE)
    write(choice, 1, [PAGE] * len(EVERY))
    assert write(choice, 1, [PAGE] * len(EVERY)) == ([NONE], PAGE)


def test_trying_every_filter_grows_rarer_to_a_limit() -> None:
    choice = Choice(PAGE)
    trials = [page for page in range(2000) if len(write(choice, 1, sizes(2))[0]) > 1]
    gaps = [after - before for before, after in itertools.pairwise(trials)]
    assert gaps[:6] == [4, 8, 16, 32, 64, LAST_INTERVAL]
    assert set(gaps[5:]) == {LAST_INTERVAL}


def test_pages_that_change_their_kind_are_noticed_soon() -> None:
    choice = Choice(PAGE)
    for _ in range(1000):
        write(choice, 1, sizes(2))
    results = [write(choice, 1, sizes(4)) for _ in range(LAST_INTERVAL // 8 + 1)]
    assert results[-1] == ([4], 1000)


def test_pages_of_two_kinds_in_turn_take_two_tries_and_always_the_best() -> None:
    choice = Choice(PAGE)
    for page in range(500):
        write(choice, 1, sizes(page % 2))
    results = [write(choice, 1, sizes(page % 2)) for page in range(500)]
    assert {best for _, best in results} == {1000}
    assert sum(len(tried) for tried, _ in results) <= 2 * 500 + 4 * len(EVERY)


def test_pages_of_many_kinds_do_not_make_every_page_a_trial() -> None:
    choice = Choice(PAGE)
    tries = [len(write(choice, 1, sizes(page % 5))[0]) for page in range(2000)]
    assert sum(tries[500:]) / 1500 < 3


def test_pages_that_stop_packing_take_one_try_again() -> None:
    choice = Choice(PAGE)
    for _ in range(1000):
        write(choice, 1, sizes(2))
    tries = [len(write(choice, 1, [PAGE] * len(EVERY))[0]) for _ in range(LAST_INTERVAL)]
    assert tries.count(1) > LAST_INTERVAL * 3 // 4


def test_regions_do_not_disturb_each_other() -> None:
    choice = Choice(PAGE)
    for hint in (1, 2):
        write(choice, hint, sizes(hint))
    assert write(choice, 1, sizes(1)) == ([1], 1000)
    assert write(choice, 2, sizes(2)) == ([2], 1000)


def test_memory_is_bounded_and_the_oldest_region_is_forgotten() -> None:
    choice = Choice(PAGE)
    for hint in range(HINTS + 1):
        write(choice, hint, sizes(1))
    assert write(choice, 1, sizes(1))[0] == [1]
    assert write(choice, HINTS, sizes(1))[0] == [1]
    assert write(choice, 0, sizes(1))[0] == list(EVERY)
    assert len(choice._habits) == HINTS


def test_the_same_pages_make_the_same_choices() -> None:
    def run() -> list[tuple[list[int], int]]:
        choice = Choice(PAGE)
        return [write(choice, n % 7, sizes(n * n % 5, 100 + n % 900)) for n in range(3000)]

    assert run() == run()
