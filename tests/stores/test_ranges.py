from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from thermocline.live.stores.ranges import Ranges

SIZE = 40

steps = st.lists(
    st.one_of(
        st.tuples(st.just("insert"), st.integers(0, SIZE - 1), st.integers(1, 6)),
        st.tuples(st.just("cut"), st.integers(0, SIZE - 1), st.integers(1, 7)),
    ),
    max_size=150,
)


@given(steps, st.integers(2, 5))
def test_ranges_are_found_by_either_end(steps: list[tuple[str, int, int]], most: int) -> None:
    """Against a dictionary of lengths by start, with blocks so small that they are split and emptied all the time."""
    ranges, model = Ranges(most), dict[int, int]()
    for step, value, length in steps:
        taken = {number for start, size in model.items() for number in range(start, start + size)}
        if step == "insert" and taken.isdisjoint(range(value, value + length)):
            ranges.insert(value, length)
            model[value] = length
        elif step == "cut" and model:
            start = sorted(model)[value % len(model)]
            whole = model.pop(start)
            assert ranges.cut(start, length) == whole
            if whole > length:
                model[start + length] = whole - length
        for number in range(SIZE + 7):
            assert ranges.length(number) == model.get(number, 0)
            ends = [start for start, size in model.items() if start + size == number]
            assert ranges.before(number) == (ends[0] if ends else None)


def test_what_is_left_of_a_range_is_found_where_another_block_began_before() -> None:
    ranges = Ranges(2)
    for start in (0, 10, 20):
        ranges.insert(start, 1)  # the third one splits the block at 10
    ranges.cut(10, 1)
    ranges.insert(8, 6)
    ranges.cut(8, 4)
    assert ranges.length(12) == 2
    assert ranges.before(14) == 12
