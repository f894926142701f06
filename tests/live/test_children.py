"""Forked children: how they come and go, and what they share where that is asked for (``fork="share"``)."""

import contextlib
import faulthandler
import mmap
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from families import Steps, forked, kill_pagers, starts, status_of, wait_for
from test_processes import helpers, program, wait_for_all

from thermocline import Memory
from thermocline.errors import ClosedError

PAGE = 4 << 10
WORDS = PAGE // 8


@pytest.fixture
def small(design: str, tmp_path: Path) -> Memory:
    """24 pages of DRAM over little compressed memory over a file."""
    spec = f"dram=96KiB, lz4=64KiB, file:{tmp_path}=8MiB"
    return Memory(spec, page_size=PAGE, design=design, readahead=4, fork="share")


def count_up(array: np.ndarray, word: int, seed: int, steps: int) -> np.ndarray:
    """Add ones to one word of pages at random, and look at them all -> what was added to each page."""
    random = np.random.default_rng(seed)
    own = np.zeros(len(array) // WORDS, "i8")
    for _ in range(steps):
        page = int(random.integers(0, len(own)))
        if random.integers(0, 2):
            array[page * WORDS + word] += 1
            own[page] += 1
        assert array[page * WORDS + word] == own[page]
    assert np.array_equal(array[word::WORDS], own)
    return own


@pytest.fixture
def shared(tmp_path: Path) -> Iterator[Memory]:
    """2 MiB of DRAM, whose arrays forked children share."""
    with Memory(f"dram=2MiB, zstd=4MiB, file:{tmp_path}=64MiB", fork="share") as made:
        yield made
        assert made.stat()["pager"]["starts"] == 1, "the pager died and was replaced"


@pytest.mark.parametrize("kills", [0, 20])
def test_words_of_one_page_are_written_by_many_processes(small: Memory, kills: int) -> None:
    """Each process has a word of its own in every page. None is lost, whoever brings a page up or takes it down."""
    pages, processes = 120, 3
    arrays = [small.zeros(pages * WORDS, "i8")]
    results = mmap.mmap(-1, processes * pages * 8)

    def work(word: int) -> bool:
        results[word * pages * 8 : (word + 1) * pages * 8] = count_up(arrays[0], word, word, 1500).tobytes()
        return True

    children = [forked(lambda word=word: work(word)) for word in range(1, processes)]
    children.append(forked(lambda: kill_pagers(small, os.getppid(), kills)))
    work(0)
    assert [status_of(child) for child in children] == [0] * len(children)
    for word in range(processes):
        own = np.frombuffer(results, "i8", pages, word * pages * 8)
        assert np.array_equal(arrays[0][word::WORDS], own), f"word {word}"
    assert starts(small) == 1 + kills
    arrays.clear()
    small.close()


def test_a_child_s_first_write_to_a_page_that_came_up_clean_is_seen(shared: Memory, steps: Steps) -> None:
    """The page came up in the parent, for reading, while the child had nothing of it. Its copy below is stale then."""
    array = shared.full(1000, 5, "i8")
    shared.advise(array, "cold")

    def write() -> bool:
        steps.turn()
        array[7] = 6
        steps.done()
        return True

    child = forked(write)
    assert array[7] == 5
    steps.let()
    shared.advise(array, "cold")
    assert array[7] == 6
    assert status_of(child) == 0


def test_a_child_s_first_write_to_a_page_that_was_clean_before_it_was_forked_is_seen(shared: Memory) -> None:
    array = shared.full(1000, 5, "i8")
    shared.advise(array, "cold")
    assert array[7] == 5

    def write() -> bool:
        array[7] = 6
        return True

    assert status_of(forked(write)) == 0
    shared.advise(array, "cold")
    assert array[7] == 6


def test_what_the_program_frees_is_the_child_s_until_it_ends(memory: Memory, steps: Steps) -> None:
    plain = np.arange(1 << 18, dtype="i8")
    arrays = [memory.array(plain)]
    committed = memory._regions.commitment

    def look() -> bool:
        steps.turn()
        right = np.array_equal(arrays[0], plain)
        steps.done()
        steps.turn()
        return right

    child = forked(look)
    arrays.clear()
    other = memory.full(1 << 18, -1, "i8")
    held = committed.committed
    steps.let()
    del other
    memory.stat()
    assert committed.committed == held // 2, "what was made after the fork is freed at once"
    steps.go_on()
    assert status_of(child) == 0
    wait_for(memory, processes=1)
    assert committed.committed == 0


def test_blocks_made_while_another_thread_forks_are_held_for_the_child(memory: Memory) -> None:
    """Whatever the child finds in a list that another thread appends to, it can read."""
    kept: list[tuple[int, np.ndarray]] = []
    stop = threading.Event()

    def churn() -> None:
        for number in range(1, 1 << 30):
            kept.append((number, memory.full(8, number, "i8")))
            if len(kept) > 20:
                del kept[0]
            if stop.is_set():
                break

    thread = threading.Thread(target=churn)
    thread.start()
    ends = []
    for _ in range(20):
        child = forked(lambda: all((array == number).all() for _ in range(3) for number, array in kept))
        ends.append(status_of(child))
    stop.set()
    thread.join()
    assert ends == [0] * 20
    kept.clear()


def test_a_child_s_child_shares_them_too(shared: Memory) -> None:
    array = shared.zeros(1000, "i8")

    def grandchild() -> bool:
        array[1] += 1
        return True

    def child() -> bool:
        array[0] += 1
        return status_of(forked(grandchild)) == 0

    assert status_of(forked(child)) == 0
    assert list(array[:2]) == [1, 1]
    wait_for(shared, processes=1)


def test_a_child_that_lets_go_of_an_array_it_was_sent_keeps_its_parent_s(shared: Memory) -> None:
    """They are the same one, and lie in whole units of addresses, which a process that was sent one would unmap."""
    array = shared.array(np.arange(1 << 20))
    kept = shared.share(array), shared.share(shared.zeros(1000))
    handle, other = map(pickle.dumps, kept)

    def let_go() -> bool:
        received = pickle.loads(handle)
        same = np.shares_memory(received, array)
        del received
        assert not pickle.loads(other).any()
        return same and bool(array.sum() == (1 << 19) * ((1 << 20) - 1))

    assert status_of(forked(let_go)) == 0


def test_pools_work_on_one_copy(shared: Memory) -> None:
    array = shared.zeros((64, 8 << 10), "i8")
    with multiprocessing.get_context("fork").Pool(3, initializer=_remember, initargs=(array,)) as pool:
        pool.map(_fill_row, range(64))
    assert np.array_equal(array, np.broadcast_to(np.arange(64)[:, None], array.shape))


_shared: list[np.ndarray] = []


def _remember(array: np.ndarray) -> None:
    _shared.append(array)


def _fill_row(row: int) -> None:
    _shared[0][row] = row


def test_a_child_can_do_nothing_but_read_and_write(shared: Memory) -> None:
    array = shared.zeros(1000, "i8")

    def refused() -> bool:
        for action in (
            lambda: shared.zeros(10),
            lambda: shared.advise(array, "cold"),
            lambda: shared.pin(array).__enter__(),
            shared.stat,
        ):
            with pytest.raises(ClosedError, match="forked child"):
                action()
        shared.close()
        array[0] = 1
        return True

    assert status_of(forked(refused)) == 0
    assert array[0] == 1


@pytest.mark.parametrize("end", ["os._exit(0)", "os.kill(os.getpid(), 9)", "del array; memory.close(); sys.exit(0)"])
def test_children_outlive_the_program(end: str, tmp_path: Path) -> None:
    """Pagers are killed, and the arrays are read and written, when the program is long gone."""
    then = f"""
        read, write = os.pipe()
        if os.fork():
            {end}
        os.read(0, 1)
        array[::4096] += 1
        right = np.array_equal(array[1:4096], np.arange(1, 4096) % 251)
        print("right" if right and (array[::4096] == (np.arange(0, 8 << 20, 4096) % 251 + 1) % 256).all() else "wrong")
    """
    with program(tmp_path, then) as process:
        found = helpers(process.pid)
        process.wait(20)
        assert process.stdin is not None and process.stdout is not None
        os.kill(found["thermocline-pager"], signal.SIGKILL)
        process.stdin.write("go")
        process.stdin.flush()
        assert process.stdout.read() == "right\n"
        wait_for_all(list(found.values()))
    assert list(tmp_path.iterdir()) == []


def test_closing_does_not_wait_for_children(memory: Memory, tmp_path: Path, steps: Steps) -> None:
    other = Memory(f"dram=1MiB, file:{tmp_path}=16MiB", page_size=PAGE)
    arrays = [other.array(np.arange(1 << 18))]

    def look() -> bool:
        steps.turn()
        return np.array_equal(arrays[0], np.arange(1 << 18))

    child = forked(look)
    arrays.clear()
    other.close()
    steps.go_on()
    assert status_of(child) == 0


def test_a_supervisor_that_is_killed_ends_the_children(tmp_path: Path) -> None:
    then = """
        child = os.fork()
        if child:
            while memory.stat()["processes"] < 2:
                os.sched_yield()
            print(child, flush=True)
        sys.stdin.read()
    """
    with program(tmp_path, then) as process:
        assert process.stdout is not None
        child = int(process.stdout.readline())
        os.kill(helpers(process.pid)["thermocline-supervisor"], signal.SIGKILL)
        assert process.wait(20) == -signal.SIGKILL
        wait_for_all([child])


def test_a_pager_killed_before_it_has_heard_of_a_child(tmp_path: Path) -> None:
    """It is stopped, so it has not; its successor has to."""
    then = """
        for line in sys.stdin:
            child = os.fork()
            if not child:
                os._exit(0 if np.array_equal(array, (np.arange(8 << 20) % 251).astype("u1")) else 1)
            print(os.waitpid(child, 0)[1], flush=True)
    """
    with program(tmp_path, then) as process:
        for _ in range(5):
            pager = helpers(process.pid)["thermocline-pager"]
            before = os.listdir(f"/proc/{process.pid}/fd")
            os.kill(pager, signal.SIGSTOP)
            assert process.stdin is not None and process.stdout is not None
            process.stdin.write("fork\n")
            process.stdin.flush()
            wait_for_connection(process.pid, before)
            os.kill(pager, signal.SIGKILL)
            assert process.stdout.readline() == "0\n"


def wait_for_connection(program: int, before: list[str]) -> None:
    """Wait until a program has a descriptor more: it asks the supervisor for a place for its child."""
    while len(os.listdir(f"/proc/{program}/fd")) == len(before):
        os.sched_yield()


def test_a_child_that_closes_what_it_does_not_know_is_still_served(memory: Memory, steps: Steps) -> None:
    array = memory.array(np.arange(1 << 20))

    def close_all() -> bool:
        for fd in range(3, 1024):
            if fd not in steps.descriptors:
                try:
                    os.close(fd)
                except OSError:
                    continue
        steps.turn()
        right = np.array_equal(array, np.arange(1 << 20))
        steps.done()
        steps.turn()
        return right

    child = forked(close_all)
    steps.let()
    memory.advise(array, "cold")
    assert memory.stat()["processes"] == 2
    steps.go_on()
    assert status_of(child) == 0
    assert np.array_equal(array, np.arange(1 << 20))


def test_a_child_that_runs_another_program_has_left(memory: Memory, steps: Steps) -> None:
    array = memory.array(np.arange(1 << 20))
    read, write = os.pipe()
    for _ in range(10):  # the kernel closes descriptors one by one
        left = forked(lambda: os.execv("/bin/sleep", ["sleep", "0"]))
        assert status_of(left) == 0

    def become_cat() -> None:
        steps.turn()
        os.dup2(read, 0)
        os.close(write)
        os.execv("/bin/cat", ["cat"])

    child = forked(become_cat)
    wait_for(memory, processes=2)
    steps.go_on()
    wait_for(memory, processes=1)
    assert os.waitpid(child, os.WNOHANG) == (0, 0), "it is still there"
    memory.advise(array, "cold")
    assert np.array_equal(array, np.arange(1 << 20))
    os.close(write)
    os.close(read)
    assert status_of(child) == 0


def test_a_child_that_closes_what_it_does_not_know_and_runs_another_program_has_left(
    memory: Memory, steps: Steps
) -> None:
    """The descriptors that would tell of it are gone before."""
    read, write = os.pipe()

    def become_cat() -> None:
        os.dup2(read, 0)
        for fd in range(3, 1024):
            if fd not in steps.descriptors:
                with contextlib.suppress(OSError):
                    os.close(fd)
        steps.done()
        steps.turn()
        os.execv("/bin/cat", ["cat"])

    child = forked(become_cat)
    steps.wait()
    assert memory.stat()["processes"] == 2
    steps.go_on()
    wait_for(memory, processes=1)
    assert os.waitpid(child, os.WNOHANG) == (0, 0), "it is still there"
    os.close(write)
    os.close(read)
    assert status_of(child) == 0


def test_many_children_leave_nothing_behind(memory: Memory) -> None:
    """They end or are killed in the middle of their faults. Descriptors, rows and pages are what they were."""
    array = memory.array(np.arange(1 << 20))

    def touch() -> bool:
        return bool(array.sum() == (1 << 19) * ((1 << 20) - 1))

    def descriptors() -> list[int]:
        return [len(os.listdir(f"/proc/{pid}/fd")) for pid in (os.getpid(), *helpers(os.getpid()).values())]

    assert status_of(forked(touch)) == 0
    wait_for(memory, processes=1)
    before = descriptors()
    for number in range(60):
        child = forked(touch)
        if number % 3:
            os.kill(child, signal.SIGKILL)
        assert status_of(child) == (-signal.SIGKILL if number % 3 else 0)
    wait_for(memory, processes=1)
    while descriptors() != before:  # the pager closes its own a moment later
        memory.stat()
    assert not any(memory._regions.session.tables.children)
    assert touch()


def test_a_lost_page_is_a_sigbus_in_a_child_too(tmp_path: Path) -> None:
    file = tmp_path / "numbers"
    file.write_bytes(bytes(range(256)) * 1024)
    with Memory("dram=2MiB, zstd=4MiB") as memory:
        arrays = [memory.from_file(file, "u1")]
        os.truncate(file, 128 << 10)

        def touch() -> int:
            faulthandler.disable()
            return int(arrays[0][-1])

        assert status_of(forked(touch)) == -signal.SIGBUS
        assert status_of(forked(touch)) == -signal.SIGBUS
        assert arrays[0][5] == 5
        arrays.clear()


def test_nothing_that_a_child_maps_early_comes_to_lie_where_an_arena_is(tmp_path: Path) -> None:
    """A hook that runs before ours maps memory in the child, while there is a hole where the arena will be."""
    code = """
import mmap, os
mapped = []
def early():
    for size in (4 << 10, 2 << 20, 30 << 20):
        mapped.append(mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS))
        mapped[-1].write(bytes([5]) * size)
os.register_at_fork(after_in_child=early)
import numpy as np
from thermocline import Memory
memory = Memory("dram=8MiB, zstd=32MiB", fork="share")
array = memory.full(1 << 20, 7, "u1")
if not os.fork():
    array[:] = 8
    os._exit(0 if all(mapping[:] == bytes([5]) * len(mapping) for mapping in mapped) else 1)
print(os.waitstatus_to_exitcode(os.wait()[1]), set(array.tolist()))
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ran.stdout == "0 {8}\n", ran.stderr
