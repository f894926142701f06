"""These tests start nothing that could be left behind: no thread, no process that is not waited for."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def nothing_left_behind() -> None:
    """In place of the fixture of all other tests, which takes longer than most tests here."""
