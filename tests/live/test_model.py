"""A random walk over everything a program can do with a memory, beside plain arrays that show what is right.

The nodes are so small that every path is taken: all of them fill up, reclaim itself reclaims, groups hit their
limits, allocations fail. The one invariant: what is read is what was last written.
"""

import tempfile
import threading

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from thermocline import Memory
from thermocline.protocol.migrate import DESIGNS

PAGE = 4 << 10
KINDS = ("noise", "ramp", "constant", "zeros")


def contents(kind: str, size: int, seed: int) -> np.ndarray:
    """Bytes that compress not at all, well, or away."""
    if kind == "noise":
        return np.random.default_rng(seed).integers(0, 256, size, dtype="u1")
    if kind == "ramp":
        return np.arange(seed, seed + size, dtype="u8").astype("u1")
    return np.full(size, 0 if kind == "zeros" else seed % 255 + 1, "u1")


class TieredArrays(RuleBasedStateMachine):
    """Tiered arrays and their plain twins."""

    design = "batch"

    def __init__(self) -> None:
        super().__init__()
        self.directory = tempfile.TemporaryDirectory()
        self.arrays: dict[int, tuple[np.ndarray, np.ndarray]] = {}
        self.next = 0

    @initialize(clean=st.sampled_from(["demote", "discard"]), keep=st.booleans(), readahead=st.sampled_from([0, 4, 32]))
    def open(self, clean: str, keep: bool, readahead: int) -> None:
        rule_of_node = "store" if keep else "demote"
        self.memory = Memory(
            f"dram=96KiB, lz4=64KiB;incompressible={rule_of_node}, zstd=96KiB, file:{self.directory.name}=256KiB",
            page_size=PAGE,
            design=self.design,
            clean=clean,
            readahead=readahead,
        )
        self.groups = [
            self.memory,
            self.memory.group("dram", dram=16 * PAGE),
            self.memory.group("total", memory=24 * PAGE),
        ]

    def keep(self, tiered: np.ndarray, plain: np.ndarray) -> None:
        self.arrays[self.next] = (tiered, plain)
        self.next += 1

    @rule(pages=st.integers(1, 40), group=st.integers(0, 2), kind=st.sampled_from(KINDS), seed=st.integers(0, 1000))
    def allocate(self, pages: int, group: int, kind: str, seed: int) -> None:
        size = pages * PAGE - seed % PAGE
        try:
            tiered = self.groups[group].empty(size, "u1")
        except MemoryError:
            assert self.memory._regions.commitment.committed + pages > self.memory._regions.commitment.limit
            return
        assert not tiered.any()
        plain = np.zeros(size, "u1")
        if seed % 3:
            tiered[:] = plain[:] = contents(kind, size, seed)
        self.keep(tiered, plain)

    @rule(pages=st.integers(1, 20), seed=st.integers(0, 1000))
    def make_from_file(self, pages: int, seed: int) -> None:
        plain = contents("ramp" if seed % 2 else "noise", pages * PAGE - seed % 100, seed)
        with tempfile.NamedTemporaryFile(dir=self.directory.name) as file:
            file.write(plain.tobytes())
            file.flush()
            try:
                tiered = self.memory.from_file(file.name, "u1")
            except MemoryError:
                return
        self.keep(tiered, plain)

    @precondition(lambda self: self.arrays)
    @rule(data=st.data(), kind=st.sampled_from(KINDS))
    def write(self, data: st.DataObject, kind: str) -> None:
        tiered, plain = self.pick(data)
        start = data.draw(st.integers(0, len(plain) - 1))
        stop = data.draw(st.integers(start, len(plain)))
        tiered[start:stop] = plain[start:stop] = contents(kind, stop - start, start)

    @precondition(lambda self: self.arrays)
    @rule(data=st.data())
    def read(self, data: st.DataObject) -> None:
        tiered, plain = self.pick(data)
        start = data.draw(st.integers(0, len(plain) - 1))
        step = data.draw(st.sampled_from([1, 100, PAGE, 3 * PAGE]))
        assert np.array_equal(tiered[start::step], plain[start::step])

    @precondition(lambda self: self.arrays)
    @rule(data=st.data())
    def read_modify_write(self, data: st.DataObject) -> None:
        tiered, plain = self.pick(data)
        tiered[:: PAGE // 2] += 1
        plain[:: PAGE // 2] += 1

    @precondition(lambda self: self.arrays)
    @rule(data=st.data())
    def free(self, data: st.DataObject) -> None:
        del self.arrays[data.draw(st.sampled_from(sorted(self.arrays)))]

    @precondition(lambda self: self.arrays)
    @rule(data=st.data(), advice=st.sampled_from(["cold", "willneed", "sequential", "random", "normal"]))
    def advise(self, data: st.DataObject, advice: str) -> None:
        tiered, plain = self.pick(data)
        start = data.draw(st.integers(0, len(plain) - 1))
        self.memory.advise(tiered[start:], advice)

    @precondition(lambda self: self.arrays)
    @rule(data=st.data())
    def pin_and_write(self, data: st.DataObject) -> None:
        tiered, plain = self.pick(data)
        part = slice(0, 4 * PAGE)
        with self.memory.pin(tiered[part]):
            tiered[part] ^= 255
            plain[part] ^= 255

    @precondition(lambda self: len(self.arrays) > 1)
    @rule()
    def many_threads(self) -> None:
        wrong: list[int] = []

        def work(key: int) -> None:
            tiered, plain = self.arrays[key]
            tiered[::PAGE] += 3
            plain[::PAGE] += 3
            if not np.array_equal(tiered, plain):
                wrong.append(key)

        threads = [threading.Thread(target=work, args=(key,)) for key in list(self.arrays)[:6]]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not wrong

    def pick(self, data: st.DataObject) -> tuple[np.ndarray, np.ndarray]:
        return self.arrays[data.draw(st.sampled_from(sorted(self.arrays)))]

    @invariant()
    def capacities_hold(self) -> None:
        if hasattr(self, "memory"):
            books = self.memory.stat()
            assert books["pager"]["starts"] == 1, "the pager died and was replaced"
            assert books["arena"]["peak_resident"] <= 96 << 10
            for node in books["nodes"].values():
                assert 0 <= node["used"] <= node["peak"] <= node["capacity"]

    def teardown(self) -> None:
        if hasattr(self, "memory"):
            assert all(np.array_equal(*pair) for pair in self.arrays.values())
            self.arrays.clear()
            # A transaction that lost its page gives its slot back when its copy has ended, not before.
            books = self.memory.stat()
            while any(node["used"] for node in books["nodes"].values()):
                assert self.design == "transactional", books["nodes"]
                books = self.memory.stat()
            assert self.memory._regions.session.resident() == 0
            self.memory.close()
        self.directory.cleanup()


@pytest.mark.parametrize("design", sorted(DESIGNS))
def test_what_is_read_is_what_was_written(design: str) -> None:
    machine = type("TieredArrays", (TieredArrays,), {"design": design})
    machine.TestCase.settings = settings(
        max_examples=25,
        stateful_step_count=80,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    machine.TestCase("runTest").runTest()
