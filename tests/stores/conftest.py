"""Every store that a node can be made of, in two page sizes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest
from shelf import Shelf

from thermocline.spec import Compressed, File

KINDS = ("lz4", "zstd", "file", "plain file")


@pytest.fixture
def shelves(tmp_path: Path) -> Iterator[Callable[..., Shelf]]:
    """Makes shelves by the name of the store, with room for so many incompressible pages."""
    with ExitStack() as stack:

        def make(kind: str, page_size: int, room: int = 32, **settings: Any) -> Shelf:
            capacity = room * page_size
            if kind.endswith("file"):
                spec: Any = File(tmp_path, capacity, encrypt=kind == "file")
            else:
                spec = Compressed(capacity, kind)
            return stack.enter_context(closing(Shelf(spec, page_size, **settings)))

        yield make


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=(4096, 65536), ids=("4KiB", "64KiB"))
def page_size(request: pytest.FixtureRequest) -> int:
    return int(request.param)


@pytest.fixture
def shelf(kind: str, page_size: int, shelves: Callable[..., Shelf]) -> Shelf:
    return shelves(kind, page_size)
