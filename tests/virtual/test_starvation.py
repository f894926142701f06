"""Many more threads than frames to go round: on a virtual clock, so that what is said of waits is said of each run."""

from __future__ import annotations

import numpy as np
import pytest
from virtual_memories import COSTS, dram, file, memory, spread, zstd

from thermocline.protocol.migrate import DESIGNS

THREADS, FRAMES, PAGES, TOUCHES = 64, 32, 256, 60


@pytest.mark.parametrize("below", [(), (zstd(2 * FRAMES),)], ids=["file", "zstd and file"])
@pytest.mark.parametrize("design", sorted(DESIGNS))
def test_no_thread_starves_where_all_thrash(design: str, below: tuple[object, ...]) -> None:
    """Eight times DRAM, read and written at random by two threads a frame: all progress alike, and no stall stands out.

    Who is passed over by all others waits for as long as they take together. So what bounds a wait is a wait in the
    mean, times half the threads.
    """
    made = memory(dram(FRAMES), *below, file(2 * PAGES), pages=PAGES, design=design, costs=spread(COSTS, 0.3))
    made.region(PAGES)
    for number in range(THREADS):
        made.thread([np.random.default_rng(number).integers(0, 2 * PAGES, TOUCHES, dtype=np.uint32)])
    threads = made.run().threads
    assert [thread.touches for thread in threads] == [TOUCHES] * THREADS
    assert not any(thread.killed for thread in threads)
    ends = [thread.ended_ns for thread in threads]
    assert min(ends) > max(ends) * 2 / 3
    waits = sum(thread.stalls.count for thread in threads)
    mean = sum(thread.stalls.total for thread in threads) / waits
    assert max(thread.stalls.max for thread in threads) < THREADS * mean / 2
