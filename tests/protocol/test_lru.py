"""LRU lists against plain lists, and the two judgements that are easily written upside down."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from thermocline.protocol.lru import MAX_LISTS, Links, Lruvec

PAGES, LISTS = 6, 3
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["add", "add_tail", "remove", "isolate", "reclaim"]),
        st.integers(0, PAGES - 1),
        st.integers(0, LISTS - 1),
    ),
    max_size=60,
)


@given(STEPS)
def test_lists_are_lists(steps: list[tuple[str, int, int]]) -> None:
    links = Links(PAGES)
    lists = [links.new_list() for _ in range(LISTS)]
    model: list[list[int]] = [[] for _ in range(LISTS)]
    for what, page, number in steps:
        home = next((index for index, pages in enumerate(model) if page in pages), None)
        if what.startswith("add"):
            if home is not None:
                with pytest.raises(AssertionError, match="on an LRU list already"):
                    getattr(lists[number], what)(page)
            else:
                getattr(lists[number], what)(page)
                model[number].insert(0 if what == "add" else len(model[number]), page)
        elif what == "isolate":
            assert links.isolate(page) == (home is not None)
            if home is not None:
                model[home].remove(page)
        elif what == "remove" and home is not None:
            lists[home].remove(page)
            model[home].remove(page)
        elif what == "reclaim":
            tail = lists[number].tail()
            assert tail == (model[number][-1] if model[number] else None)
            if tail is not None:
                lists[number].remove(tail)
                model[number].pop()
        for index, pages in enumerate(model):
            assert list(lists[index]) == pages
            assert len(lists[index]) == len(pages)
            assert all(links.list_of[page] == index + 1 for page in pages)
        assert all(not links.list_of[page] for page in range(PAGES) if not any(page in pages for pages in model))


def test_room_for_lists_is_finite() -> None:
    links = Links(1)
    for _ in range(MAX_LISTS):
        links.new_list()
    with pytest.raises(ValueError, match="fewer groups"):
        links.new_list()


@pytest.mark.parametrize(("active", "inactive", "low"), [(0, 0, False), (1, 0, True), (2, 1, False), (3, 1, True)])
def test_a_third_of_the_pages_should_be_inactive(active: int, inactive: int, low: bool) -> None:
    lruvec = Lruvec(Links(8), 0)
    for page in range(active):
        lruvec.add(page, active=True)
    for page in range(active, active + inactive):
        lruvec.add(page)
    assert lruvec.inactive_is_low is low
    assert len(lruvec) == active + inactive


@given(active=st.integers(0, 5), between=st.integers(0, 8))
def test_a_page_is_hot_if_it_comes_back_within_the_length_of_the_active_list(active: int, between: int) -> None:
    """It would have stayed, had the inactive list been longer by what the active list now has."""
    lruvec = Lruvec(Links(20), 0)
    assert lruvec.refault(19) is None
    lruvec.evict(19)
    for page in range(active):
        lruvec.add(page, active=True)
    for page in range(10, 10 + between):
        lruvec.evict(page)
    distance = between + 1  # its own eviction counts, too
    assert lruvec.refault(19) is (distance <= active)


def test_refault_distance_survives_the_wrap_of_its_column() -> None:
    lruvec = Lruvec(Links(4), 0)
    for page in (0, 1):
        lruvec.add(page, active=True)
    lruvec.age = 2**32 - 2
    lruvec.evict(2)
    lruvec.evict(3)
    assert lruvec.refault(2) is True
    assert lruvec.refault(3) is True
    lruvec.age += 5
    assert lruvec.refault(2) is False


@pytest.mark.parametrize(("ratio", "low"), [(1, True), (2, False)])
def test_how_long_the_active_list_may_be(ratio: int, low: bool) -> None:
    lruvec = Lruvec(Links(PAGES), 0, ratio)
    for page in range(PAGES):
        lruvec.add(page, active=page > 1)
    assert lruvec.inactive_is_low is low
