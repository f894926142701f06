"""The parts, each by itself: stores, workers, clock, inbox."""

from __future__ import annotations

import math
import statistics

import pytest
from virtual_memories import COSTS, PAGE, dram, file, zstd

from thermocline.live.stores.compressed import CompressedStore
from thermocline.live.stores.file import FileStore
from thermocline.virtual.clock import Clock, mean
from thermocline.virtual.costs import Cost
from thermocline.virtual.inbox import Inbox
from thermocline.virtual.store import VirtualStore, slot_bytes, total_pages
from thermocline.virtual.workers import READERS, WRITERS, Workers


@pytest.mark.parametrize("page_size", [4 << 10, 16 << 10, 64 << 10, 256 << 10, 2 << 20])
def test_a_slot_takes_what_it_takes_live(page_size: int) -> None:
    assert slot_bytes(zstd(), page_size) == CompressedStore.worst_case(page_size)
    assert slot_bytes(file(), page_size) == FileStore.worst_case(page_size)
    assert slot_bytes(dram(), page_size) == page_size


def test_there_are_as_many_workers_as_live() -> None:
    from thermocline.live import workers

    assert (READERS, WRITERS) == (workers._READERS, workers._WRITERS)


def test_pages_are_counted_by_their_worst_case() -> None:
    assert total_pages((dram(16), zstd(32), file(64)), PAGE) == 16 + 32 * PAGE // slot_bytes(zstd(), PAGE) + 64


def test_a_slot_is_charged_its_worst_case_until_it_is_written() -> None:
    store = VirtualStore(zstd(), COSTS, PAGE)
    store.expect(1, 4.0)
    first, second = store.reserve(), store.reserve()
    assert (first, second, store.size(first)) == (1, 2, store.slot_bytes)
    assert store.write(first, 1) == PAGE // 4 == store.size(first)
    store.release(first)
    assert store.reserve() == first
    assert store.size(first) == store.slot_bytes


def test_a_page_takes_no_more_than_the_worst_case_and_no_less_than_a_byte() -> None:
    store = VirtualStore(zstd(), COSTS, PAGE)
    sizes = []
    for region, ratio in enumerate((0.5, 1.0, 1e9)):
        store.expect(region, ratio)
        sizes.append(store.write(store.reserve(), region))
    assert sizes == [store.slot_bytes, store.slot_bytes, 1]


def test_a_file_does_not_compress() -> None:
    store = VirtualStore(file(), COSTS, PAGE)
    store.expect(1, 8.0)
    assert store.write(store.reserve(), 1) == PAGE


def test_two_write_and_the_third_job_waits_for_the_first_of_them() -> None:
    workers = Workers()
    assert [workers.begin(1, True, 0, time) for time in (100, 40, 30, 5)] == [100, 40, 70, 75]
    assert workers.begin(1, True, 200, 10) == 210


def test_readers_writers_and_nodes_do_not_wait_for_each_other() -> None:
    workers = Workers()
    for _ in range(2):
        workers.begin(1, True, 0, 1000)
    assert workers.begin(1, False, 0, 10) == 10
    assert workers.begin(2, True, 0, 10) == 10


def test_a_cost_without_spread_is_what_it_is() -> None:
    clock = Clock(0)
    clock.take(Cost(1.5, 0.25), 10)
    assert (clock.now, clock.busy) == (4_000, 4_000)


def test_a_cost_with_spread_varies_about_its_median() -> None:
    clock = Clock(3)
    times = [clock.draw(Cost(1000, spread=0.5)) for _ in range(4000)]
    assert statistics.median(times) == pytest.approx(1_000_000, rel=0.05)
    assert statistics.stdev(map(math.log, times)) == pytest.approx(0.5, rel=0.05)
    assert statistics.mean(times) == pytest.approx(mean(Cost(1000, spread=0.5)), rel=0.05)


def test_news_is_taken_by_time_and_then_in_order() -> None:
    inbox, taken = Inbox(), []
    for time, name in ((5, "b"), (3, "a"), (5, "c"), (9, "d")):
        inbox.put(time, lambda name=name: taken.append(name))
    assert inbox.next == 3
    assert inbox.take(5)
    assert taken == ["a", "b", "c"]
    assert not inbox.take(8)
    assert inbox.next == 9
