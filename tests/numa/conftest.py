"""Tests that need a slow memory node: `make test-numa` starts a machine that has one, and runs them in it."""

import pytest
from nodes import slow_nodes


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what is marked ``numa`` where no memory is slower than node 0's."""
    if slow_nodes():
        return
    skip = pytest.mark.skip(reason="no slow memory node here; run: make test-numa")
    for item in items:
        if item.get_closest_marker("numa"):
            item.add_marker(skip)
