"""A store against a dictionary: whatever is written, released, trimmed and recovered, in any order and sizes."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from shelf import Shelf

from thermocline.spec import Compressed, File

PAGE = 4096
ROOM = 12  # incompressible pages: small, so that the store is full most of the time


class StoreModel(RuleBasedStateMachine):
    """Rules keep to a caller's part; the store must then never fail."""

    spec: Any

    @initialize()
    def open(self) -> None:
        self.shelf = Shelf(self.spec, PAGE)
        self.pages: dict[int, bytes] = {}
        self.count = 0

    def content(self, noise: int) -> bytes:
        """A page that packs to about so many bytes, and like no other."""
        self.count += 1
        stamp = self.count.to_bytes(8, "little")
        return (stamp + random.Random(self.count).randbytes(noise)).ljust(PAGE, b"\0")

    noises = st.one_of(st.integers(0, PAGE - 8), st.sampled_from((0, PAGE - 8, PAGE // 2)))

    @rule(noise=noises, hint=st.integers(0, 3))
    def put(self, noise: int, hint: int) -> None:
        if self.shelf.has_room:
            content = self.content(noise)
            self.pages[self.shelf.put(content, hint)] = content

    @rule(noises=st.lists(noises, min_size=2, max_size=5))
    def put_many(self, noises: list[int]) -> None:
        """Reserve several and then write: reservations count as the worst case."""
        slots = []
        while self.shelf.has_room and len(slots) < len(noises):
            slots.append(self.shelf.reserve())
        for slot, noise in zip(slots, noises, strict=False):
            content = self.content(noise)
            self.shelf.write(slot, content)
            self.pages[slot] = content

    @precondition(lambda self: self.pages)
    @rule(which=st.integers(0), noise=noises)
    def replace(self, which: int, noise: int) -> None:
        if self.shelf.has_room:  # for the new beside the old
            slot = list(self.pages)[which % len(self.pages)]
            self.pages[slot] = self.content(noise)
            self.shelf.write(slot, self.pages[slot])

    @precondition(lambda self: self.pages)
    @rule(which=st.lists(st.integers(0), min_size=1, max_size=6))
    def drop(self, which: list[int]) -> None:
        for number in which:
            if self.pages:
                slot = list(self.pages)[number % len(self.pages)]
                del self.pages[slot]
                self.shelf.drop(slot)

    @rule()
    def reserve_in_vain(self) -> None:
        if self.shelf.has_room:
            self.shelf.drop(self.shelf.reserve())

    @rule()
    def trim(self) -> None:
        before = self.shelf.blocks
        returned = self.shelf.trim()
        assert not self.shelf.store.trim()
        if isinstance(self.spec, Compressed):
            assert self.shelf.blocks == before - returned

    @rule()
    def succeed(self) -> None:
        self.shelf.succeed(self.pages)

    @precondition(lambda self: self.pages)
    @rule(which=st.integers(0))
    def succeed_with_less(self, which: int) -> None:
        del self.pages[list(self.pages)[which % len(self.pages)]]
        self.shelf.succeed(self.pages)

    @invariant()
    def every_page_reads_back(self) -> None:
        for slot, content in getattr(self, "pages", {}).items():
            assert self.shelf.get(slot) == content

    @invariant()
    def the_books_agree(self) -> None:
        if hasattr(self, "shelf"):
            assert self.shelf.used <= self.spec.capacity
            assert {slot: self.shelf.store.size(slot) for slot in self.pages} == self.shelf.charged
            if isinstance(self.spec, Compressed):
                assert self.shelf.blocks <= self.spec.capacity + 4096  # the table

    def teardown(self) -> None:
        if hasattr(self, "shelf"):
            self.shelf.close()


def run(model: type[StoreModel]) -> None:
    run_state_machine_as_test(
        model,
        settings=settings(
            max_examples=60,
            stateful_step_count=60,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )


def test_compressed_memory_with_lz4() -> None:
    class Model(StoreModel):
        spec = Compressed(ROOM * PAGE, "lz4")

    run(Model)


def test_compressed_memory_with_zstd() -> None:
    class Model(StoreModel):
        spec = Compressed(ROOM * PAGE, "zstd")

    run(Model)


def test_file(tmp_path: Path) -> None:
    class Model(StoreModel):
        spec = File(tmp_path, ROOM * PAGE)

    run(Model)
