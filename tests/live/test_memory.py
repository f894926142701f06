"""The library, on real memory."""

import gc
import hashlib
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import thermocline
from thermocline import Compressed, Dram, File, Memory, OutOfMemory, SpecError
from thermocline.budget import auto_spec

PAGE = 64 << 10


def incompressible(size: int, seed: int = 0) -> np.ndarray:
    """Bytes that no node can make smaller."""
    return np.random.default_rng(seed).integers(0, 256, size, dtype="u1")


def used(memory: Memory) -> dict[str, int]:
    """Bytes in each node."""
    return {name: node["used"] for name, node in memory.stat()["nodes"].items()}


def test_arrays_four_times_the_budget_hold_what_was_written(design: str, tmp_path: Path) -> None:
    size = 8 << 20
    plain = incompressible(size).view("f8")
    with Memory(f"dram=2MiB, zstd=4MiB, file:{tmp_path}=64MiB", design=design) as memory:
        tiered = memory.array(plain)
        assert np.array_equal(tiered, plain, equal_nan=True)
        assert np.array_equal(np.sort(tiered), np.sort(plain), equal_nan=True)
        counters = memory.stat()["vmstat"]
        assert counters["pgdemote_kswapd"] + counters["pgdemote_direct"] >= (size - (2 << 20)) // PAGE
        assert counters["pgpromote_success"] > 0
        assert memory.stat()["pager"]["starts"] == 1


def test_arena_never_exceeds_the_budget_by_the_kernels_account(memory: Memory) -> None:
    """st_blocks of the arena, sampled by another thread all the while, and the peak that the pager saw."""
    peaks = [0]
    over = threading.Event()

    def sample() -> None:
        while not over.is_set():
            peaks[0] = max(peaks[0], memory._regions.session.resident())

    sampler = threading.Thread(target=sample)
    sampler.start()
    tiered = memory.array(incompressible(8 << 20))
    for _ in range(3):
        tiered += 1
    over.set()
    sampler.join()
    assert 0 < peaks[0] <= 2 << 20
    assert peaks[0] <= memory.stat()["arena"]["peak_resident"] <= 2 << 20


def test_nodes_never_exceed_their_capacities(memory: Memory) -> None:
    tiered = memory.array(incompressible(16 << 20))
    assert int(tiered[::4096].sum(dtype="i8")) == int(incompressible(16 << 20)[::4096].sum(dtype="i8"))
    for name, node in memory.stat()["nodes"].items():
        assert 0 < node["peak"] <= node["capacity"], name


def test_fresh_arrays_are_zeros_even_where_freed_ones_were(memory: Memory) -> None:
    for _ in range(20):
        tiered = memory.empty(3 << 20, "u1")
        assert not tiered.any()
        tiered[:] = 255
        del tiered


def test_full_array_and_zeros(memory: Memory) -> None:
    assert (memory.full((300, 300), 7) == 7).all()
    assert memory.full(3, 2.5).dtype == np.dtype(float)
    assert memory.zeros((2, 3), "i4").shape == (2, 3)
    assert memory.zeros(()).shape == ()
    assert memory.zeros((0, 5)).size == 0
    assert np.array_equal(memory.array([[1, 2], [3, 4]]), [[1, 2], [3, 4]])
    assert memory.array(np.arange(6, dtype="u2").reshape(2, 3)).dtype == np.dtype("u2")


def test_all_zero_pages_cost_nothing(memory: Memory) -> None:
    tiered = memory.zeros(32 << 20, "u1")
    tiered[:] = 0  # every page is written, and holds zeros
    memory.advise(tiered, "cold")
    assert used(memory) == dict.fromkeys(used(memory), 0)
    assert memory.stat()["vmstat"]["pgmigrate_zero"] > 0
    assert not tiered.any()


def test_freed_arrays_give_everything_back(memory: Memory) -> None:
    arrays = [memory.array(np.arange(1 << 19)), *(memory.array(incompressible(3 << 20, seed)) for seed in range(4))]
    assert all(size > 0 for size in used(memory).values())
    del arrays
    gc.collect()
    assert used(memory) == dict.fromkeys(used(memory), 0)
    assert memory._regions.session.resident() == 0


