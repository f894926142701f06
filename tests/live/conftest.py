"""Small memories, so that every path is taken with little data."""

from collections.abc import Iterator

import pytest

from thermocline import Memory
from thermocline.protocol.migrate import DESIGNS

PAGE = 64 << 10


@pytest.fixture(params=sorted(DESIGNS))
def design(request: pytest.FixtureRequest) -> str:
    """Every migration design."""
    name: str = request.param
    return name


@pytest.fixture
def memory(tmp_path: object) -> Iterator[Memory]:
    """2 MiB of DRAM over 4 MiB of compressed memory over 64 MiB of file."""
    with Memory(f"dram=2MiB, zstd=4MiB, file:{tmp_path}=64MiB") as made:
        yield made
        assert made.stat()["pager"]["starts"] == 1, "the pager died and was replaced"
