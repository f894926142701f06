"""A process that uses a store is killed, at any instruction, and a successor finds every page that was committed.

The child keeps a log in shared memory, as a page table is kept: a slot is named there after it was written, and taken
out before it is released. The parent has the log, the descriptors, and nothing else.
"""

from __future__ import annotations

import mmap
import os
import random
import signal
import sys
import traceback
from collections.abc import Callable
from types import FrameType
from typing import Any, NoReturn

import pytest
from shelf import Shelf, page

PAGE = 4096
SLOTS = 2048
STORES = os.path.join("thermocline", "live", "stores")


class Log:
    """The seeds of the pages in each slot: the one there is, and the one that may have replaced it."""

    def __init__(self) -> None:
        words = memoryview(mmap.mmap(-1, 8 * (2 * SLOTS + 2))).cast("Q")
        self.counters, self.now, self.next = words[:2], words[2 : SLOTS + 2], words[SLOTS + 2 :]

    def name(self, slot: int, seed: int) -> None:
        self.now[slot] = seed
        self.next[slot] = 0

    @property
    def named(self) -> list[int]:
        return [slot for slot in range(SLOTS) if self.now[slot]]

    def settle(self, shelf: Shelf) -> None:
        """Check every named page, and note which it is."""
        shelf.succeed(self.named)
        for slot in self.named:
            found = shelf.get(slot)
            seeds = [seed for seed in (self.now[slot], self.next[slot]) if seed and page(seed, PAGE) == found]
            assert seeds, f"slot {slot} is neither page {self.now[slot]} nor page {self.next[slot]}"
            self.name(slot, seeds[0])


def step(shelf: Shelf, log: Log, dice: random.Random) -> None:
    """Do one of the things that the owner of a store does."""
    what = dice.choices(("put", "replace", "drop", "trim"), (40, 20, 35, 5))[0]
    seed = dice.randrange(1, 1 << 40)
    named = list(shelf.charged)
    if what == "trim":
        shelf.store.trim()
    elif what == "put" and shelf.has_room:
        slot = shelf.reserve()
        shelf.write(slot, page(seed, PAGE), hint=seed % 3)
        log.name(slot, seed)
    elif what == "replace" and named and shelf.has_room:
        slot = dice.choice(named)
        if shelf.store.slow:  # overwritten in place
            log.now[slot] = 0
        else:
            log.next[slot] = seed
        shelf.write(slot, page(seed, PAGE), hint=seed % 3)
        log.name(slot, seed)
    elif named:
        slot = dice.choice(named)
        log.now[slot] = 0
        shelf.drop(slot)


def fork(work: Callable[[], None]) -> int:
    """Run something in a child that never returns -> its process id."""
    pid = os.fork()
    if pid:
        return pid
    try:
        work()
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def die() -> NoReturn:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("unreachable")


def count_instructions(limit: int, log: Log) -> Callable[[FrameType, str, Any], Any]:
    """A tracer that kills the process at an instruction of the stores."""

    def trace(frame: FrameType, event: str, argument: Any) -> Any:
        if STORES not in frame.f_code.co_filename:
            return None
        frame.f_trace_opcodes = True
        if event == "opcode":
            log.counters[1] += 1
            if log.counters[1] == limit:
                die()
        return trace

    return trace


def check_that_all_room_is_there(shelf: Shelf, log: Log) -> None:
    """Fill the store to the last page and empty it again: nothing was lost, and nothing is handed out twice."""
    filled = shelf.fill(log.counters[0] << 20)
    for slot in log.named:
        assert shelf.get(slot) == page(log.now[slot], PAGE)
    for slot, content in filled.items():
        assert shelf.get(slot) == content
        shelf.drop(slot)


@pytest.mark.parametrize("kind", ["zstd", "file", "plain file"])
def test_killed_at_every_point_of_the_same_story(kind: str, shelves: Callable[..., Shelf]) -> None:
    """Some 250 points, evenly over the bytecode instructions of a story in a full store with scattered room."""
    shelf, log = shelves(kind, PAGE, room=12), Log()

    def story() -> None:
        sys.settrace(count_instructions(log.counters[0], log))
        for seed in range(12):
            step(shelf, log, random.Random(seed))
        sys.settrace(None)

    def prepare() -> None:
        """The same full store with every third page released."""
        shelf.succeed([])
        log.now[:] = log.next[:] = memoryview(bytes(8 * SLOTS)).cast("Q")
        shelf.fill(0)
        for slot in list(shelf.charged):
            if slot % 3:
                log.name(slot, slot)
            else:
                shelf.drop(slot)
        log.counters[1] = 0

    log.counters[0] = 0
    prepare()
    for slot in log.named:
        assert shelf.get(slot) == page(slot, PAGE)
    assert os.waitpid(fork(story), 0)[1] == 0
    instructions = log.counters[1]
    assert instructions > 1000
    for limit in range(1, instructions, instructions // 250):
        prepare()
        log.counters[0] = limit
        status = os.waitpid(fork(story), 0)[1]
        assert os.waitstatus_to_exitcode(status) == -signal.SIGKILL
        log.settle(shelf)
        check_that_all_room_is_there(shelf, log)


@pytest.mark.parametrize("kind", ["lz4", "file"])
def test_killed_at_any_moment_over_many_generations(kind: str, shelves: Callable[..., Shelf]) -> None:
    """Each generation inherits what the last one left, and is killed from outside, in C code as in Python."""
    shelf, log = shelves(kind, PAGE, room=24), Log()
    dice = random.Random(0)
    for generation in range(1, 81):
        log.counters[0], log.counters[1] = generation, 0

        def work(generation: int = generation) -> None:
            dice = random.Random(generation)
            while True:
                step(shelf, log, dice)
                log.counters[1] += 1

        pid = fork(work)
        try:
            steps = dice.randrange(1, 200)
            while log.counters[1] < steps:
                ended = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
                assert ended is None, "the child failed"
            for _ in range(dice.randrange(4000)):  # some part of a step further
                pass
        finally:
            os.kill(pid, signal.SIGKILL)
        status = os.waitpid(pid, 0)[1]
        assert os.waitstatus_to_exitcode(status) == -signal.SIGKILL
        log.settle(shelf)
        if generation % 8 == 0:
            check_that_all_room_is_there(shelf, log)
