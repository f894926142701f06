"""Watermarks and room."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from thermocline.protocol.node import Kind, Node, Watermarks


@given(capacity=st.integers(1, 2**40), slot=st.integers(1, 2**22))
def test_watermarks_are_ordered_and_leave_most_of_a_node_usable(capacity: int, slot: int) -> None:
    marks = Watermarks.of(capacity, slot)
    assert 0 <= marks.minimum <= marks.low <= marks.high <= capacity * 3 // 8
    if capacity >= 8:
        assert marks.minimum < marks.low < marks.high


def test_watermarks_of_a_large_node_are_a_64th_apart() -> None:
    marks = Watermarks.of(2**30, 2**16)
    assert marks.minimum == 2**16
    assert marks.low - marks.minimum == marks.high - marks.low == 2**24


def node(capacity: int = 10) -> Node:
    return Node(0, "dram", Kind.MAPPED, capacity, 1)


def test_kswapd_wakes_below_low_and_sleeps_from_high() -> None:
    made = node(100)
    assert (made.watermarks.low, made.watermarks.high) == (3, 5)
    woken = [made.below_low for made.used in range(100, 90, -1)]
    asleep = [made.balanced for made.used in range(100, 90, -1)]
    assert woken == [True] * 3 + [False] * 7
    assert asleep == [False] * 5 + [True] * 5


def test_room_is_for_whole_slots_and_not_in_a_failed_node() -> None:
    made = Node(1, "zstd", Kind.UNMAPPED, 10, 4)
    made.take(6)
    assert made.has_room
    made.take(1)
    assert not made.has_room
    made.give(7)
    assert (made.used, made.peak, made.free) == (0, 7, 10)
    made.failed = True
    assert not made.has_room
