from __future__ import annotations

import errno

import pytest
from hypothesis import given
from hypothesis import strategies as st

from thermocline.errors import StoreError
from thermocline.live.stores.slots import Slots


@given(st.lists(st.one_of(st.none(), st.integers(0, 20), st.just("recover")), max_size=60))
def test_the_lowest_free_number_comes_next(steps: list[int | str | None]) -> None:
    """Against a plain set: None reserves, a number releases one of those taken, and recovery changes nothing."""
    most = 12
    slots, taken = Slots(most), set[int]()
    for step in steps:
        if step == "recover":
            slots = Slots(most)
            slots.recover(iter(taken))
        elif isinstance(step, int):
            if taken:
                slot = sorted(taken)[step % len(taken)]
                taken.remove(slot)
                slots.release(slot)
        elif len(taken) == most:
            with pytest.raises(StoreError) as caught:
                slots.reserve()
            assert caught.value.errno == errno.ENOSPC
        else:
            slot = slots.reserve()
            assert slot == min(set(range(1, most + 1)) - taken)
            taken.add(slot)
