"""What a step takes in virtual time is the sum of what it consists of, computed by hand."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from virtual_memories import COSTS, at_rest, dram, file, memory, reads, writes, zstd

from thermocline.protocol.page import POISONED, SHADOWED
from thermocline.spec import File
from thermocline.virtual.costs import Cost

HIT, FAULT, WAKE, THINK = 10, 20_000, 8_000, 50_000
TURN, MESSAGE, EFFECT, REQUEST, SUBMIT, WORKER = 3_000, 2_000, 1_000, 25_000, 11_000, 60_000
#: Of one page of 4096 bytes.
INSTALL, ZERO, PROTECT, UNPROTECT = 4_000 + 1_024, 3_000 + 512, 1_500 + 256, 1_600 + 256
PUNCH, READ, POISON = 2_500 + 1_024, 1_200 + 512, 7_000
ZSTD_READ, ZSTD_WRITE = 9_000 + 2_048, 30_000 + 4_096
FILE_READ, FILE_WRITE = 90_000 + 1_024, 70_000 + 1_024
#: Seconds that a transfer takes longer.
LATE = 0.002
#: From a touch to the first effect of its fault, when the pager sleeps.
HEARD = FAULT + TURN + MESSAGE


def test_hits_take_what_so_many_hits_take() -> None:
    made = memory()
    made.region(4)
    made.place(range(4), 0)
    made.thread([reads(0, 1, 2, 3), writes(0, 1, 2)])
    result = made.run()
    assert (result.ns, result.cpu_ns, result.threads[0].touches) == (7 * HIT, 0, 7)
    assert result.threads[0].stalls.count == 0


def test_a_fault_of_a_fresh_page() -> None:
    made = memory()
    made.region(1)
    made.thread([writes(0)], keep_stalls=True)
    result = made.run()
    # Lock, Reserve, Commit (PARTIAL), Fill; the thread goes on before the rest of the protocol.
    assert result.threads[0].stall_ns == [HEARD + 4 * EFFECT + ZERO + WAKE + HIT]
    assert result.ns == HEARD + 4 * EFFECT + ZERO + WAKE + HIT
    # ... Commit (RESIDENT), Unlock
    assert result.cpu_ns == TURN + MESSAGE + 6 * EFFECT + ZERO
    assert made.stopwatch.fault.read().total == MESSAGE + 6 * EFFECT + ZERO
    at_rest(made)


def test_a_page_of_compressed_memory_is_read_by_the_pager() -> None:
    made = memory(dram(), zstd())
    made.region(1)
    made.place([0], 1)
    made.thread([reads(0)], keep_stalls=True)
    result = made.run()
    assert result.threads[0].stall_ns == [HEARD + 4 * EFFECT + ZSTD_READ + INSTALL + WAKE + HIT]
    at_rest(made)


@pytest.mark.parametrize(("node", "late"), [(file(), 0), (file(64, LATE), 2_000_000)])
def test_a_page_of_a_file_is_read_by_a_worker(node: File, late: int) -> None:
    made = memory(dram(), node)
    made.region(1)
    made.place([0], 1)
    made.thread([reads(0)], keep_stalls=True)
    result = made.run()
    stall = HEARD + 4 * EFFECT + SUBMIT + WORKER + FILE_READ + late + REQUEST + TURN + INSTALL + WAKE + HIT
    assert result.threads[0].stall_ns == [stall]
    assert result.cpu_ns == 2 * TURN + MESSAGE + 6 * EFFECT + SUBMIT + INSTALL  # and not the read
    assert result.vmstat["pswpin"] == 1


def test_the_first_write_to_a_page_that_came_up_for_reading() -> None:
    made = memory(dram(), zstd())
    made.region(1)
    made.place([0], 1)
    states = []

    def trace() -> object:
        yield reads(0)
        states.append(made.mm.table.state(0))
        yield writes(0)

    made.thread(trace(), think_ns=1_000_000, keep_stalls=True)
    result = made.run()
    assert states == [SHADOWED]
    # Lock, Commit, Release (of the shadow), Remap
    assert result.threads[0].stall_ns[1] == HEARD + 4 * EFFECT + UNPROTECT + WAKE + HIT
    assert result.vmstat["pgfault_write_protect"] == 1
    at_rest(made)


def test_a_page_that_goes_to_compressed_memory() -> None:
    made = memory(dram(), zstd())
    made.region(1)
    made.place([0], 0)
    made.drive_cold([0], rounds=1)
    result = made.run()
    # TryLock, Unlock; Trace, Reserve, Trace; TryLock, Trace; Unmap, CopyList, Commit, Punch, Unlock; Resched; a turn
    # before the page, and the one in which the request is answered.
    assert result.ns == REQUEST + TURN + 13 * EFFECT + PROTECT + TURN + READ + ZSTD_WRITE + PUNCH + TURN
    assert result.cpu_ns == result.ns - REQUEST
    assert result.cold_pages == 1
    at_rest(made)


def test_a_batch_that_goes_to_compressed_memory_is_one_call_each_way_and_a_slice_a_page() -> None:
    made = memory(dram(), zstd())
    made.region(3)
    made.place(range(3), 0)
    made.drive_cold(range(3), rounds=1)
    result = made.run()
    calls = 1_500 + 2_500 + 3 * (256 + 1_024)  # protect, punch
    slices = 3 * (TURN + READ + ZSTD_WRITE)
    # Thrice TryLock, Unlock, Trace, Reserve, Trace, TryLock, Trace, Commit, Unlock; Unmap, CopyList, Punch, Resched.
    assert result.ns == REQUEST + TURN + 31 * EFFECT + calls + slices + TURN
    at_rest(made)


def test_a_page_that_goes_to_a_file_is_written_by_a_worker() -> None:
    made = memory(dram(), file(64, LATE))
    made.region(1)
    made.place([0], 0)
    made.drive_cold([0], rounds=1)
    result = made.run()
    away = READ + FILE_WRITE + 2_000_000
    assert result.ns == REQUEST + TURN + 13 * EFFECT + PROTECT + SUBMIT + WORKER + away + REQUEST + TURN + PUNCH + TURN
    assert result.cpu_ns == result.ns - 2 * REQUEST - WORKER - away
    assert result.vmstat["pswpout"] == 1


def test_a_page_of_zeros_is_not_written() -> None:
    made = memory(dram(), zstd())
    made.region(1)
    made.thread([reads(0)])
    made.thread([reads(0)], think_ns=2_000_000)
    made.drive_cold([0], rounds=1, start_ns=1_000_000)
    result = made.run()
    assert result.vmstat["pgmigrate_zero"] == 1
    fault = TURN + MESSAGE + 6 * EFFECT + ZERO  # before and after
    demotion = (
        TURN + 14 * EFFECT + PROTECT + TURN + READ + PUNCH + TURN
    )  # one more than with bytes: the slot is released
    assert result.cpu_ns == 2 * fault + demotion
    at_rest(made)


def test_four_pages_of_a_file_are_read_at_once_and_the_fifth_waits() -> None:
    late = file(64, LATE)
    made = memory(dram(), late, costs=replace(COSTS, cores=8))
    made.region(5)
    made.place(range(5), 1)
    for page in range(5):
        made.thread([reads(page)], keep_stalls=True)
    result = made.run()
    stalls = [thread.stall_ns[0] for thread in result.threads]
    transfer = FILE_READ + 2_000_000
    assert all(transfer < stall < 2 * transfer for stall in stalls[:4])
    assert 2 * transfer < stalls[4] < 3 * transfer


def test_a_thread_that_thinks() -> None:
    made = memory()
    made.region(1)
    made.place([0], 0)
    made.thread([reads(0, 0, 0)], think_ns=7_000)
    assert made.run().ns == 3 * (7_000 + THINK + HIT)


def test_threads_share_the_cores() -> None:
    made = memory(costs=replace(COSTS, cores=2))
    made.region(1)
    made.place([0], 0)
    for _ in range(3):
        made.thread([reads(*[0] * 1000)])
    assert made.run().ns == 1000 * HIT * 3 // 2


def test_a_thread_that_thinks_takes_a_part_of_a_core() -> None:
    made = memory(costs=replace(COSTS, cores=1, think=replace(COSTS.think, call=10)))
    made.region(1)
    made.place([0], 0)
    made.thread([reads(*[0] * 3000)])
    made.thread([reads(*[0] * 1000)], think_ns=20)  # 10 of 40 ns
    result = made.run()
    assert result.threads[0].ended_ns == pytest.approx(3000 * HIT * 1.25, rel=0.01)


def test_on_one_core_the_program_stands_while_the_pager_runs() -> None:
    ended = []
    for cores in (1, 2):
        made = memory(dram(), zstd(), costs=replace(COSTS, cores=cores))
        made.region(5)
        made.place(range(5), 0)
        made.thread([reads(*[4] * 50_000)])
        made.drive_cold(range(4), rounds=1)
        result = made.run()
        assert result.cold_pages == 4
        ended.append((result.ns, result.cpu_ns))
    (alone, busy), (beside, _) = ended
    assert beside == 50_000 * HIT
    assert alone == pytest.approx(50_000 * HIT + busy, abs=20)


def test_a_busy_pager_takes_a_fault_at_its_next_turn() -> None:
    made = memory(dram(), zstd())
    made.region(2)
    made.place([0], 0)
    made.drive_cold([0], rounds=1)
    # In the middle of the demotion, while the pager compresses; the fault is in the foreground, so it is next.
    begun = REQUEST + TURN + 9 * EFFECT + PROTECT + TURN + READ
    made.thread([reads(1)], think_ns=begun - THINK, keep_stalls=True)
    result = made.run()
    # To the end of the request's slice: Commit, Punch, Unlock, Resched.
    left = ZSTD_WRITE + 4 * EFFECT + PUNCH
    assert result.threads[0].stall_ns == [left + TURN + MESSAGE + 4 * EFFECT + ZERO + WAKE + HIT]


def test_two_threads_that_fault_on_the_same_page_both_go_on() -> None:
    made = memory()
    made.region(1)
    made.thread([writes(0)], keep_stalls=True)
    made.thread([writes(0)], keep_stalls=True)
    result = made.run()
    both = FAULT + TURN + 2 * MESSAGE + 4 * EFFECT + ZERO + WAKE + HIT
    assert [thread.stall_ns for thread in result.threads] == [[both], [both]]
    assert result.vmstat["pgfault"] == 2
    at_rest(made)


def test_who_is_served_before_he_is_heard_has_nothing_to_say_any_more() -> None:
    made = memory()
    made.region(1)
    made.thread([writes(0)], think_ns=1_000_000)
    # While the pager brings up the page for the other one.
    made.thread([writes(0)], think_ns=1_000_000 + HEARD + 2 * EFFECT, keep_stalls=True)
    result = made.run()
    assert result.threads[1].stall_ns == [2 * EFFECT + ZERO + WAKE + HIT]
    assert result.vmstat["pgfault"] == 1
    at_rest(made)


def test_a_pager_that_is_woken_by_something_else_finds_the_fault() -> None:
    made = memory()
    made.region(2)
    made.thread([writes(0)], think_ns=100_000, keep_stalls=True)
    made.drive_cold([1], rounds=1, start_ns=100_000 + THINK + 7_000 - REQUEST)
    result = made.run()
    assert result.threads[0].stall_ns == [7_000 + TURN + MESSAGE + 4 * EFFECT + ZERO + WAKE + HIT]


def test_a_fault_while_the_pager_looks_for_news_is_news() -> None:
    made = memory()
    made.region(2)
    made.thread([writes(0)], think_ns=100_000, keep_stalls=True)
    made.drive_cold([1], rounds=1, start_ns=100_000 + THINK - 1_000 - REQUEST)
    result = made.run()
    assert result.threads[0].stall_ns == [TURN - 1_000 + MESSAGE + 4 * EFFECT + ZERO + WAKE + HIT]


def test_a_fault_just_before_the_pager_goes_to_sleep_keeps_it_awake() -> None:
    made = memory()
    made.region(2)
    made.thread([writes(0)], think_ns=100_000)
    # While the pager ends the other one's fault: Commit, Unlock.
    made.thread([writes(1)], think_ns=100_000 + HEARD + 4 * EFFECT + ZERO + 500, keep_stalls=True)
    result = made.run()
    assert result.threads[1].stall_ns == [2 * EFFECT - 500 + TURN + MESSAGE + 4 * EFFECT + ZERO + WAKE + HIT]


def test_a_page_that_is_lost_ends_the_thread_when_the_pager_has_said_so() -> None:
    made = memory()
    made.region(1)
    made.mm.table.commit(0, POISONED)
    made.thread([reads(0)])
    result = made.run()
    assert result.threads[0].killed
    assert result.ns == HEARD + 2 * EFFECT + UNPROTECT + WAKE
    assert result.cpu_ns == TURN + MESSAGE + 3 * EFFECT + UNPROTECT + POISON


def test_reads_do_not_wait_for_writes() -> None:
    made = memory(dram(), file(64, LATE), costs=replace(COSTS, cores=8))
    made.region(5)
    made.place(range(4), 1)
    made.place([4], 0)
    made.drive_cold([4], rounds=1)
    for page in range(4):
        made.thread([reads(page)], think_ns=200_000)
    result = made.run()
    assert all(thread.stalls.max < 2 * 2_000_000 for thread in result.threads)


def test_a_client_waits_between_two_requests() -> None:
    took = []
    for pause in (0, 1_000_000):
        made = memory()
        made.region(1)
        made.drive_cold([0], rounds=3, pause_ns=pause)
        took.append(made.run().ns)
    assert took[0] == 3 * (REQUEST + 2 * TURN + EFFECT) + 2 * REQUEST
    assert took[1] == took[0] + 2 * 1_000_000


def test_each_sleep_takes_another_time() -> None:
    made = memory(costs=replace(COSTS, think=Cost(THINK, spread=0.5)))
    made.region(1)
    made.place([0], 0)
    for _ in range(2):
        made.thread([reads(*[0] * 2000)], think_ns=10_000)
    ended = [thread.ended_ns for thread in made.run().threads]
    assert abs(ended[0] - ended[1]) > 10 * THINK  # more than the first sleep makes
    assert ended == pytest.approx([2000 * (10_000 + THINK * math.exp(0.5**2 / 2) + HIT)] * 2, rel=0.05)
