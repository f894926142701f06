"""The short cut of ``make soak``: the same machine, a few examples for each design."""

import pytest
from hypothesis import HealthCheck, settings
from machine import TieredArrays

from thermocline.protocol.migrate import DESIGNS


@pytest.mark.parametrize("design", sorted(DESIGNS))
def test_what_is_read_is_what_was_written_whatever_goes_wrong(design: str) -> None:
    machine = type("TieredArrays", (TieredArrays,), {"design": design})
    machine.TestCase.settings = settings(
        max_examples=10,
        stateful_step_count=50,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    try:
        machine.TestCase("runTest").runTest()
    finally:
        machine.stop_program()
