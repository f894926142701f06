"""Free ranges: never given out twice, merged with their neighbours, the smallest that fits first."""

import sys

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from thermocline.live.extents import Extents

SIZE = 60


class ExtentsAndUnits(RuleBasedStateMachine):
    """The extents beside a set of units that are free."""

    def __init__(self) -> None:
        super().__init__()
        self.extents = Extents(SIZE)
        self.free = set(range(SIZE))
        self.taken: list[tuple[int, int]] = []

    def holes(self) -> list[range]:
        """The free ranges, from the units: the last one reaches to the end, if it is free."""
        starts = [unit for unit in sorted(self.free) if unit - 1 not in self.free]
        ends = [unit + 1 for unit in sorted(self.free) if unit + 1 not in self.free]
        return [range(start, end) for start, end in zip(starts, ends, strict=True)]

    @rule(length=st.integers(1, 9))
    def allocate(self, length: int) -> None:
        fitting = [hole for hole in self.holes() if len(hole) >= length]
        start = self.extents.allocate(length)
        if not fitting:
            assert start is None
            return
        assert start is not None
        inner = [hole for hole in fitting if hole.stop < SIZE]
        hole = next(hole for hole in fitting if start in hole)
        assert start == hole.start
        assert not inner or len(hole) == min(map(len, inner))  # the end of the space is the last resort
        self.free -= set(range(start, start + length))
        self.taken.append((start, length))

    @rule(data=st.data())
    def give_back(self, data: st.DataObject) -> None:
        if not self.taken:
            return
        start, length = self.taken.pop(data.draw(st.integers(0, len(self.taken) - 1)))
        self.free |= set(range(start, start + length))
        assert self.extents.free(start, length) == next(hole for hole in self.holes() if start in hole)

    @invariant()
    def what_is_free_is_free(self) -> None:
        assert all(set(range(start, start + length)).isdisjoint(self.free) for start, length in self.taken)


TestExtents = ExtentsAndUnits.TestCase
TestExtents.settings = settings(max_examples=60, deadline=None)


def steps(holes: int) -> int:
    """Lines that the extents run to serve one request and its return, with so many holes that are too small for it."""
    extents = Extents(1 << 40)
    pairs = [(extents.allocate(2), extents.allocate(1)) for _ in range(holes)]
    for hole, _ in pairs:
        assert hole is not None
        extents.free(hole, 2)
    lines = 0

    def count(frame: object, event: str, argument: object) -> object:
        nonlocal lines
        lines += event == "line"
        return count

    sys.settrace(count)
    try:
        start = extents.allocate(3)
        assert start is not None
        extents.free(start, 3)
    finally:
        sys.settrace(None)
    return lines


def test_the_work_does_not_grow_with_the_number_of_holes() -> None:
    assert steps(10_000) == steps(10)
