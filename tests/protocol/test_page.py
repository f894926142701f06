"""Page table entries, in one word; runs of contiguous pages."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from thermocline.protocol.page import PageTable, State, pack, runs


@given(st.sampled_from(list(State)), st.integers(0, 255), st.integers(0, 2**48 - 1))
def test_an_entry_is_read_as_it_was_committed(state: State, node: int, slot: int) -> None:
    table = PageTable(3)
    table.commit(1, state, node, slot)
    assert table.read(1) == (state, node, slot)
    assert table.state(1) == state
    assert table.place(1) == (node, slot)
    assert table.resident(1) == (state in (State.RESIDENT, State.SHADOWED))
    assert table.entry[1] == pack(state, node, slot) < 2**64
    assert table.read(0) == table.read(2) == (State.EMPTY, 0, 0)


@given(st.sets(st.integers(0, 40)))
def test_runs_are_maximal_and_cover_the_pages(pages: set[int]) -> None:
    found = list(runs(sorted(pages)))
    assert [page for start, count in found for page in range(start, start + count)] == sorted(pages)
    assert all(start - 1 not in pages and start + count not in pages for start, count in found)
