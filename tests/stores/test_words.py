from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from thermocline.live.stores.words import Words

steps = st.lists(st.tuples(st.sampled_from(["add", "discard", "pop"]), st.integers(0, 30)), max_size=120)


@given(steps, st.integers(1, 4))
def test_neighbours_are_found(steps: list[tuple[str, int]], most: int) -> None:
    """Against a set, with blocks so small that they are split and emptied all the time."""
    words, model = Words(most), set[int]()
    for step, word in steps:
        if step == "pop":
            if model:
                assert words.pop() == max(model)
                model.remove(max(model))
        else:
            getattr(words, step)(word)
            getattr(model, step)(word)
        assert list(words) == sorted(model)
        assert (len(words), bool(words)) == (len(model), bool(model))
        for near in range(32):
            assert words.at_or_above(near) == min((other for other in model if other >= near), default=None)
            assert words.below(near) == max((other for other in model if other < near), default=None)
            assert (near in words) == (near in model)


def test_all_of_64_bits_can_be_kept() -> None:
    words = Words()
    for word in (0, 2**64 - 1):
        words.add(word)
    assert words.below(2**64 - 1) == 0
    assert words.at_or_above(1) == 2**64 - 1