def test_a_view_keeps_the_memory(memory: Memory) -> None:
    tiered = memory.array(np.arange(1 << 20))
    view = tiered[5::7]
    del tiered
    gc.collect()
    memory.zeros(8 << 20, "u1")[:] = 1
    assert np.array_equal(view, np.arange(1 << 20)[5::7])


def test_arrays_outlive_the_with_block(tmp_path: Path) -> None:
    with Memory(f"dram=2MiB, file:{tmp_path}=64MiB") as memory:
        tiered = memory.array(np.arange(1 << 20))
    assert np.array_equal(tiered, np.arange(1 << 20))
    with pytest.raises(thermocline.ClosedError):
        memory.zeros(5)


def test_several_memories_side_by_side(tmp_path: Path) -> None:
    with Memory(f"dram=1MiB, file:{tmp_path}=16MiB") as one, Memory("dram=1MiB, lz4=16MiB") as other:
        first, second = one.array(np.arange(400_000)), other.array(-np.arange(400_000))
        first += 1
        second -= 1
        assert np.array_equal(first, -second)
        assert set(one.stat()["nodes"]) != set(other.stat()["nodes"])


def test_more_than_all_nodes_hold_is_a_memory_error_before_anything_is_touched(memory: Memory) -> None:
    with pytest.raises(MemoryError, match="do not fit"):
        memory.zeros(1 << 40, "u1")
    with pytest.raises(OutOfMemory):
        memory.zeros((80 << 20) // 8)
    assert memory.stat()["vmstat"]["pgfault"] == 0
    assert memory.zeros(8 << 20, "u1").size  # what fits still fits


def test_the_whole_commitment_can_be_used(tmp_path: Path) -> None:
    """Every byte that could be committed holds, in the worst case: nothing compresses, all nodes full."""
    with Memory(f"dram=1MiB, zstd=2MiB, file:{tmp_path}=4MiB") as memory:
        size = memory._regions.commitment.limit * PAGE
        tiered = memory.array(incompressible(size))
        for _ in range(2):
            assert hashlib.md5(tiered).digest() == hashlib.md5(incompressible(size)).digest()
            tiered += 1
            tiered -= 1
        with pytest.raises(MemoryError):
            memory.zeros(PAGE, "u1")


def test_object_arrays_are_refused(memory: Memory) -> None:
    with pytest.raises(SpecError, match="objects"):
        memory.zeros(3, object)


@pytest.mark.parametrize("page_size", ["4KiB", "16KiB", "2MiB"])
def test_page_sizes(page_size: str, tmp_path: Path) -> None:
    with Memory(f"dram=32MiB, zstd=32MiB, file:{tmp_path}=64MiB", page_size=page_size) as memory:
        plain = incompressible(70 << 20)
        tiered = memory.array(plain)
        assert np.array_equal(tiered, plain)
        assert memory.stat()["arena"]["peak_resident"] <= 32 << 20


def test_typed_specs(tmp_path: Path) -> None:
    spec = [Dram("1MiB"), Compressed("2MiB", "lz4"), File(tmp_path, "4MiB")]
    with Memory(spec) as memory:
        assert memory.nodes == tuple(spec)
        assert np.array_equal(memory.array(np.arange(300_000)), np.arange(300_000))


# -- numpy() ----------------------------------------------------------------------------------------------------------


def test_large_arrays_of_any_library_are_tiered(memory: Memory) -> None:
    session = memory._regions.session

    def tiered(array: np.ndarray) -> bool:
        return session.address <= array.ctypes.data < session.address + session.size

    with memory.numpy():
        large, small = np.zeros(1 << 20, "u1"), np.zeros(1000)
        computed = np.arange(1 << 18) * 2.0
    after = np.zeros(1 << 20, "u1")
    assert tiered(large) and tiered(computed)
    assert not tiered(small) and not tiered(after)
    assert computed.sum() == (1 << 18) * ((1 << 18) - 1)


def test_min_array(memory: Memory) -> None:
    session = memory._regions.session
    with memory.numpy(min_array="4KiB"):
        assert np.zeros(4096, "u1").ctypes.data >= session.address
    with pytest.raises(SpecError, match="positive"), memory.numpy(min_array=0):
        pass


def test_numpy_out_of_memory_is_numpys_own_error(memory: Memory) -> None:
    with memory.numpy(), pytest.raises(MemoryError, match="Unable to allocate"):
        np.zeros(1 << 40, "u1")


# -- from_file --------------------------------------------------------------------------------------------------------


def test_from_file_reads_and_never_writes(memory: Memory, tmp_path: Path) -> None:
    plain = np.arange(1 << 20, dtype="i4")
    file = tmp_path / "data"
    file.write_bytes(b"head" + plain.tobytes())
    tiered = memory.from_file(file, "i4", offset=4)
    assert np.array_equal(tiered, plain)
    tiered *= 2
    memory.advise(tiered, "cold")
    assert np.array_equal(tiered, plain * 2)
    assert file.read_bytes() == b"head" + plain.tobytes()
    shaped = memory.from_file(file, "i4", shape=(2, 5), offset=4)
    assert shaped.tolist() == plain[:10].reshape(2, 5).tolist()


def test_from_file_shorter_than_the_shape(memory: Memory, tmp_path: Path) -> None:
    file = tmp_path / "data"
    file.write_bytes(bytes(100))
    with pytest.raises(SpecError, match="holds 100 bytes"):
        memory.from_file(file, "f8", shape=13)
    with pytest.raises(FileNotFoundError):
        memory.from_file(tmp_path / "missing")


@pytest.mark.parametrize("clean", ["demote", "discard"])
def test_clean_pages_of_a_file_follow_the_policy(clean: str, tmp_path: Path) -> None:
    plain = incompressible(6 << 20)
    file = tmp_path / "data"
    plain.tofile(file)
    with Memory("dram=2MiB, zstd=16MiB", clean=clean) as memory:
        tiered = memory.from_file(file, "u1")
        for _ in range(2):
            assert np.array_equal(tiered, plain)
        counters = memory.stat()["vmstat"]
        stored = memory.stat()["nodes"]["zstd"]["peak"]
        if clean == "discard":
            assert counters["pgdiscard"] > 0
            assert stored == 0
        else:
            assert stored > 0


def test_system_calls_touch_pages_below(memory: Memory, tmp_path: Path) -> None:
    plain = incompressible(6 << 20)
    tiered = memory.array(plain)
    if memory.serves_system_calls:
        tiered.tofile(tmp_path / "out")  # write(2) reads pages that are not in DRAM
        with (tmp_path / "out").open("rb") as file:
            read = memory.empty(6 << 20, "u1")
            assert file.readinto(read) == 6 << 20  # type: ignore[arg-type]
        assert np.array_equal(read, plain)


# -- advice, pins, groups ---------------------------------------------------------------------------------------------


def test_cold_advice_empties_dram(memory: Memory) -> None:
    tiered = memory.array(incompressible(1 << 20))
    assert used(memory)["dram"] >= 1 << 20
    memory.advise(tiered, "cold")
    assert used(memory)["dram"] == 0
    assert memory.stat()["vmstat"]["pgdemote_proactive"] == (1 << 20) // PAGE
    assert np.array_equal(tiered, incompressible(1 << 20))


def test_clean_pages_demote_without_moving(memory: Memory) -> None:
    tiered = memory.array(incompressible(1 << 20))
    memory.advise(tiered, "cold")
    assert int(tiered.sum(dtype="i8")) == int(incompressible(1 << 20).sum(dtype="i8"))  # read only: shadows are kept
    before = memory.stat()["vmstat"]
    assert before["shadow_kept"] == (1 << 20) // PAGE
    memory.advise(tiered, "cold")
    after = memory.stat()["vmstat"]
    assert after["pgmigrate_success"] == before["pgmigrate_success"]
    assert after["pgdemote_proactive"] == before["pgdemote_proactive"] + (1 << 20) // PAGE
    tiered[0] ^= 255  # one write drops one shadow, and the written byte survives the next demotion
    memory.advise(tiered, "cold")
    assert memory.stat()["vmstat"]["pgmigrate_success"] <= after["pgmigrate_success"] + 1
    assert tiered[0] == incompressible(1 << 20)[0] ^ 255


def test_sequential_reading_is_read_ahead_and_random_advice_stops_it(memory: Memory) -> None:
    plain = incompressible(6 << 20)
    tiered = memory.array(plain)
    memory.advise(tiered, "random")
    before = memory.stat()["vmstat"]["readahead_pages"]
    assert np.array_equal(tiered, plain)
    assert memory.stat()["vmstat"]["readahead_pages"] == before
    memory.advise(tiered, "sequential")
    faults = memory.stat()["vmstat"]["pgfault"]
    assert np.array_equal(tiered, plain)
    assert memory.stat()["vmstat"]["readahead_pages"] > before
    assert memory.stat()["vmstat"]["pgfault"] - faults < tiered.nbytes // PAGE


def test_unknown_advice_and_foreign_arrays(memory: Memory) -> None:
    with pytest.raises(SpecError, match="write one of"):
        memory.advise(memory.zeros(5), "frozen")
    with pytest.raises(SpecError, match="not in this memory"):
        memory.advise(np.zeros(5), "cold")


def test_pinned_pages_stay(memory: Memory) -> None:
    tiered = memory.array(incompressible(512 << 10))
    with memory.pin(tiered) as pinned:
        assert pinned is tiered
        memory.zeros(8 << 20, "u1")[:] = 1
        memory.advise(tiered, "cold")
        assert used(memory)["dram"] >= 512 << 10
        faults = memory.stat()["vmstat"]["pgfault"]
        tiered += 1
        assert memory.stat()["vmstat"]["pgfault"] == faults
    memory.advise(tiered, "cold")
    assert np.array_equal(tiered, incompressible(512 << 10) + 1)
    with pytest.raises(SpecError, match="half of DRAM"), memory.pin(memory.zeros(2 << 20, "u1")):
        pass


def test_group_limit_holds_its_pages_and_no_others(memory: Memory) -> None:
    group = memory.group("etl", dram="1MiB")
    others = memory.array(incompressible(512 << 10))
    demoted = memory.stat()["vmstat"]["pgdemote_kswapd"] + memory.stat()["vmstat"]["pgdemote_direct"]
    tiered = group.array(incompressible(1536 << 10, 1))
    assert np.array_equal(tiered, incompressible(1536 << 10, 1))
    counters = memory.stat()["vmstat"]
    assert counters["group_reclaim"] > 0
    assert counters["pgdemote_kswapd"] + counters["pgdemote_direct"] > demoted
    assert used(memory)["dram"] <= (1 << 20) + (512 << 10)
    faults = memory.stat()["vmstat"]["pgfault"]
    assert np.array_equal(others, incompressible(512 << 10))
    assert memory.stat()["vmstat"]["pgfault"] == faults, "the group's pressure reached another group's pages"


def test_group_memory_limit_counts_compressed_bytes(memory: Memory) -> None:
    """Demoted is not freed: pages that only went to compressed memory still weigh on the group's total."""
    group = memory.group("etl", memory="1MiB")
    tiered = group.array(incompressible(3 << 20))
    assert np.array_equal(tiered, incompressible(3 << 20))
    found = used(memory)
    assert found["dram"] + found["zstd"] <= 1 << 20
    assert found[next(name for name in found if name.startswith("file:"))] >= 2 << 20


def test_reclaim_for_a_groups_limit_as_the_kernel_once_did_it(tmp_path: Path) -> None:
    """Where a group's pages go; that demoted was once taken for freed is shown in tests/protocol/test_group.py."""
    found = {}
    for behaviour in ("left", "demoted", "never"):
        with Memory(f"dram=4MiB, zstd=16MiB, file:{tmp_path}=64MiB", group_reclaim=behaviour) as memory:
            group = memory.group("etl", dram="1MiB")
            plain = np.arange(400_000)
            tiered = group.array(plain)
            assert np.array_equal(tiered, plain)
            _, zstd, file = used(memory).values()
            found[behaviour] = (zstd > 0, file > 0)
            del tiered
    assert found == {"left": (True, False), "demoted": (True, False), "never": (False, True)}


def test_an_array_that_goes_while_its_thread_makes_a_request_is_freed(memory: Memory) -> None:
    """As by a garbage collection, which may run anywhere."""
    kept, going = memory.zeros(1 << 20, "u1"), [memory.array(incompressible(1 << 20))]
    ring = memory._regions._requests._ring
    submit = ring.submit

    def submit_and_collect(*request: Any) -> bool:
        going.clear()
        return submit(*request)

    ring.submit = submit_and_collect  # type: ignore[method-assign]
    memory.advise(kept, "cold")
    ring.submit = submit  # type: ignore[method-assign]
    assert sum(used(memory).values()) == 0
    assert memory._regions.commitment.committed == 16


def test_the_last_array_may_go_while_its_memory_is_being_closed() -> None:
    memory = Memory("dram=1MiB, zstd=1MiB")
    regions, going = memory._regions, [memory.zeros(1 << 20, "u1")]
    collect = regions._collect

    def collect_and_drop() -> None:
        collect()
        going.clear()

    regions._collect = collect_and_drop  # type: ignore[method-assign]
    memory.close()
    assert regions.session.closed


def test_a_group_whose_pages_have_nowhere_to_go_passes_its_limit(tmp_path: Path) -> None:
    with Memory(f"dram=2MiB, zstd=1MiB, file:{tmp_path}=1MiB") as memory:
        others = memory.array(incompressible(28 * PAGE))
        memory.advise(others, "cold")
        group = memory.group("etl", memory="1MiB")
        plain = incompressible(24 * PAGE, 1)
        tiered = group.array(plain)
        assert np.array_equal(tiered, plain)
        assert np.array_equal(others, incompressible(28 * PAGE))
        assert memory.stat()["vmstat"]["group_over_limit"] > 0
        del tiered, others


def test_settings_that_cannot_be_are_refused() -> None:
    with pytest.raises(SpecError, match="left, demoted or never"):
        Memory("dram=2MiB, zstd=4MiB", group_reclaim="sometimes")
    with pytest.raises(SpecError, match="batch"):
        Memory("dram=2MiB, zstd=4MiB", design="btach")
    with (
        Memory("dram=2MiB, zstd=4MiB", group_reclaim="never") as memory,
        pytest.raises(SpecError, match="nothing behind them"),
    ):
        memory.group("etl", dram="1MiB")


def test_what_is_timed(tmp_path: Path) -> None:
    """Under the lock `deferred` allocates, and `batch` does not; both hold the lock of what they migrate."""
    for design, allocates in (("deferred", True), ("batch", False)):
        with Memory(f"dram=1MiB, zstd=1MiB, file:{tmp_path}=32MiB", design=design) as memory:
            tiered = memory.array(incompressible(6 << 20))
            assert np.array_equal(tiered, incompressible(6 << 20))
            stat = memory.stat()
            assert stat["source_lock_seconds"]["count"] >= stat["vmstat"]["pgmigrate_success"] > 0
            assert (stat["allocating_seconds"]["count"] > 0) == allocates
            assert stat["allocating_seconds"]["total"] <= stat["source_lock_seconds"]["total"]
            assert stat["fault_seconds"]["count"] > 0
            assert stat["pager"]["cpu_seconds"] > 0
            del tiered


def test_group_numpy_and_limits_too_small(memory: Memory) -> None:
    group = memory.group("etl", dram="1MiB")
    with group.numpy():
        tiered = np.full(3 << 20, 9, "u1")
    assert used(memory)["dram"] <= 1 << 20
    assert (tiered == 9).all()
    with pytest.raises(SpecError, match="below"):
        memory.group("tiny", dram="64KiB")


# -- threads ----------------------------------------------------------------------------------------------------------


def test_many_threads_fault_at_once(design: str, tmp_path: Path) -> None:
    """Each owns a slice and checks it; all of them read a common part."""
    with Memory(f"dram=1MiB, zstd=2MiB, file:{tmp_path}=16MiB", design=design) as memory:
        common = memory.array(np.arange(100_000))
        sums: list[int] = []

        def work(seed: int) -> None:
            random = np.random.default_rng(seed)
            own = memory.zeros(64_000, "i8")
            plain = np.zeros(64_000, "i8")
            for _ in range(30):
                at = random.integers(0, 64_000, 500)
                own[at] = plain[at] = random.integers(0, 1 << 40)
                start = random.integers(0, 60_000)
                assert np.array_equal(own[start : start + 4000], plain[start : start + 4000])
            assert np.array_equal(own, plain)
            sums.append(int(common.sum()))

        threads = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sums == [100_000 * 99_999 // 2] * 8
        assert memory.stat()["pager"]["starts"] == 1


def test_auto_is_what_the_machine_has() -> None:
    with Memory("auto") as memory:
        assert [node.name for node in memory.nodes] == [node.name for node in auto_spec()]
        assert memory.nodes[0] == auto_spec()[0]
        tiered = memory.array(np.arange(100_000))
        assert int(tiered.sum()) == 99_999 * 50_000
