"""The demotion path is acyclic, whatever is added to it and taken out of it."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from thermocline.protocol.demotion import CycleError, DemotionPath

NODE = st.integers(0, 5)


@given(st.lists(st.one_of(st.tuples(NODE, NODE), NODE), max_size=30))
def test_every_path_ends(steps: list[tuple[int, int] | int]) -> None:
    """Against a plain dict; a pair adds an edge, a number removes a node."""
    path = DemotionPath()
    model: dict[int, int] = {}
    for step in steps:
        if isinstance(step, tuple):
            with contextlib.suppress(CycleError):
                path.demote_to(*step)
                model[step[0]] = step[1]
        else:
            below = model.pop(step, None)
            for source in [source for source, target in model.items() if target == step]:
                if below is None:
                    del model[source]
                else:
                    model[source] = below
            path.remove(step)
        for node in range(6):
            assert path.next_node(node) == model.get(node)
            way = [node]
            while (following := path.next_node(way[-1])) is not None:
                assert following not in way
                way.append(following)
            assert path.from_node(node) == way


def test_an_edge_that_closes_a_cycle_is_refused_and_changes_nothing() -> None:
    path = DemotionPath()
    path.demote_to(0, 1)
    path.demote_to(1, 2)
    for source, target in [(2, 0), (2, 1), (2, 2)]:
        with pytest.raises(CycleError, match="demote to itself"):
            path.demote_to(source, target)
    assert path.from_node(0) == [0, 1, 2]


def test_sources_may_share_a_target_and_skip_a_node_that_is_removed() -> None:
    path = DemotionPath()
    path.demote_to(0, 2)
    path.demote_to(1, 2)
    path.demote_to(2, 3)
    path.remove(2)
    assert (path.next_node(0), path.next_node(1), path.next_node(2)) == (3, 3, None)
    path.remove(3)
    assert path.next_node(0) is None
