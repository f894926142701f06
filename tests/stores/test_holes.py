from __future__ import annotations

import errno

import pytest
from hypothesis import given
from hypothesis import strategies as st

from thermocline.errors import StoreError
from thermocline.live.stores.holes import Holes

QUANTA, MOST = 64, 10

steps = st.lists(
    st.one_of(
        st.tuples(st.just("take"), st.integers(1, MOST)),
        st.tuples(st.just("take_longest"), st.just(0)),
        st.tuples(st.just("give"), st.integers(0, 63)),
        st.tuples(st.just("rebuild"), st.integers(0, QUANTA)),
        st.tuples(st.just("look"), st.just(0)),
    ),
    max_size=120,
)


def free_runs(taken: dict[int, int]) -> list[int]:
    """Lengths of the maximal free stretches."""
    used = {quantum for start, length in taken.items() for quantum in range(start, start + length)}
    text = "".join("x" if quantum in used else "." for quantum in range(QUANTA))
    return [len(run) for run in text.split("x") if run]


@given(steps)
def test_pieces_never_overlap_and_free_space_is_found(steps: list[tuple[str, int]]) -> None:
    """Against a plain map of quanta. The wilderness may part a free stretch in two, and nothing else does."""
    holes = Holes(QUANTA)
    taken: dict[int, int] = {}
    dirty: set[int] = set()  # quanta given back since somebody looked

    def piece(start: int, length: int) -> None:
        assert start >= 0 and start + length <= QUANTA
        assert not any(start < other + size and other < start + length for other, size in taken.items())
        taken[start] = length
        dirty.difference_update(range(start, start + length))

    for step, value in steps:
        longest = max(free_runs(taken), default=0)
        if step == "take":
            start = holes.take(value)
            if start is None:
                assert longest < 2 * value
            else:
                piece(start, value)
        elif step == "take_longest":
            found = holes.take_longest()
            assert (found is None) == (longest == 0)
            if found:
                assert found[1] >= longest / 2
                piece(*found)
        elif step == "give" and taken:
            start = list(taken)[value % len(taken)]
            dirty.update(range(start, start + taken[start]))
            holes.give(start, taken.pop(start))
        elif step == "rebuild":
            holes.rebuild(taken.items(), value)
            free = set(range(value)) - {q for start, size in taken.items() for q in range(start, start + size)}
            dirty = free
        elif step == "look":
            holes.grown.clear()
            dirty.clear()
        seen = {q for start in holes.grown for q in range(start, holes.end(start))}
        assert dirty <= seen
        assert not any(q in seen for start, size in taken.items() for q in range(start, start + size))


def test_the_best_fit_is_taken() -> None:
    holes = Holes(100)
    whole = [holes.take(10) for _ in range(10)]
    assert whole == list(range(0, 100, 10))
    holes.give(0, 10)
    holes.give(20, 5)
    holes.give(40, 8)
    holes.give(60, 9)
    assert [holes.take(n) for n in (8, 5, 6)] == [40, 20, 60]
    assert holes.take(4) == 0


def test_neighbours_merge_on_both_sides() -> None:
    holes = Holes(30)
    for _ in range(3):
        holes.take(10)
    holes.give(0, 10)
    holes.give(20, 10)
    assert holes.take(30) is None
    holes.give(10, 10)
    assert holes.take(30) == 0


def test_space_that_was_never_used_is_used_last() -> None:
    holes = Holes(100)
    for _ in range(3):
        holes.take(10)
    holes.give(0, 10)
    assert holes.take(7) == 0
    assert holes.take(3) == 7
    assert holes.take(3) == 30


def test_free_space_longer_than_a_word_says_is_all_there() -> None:
    quanta = 5 << 24
    holes = Holes(quanta)
    holes.rebuild([], quanta)
    pieces = []
    while (piece := holes.take_longest()) is not None:
        pieces.append(piece)
    ends = [0]
    for start, size in sorted(pieces):
        assert start == ends[-1]
        ends.append(start + size)
    assert ends[-1] == quanta
    for start, size in pieces:
        holes.give(start, size)
    taken = set()
    while (first := holes.take(1 << 20)) is not None:
        taken.add(first)
    assert len(taken) >= quanta // (1 << 20) - len(pieces)  # no more than one a stretch is too short


@pytest.mark.parametrize("pieces", [[(0, 5), (4, 2)], [(90, 11)], [(3, 1), (3, 1)]])
def test_rebuilding_from_pieces_that_cannot_be(pieces: list[tuple[int, int]]) -> None:
    with pytest.raises(StoreError) as caught:
        Holes(100).rebuild(pieces, 0)
    assert caught.value.errno == errno.EIO
