"""Fork is fork: a child has the arrays as they were, and what either process writes the other does not see."""

import contextlib
import ctypes
import mmap
import multiprocessing
import os
import resource
import signal
import subprocess
import sys
import threading
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from families import Steps, forked, kill_pagers, starts, status_of, wait_for

from comparison import Script, assert_same
from thermocline import Memory
from thermocline.live.tables import Tables

PAGE = 4 << 10
WORDS = PAGE // 8


@pytest.fixture
def small(design: str, tmp_path: Path) -> Memory:
    """24 pages of DRAM over little compressed memory over a file."""
    return Memory(f"dram=96KiB, lz4=64KiB, file:{tmp_path}=8MiB", page_size=PAGE, design=design, readahead=4)


def wander(array: np.ndarray, twin: np.ndarray, seed: int, steps: int) -> bool:
    """Write to words at random, in an array and in its twin in plain memory -> whether they are the same throughout."""
    random = np.random.default_rng(seed)
    for step in range(steps):
        word = int(random.integers(0, len(array)))
        if random.integers(0, 2):
            array[word] = twin[word] = seed * 100_000 + step
        elif array[word] != twin[word]:
            return False
    return bool(np.array_equal(array, twin))


@pytest.mark.parametrize("kills", [0, 12])
def test_program_and_children_diverge_as_plain_memory_does(small: Memory, kills: int) -> None:
    """Each writes at random beside a twin in plain memory that was forked along, while pages sink and pagers die."""
    pages = 120
    arrays = [small.zeros(pages * WORDS, "i8"), small.zeros(pages * WORDS, "i8")]
    twins = [np.zeros(pages * WORDS, "i8") for _ in arrays]
    assert wander(arrays[0], twins[0], 1, 600)
    children = [forked(lambda seed=seed: wander(arrays[0], twins[0], seed, 600)) for seed in (2, 3)]
    if kills:
        children.append(forked(lambda: kill_pagers(small, os.getppid(), kills)))
    assert wander(arrays[0], twins[0], 4, 600)
    assert wander(arrays[1], twins[1], 5, 300)
    children.append(forked(lambda: wander(arrays[0], twins[0], 6, 300) and wander(arrays[1], twins[1], 7, 300)))
    assert wander(arrays[0], twins[0], 8, 600)
    assert [status_of(child) for child in children] == [0] * len(children)
    assert starts(small) == 1 + kills
    arrays.clear()
    small.close()


def test_a_child_that_has_read_a_page_keeps_it_when_the_program_writes(memory: Memory, steps: Steps) -> None:
    """The frame itself is in the child's page table, so it has to be withdrawn."""
    array = memory.array(np.arange(1 << 18))

    def look() -> bool:
        before = int(array.sum())
        steps.turn()
        right = np.array_equal(array, np.arange(1 << 18)) and before == array.sum()
        steps.done()
        steps.turn()
        return right

    child = forked(look)
    wait_for(memory, processes=2)
    array[:] = -1
    steps.let()
    steps.go_on()
    assert status_of(child) == 0
    assert (array == -1).all()


def test_what_a_child_has_written_stays_when_the_program_writes_the_same_page(memory: Memory, steps: Steps) -> None:
    array = memory.array(np.arange(1 << 18))

    def write() -> bool:
        array[::2] = 7
        steps.turn()
        steps.done()
        steps.turn()
        return bool((array[::2] == 7).all() and np.array_equal(array[1::2], np.arange(1 << 18)[1::2]))

    child = forked(write)
    steps.let()
    array[:] = -1
    memory.advise(array, "cold")
    steps.go_on()
    assert status_of(child) == 0
    assert (array == -1).all()


def test_a_child_s_child_sees_what_the_child_saw(memory: Memory, steps: Steps) -> None:
    array = memory.array(np.arange(1 << 18))

    def grandchild() -> bool:
        steps.turn()
        right = bool(array[0] == 5 and array[1] == 1 and np.array_equal(array[2:], np.arange(2, 1 << 18)))
        array[1] = 9
        steps.done()
        return right

    def child() -> bool:
        array[0] = 5
        return status_of(forked(grandchild)) == 0 and array[1] == 1

    forked_child = forked(child)
    wait_for(memory, processes=3)
    array[:] = -1
    steps.let()
    assert status_of(forked_child) == 0
    assert (array == -1).all()
    wait_for(memory, processes=1)


def test_one_fork_after_the_other_sees_each_state(memory: Memory) -> None:
    array = memory.zeros(1 << 18, "i8")
    children = []
    for number in range(12):
        array[:] = number
        children.append(forked(lambda number=number: bool((array == number).all())))
    array[:] = -1
    assert [status_of(child) for child in children] == [0] * 12


def test_threads_write_while_the_program_forks(memory: Memory) -> None:
    """A child sees a state that there was: never a later write without the one before it."""
    array = memory.zeros((64, 8 << 10), "i8")
    stop = threading.Event()

    def count() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            for row in range(64):
                array[row] = number

    def consistent() -> bool:
        numbers = array[:, 0].copy()
        torn = [row for row in range(64) if len(set(array[row].tolist())) > 2]
        return not torn and bool((np.diff(numbers) <= 0).all()) and numbers[0] - numbers[-1] <= 1

    thread = threading.Thread(target=count)
    thread.start()
    try:
        ends = [status_of(forked(consistent)) for _ in range(10)]
    finally:
        stop.set()
        thread.join()
    assert ends == [0] * 10


_array: list[np.ndarray] = []


def _normalise(row: int) -> float:
    _array[0][row] -= _array[0][row].mean()
    return float(np.abs(_array[0][row]).max())


@pytest.mark.parametrize("kind", ["pool", "executor"])
def test_pools_that_scribble_change_nothing_in_the_program(memory: Memory, kind: str) -> None:
    plain = np.random.default_rng(0).normal(size=(64, 8 << 10))
    _array[:] = [memory.array(plain)]
    context = multiprocessing.get_context("fork")
    if kind == "pool":
        with context.Pool(3) as pool:
            found = pool.map(_normalise, range(64))
    else:
        with ProcessPoolExecutor(3, context) as executor:
            found = list(executor.map(_normalise, range(64)))
    assert np.array_equal(_array[0], plain)
    assert found == [float(np.abs(row - row.mean()).max()) for row in plain]
    _array.clear()


def test_readers_share_the_program_s_frames(memory: Memory) -> None:
    array = memory.array(np.arange(1 << 17))
    assert status_of(forked(lambda: array.sum() == np.arange(1 << 17).sum())) == 0
    assert memory.stat()["vmstat"]["cow_copies"] == 0


def test_a_pinned_array_stays_writable_without_a_fault_and_the_child_sees_it_as_it_was(
    memory: Memory, steps: Steps
) -> None:
    array = memory.array(np.arange(1 << 15))

    def look() -> bool:
        steps.turn()
        return np.array_equal(array, np.arange(1 << 15))

    with memory.pin(array):
        child = forked(look)
        before = memory.stat()["vmstat"]["pgfault_write_protect"]
        array[:] = -1
        assert memory.stat()["vmstat"]["pgfault_write_protect"] == before
        steps.go_on()
        assert status_of(child) == 0
    assert (array == -1).all()


def test_an_array_that_is_pinned_behind_a_fork_is_given_to_the_child_first(memory: Memory, steps: Steps) -> None:
    array = memory.array(np.arange(1 << 15))

    def look() -> bool:
        steps.turn()
        return np.array_equal(array, np.arange(1 << 15))

    child = forked(look)
    with memory.pin(array):
        array[:] = -1
        steps.go_on()
        assert status_of(child) == 0


def test_arrays_of_files_and_groups_are_as_they_were(memory: Memory, tmp_path: Path, steps: Steps) -> None:
    numbers = np.arange(1 << 17)
    numbers.tofile(tmp_path / "numbers")
    grouped = memory.group("half", dram="1MiB").zeros(1 << 18, "i8")
    from_file = memory.from_file(tmp_path / "numbers", "i8")

    def look() -> bool:
        steps.turn()
        grouped[5] += 1
        return bool(grouped.sum() == 1) and np.array_equal(from_file, numbers)

    child = forked(look)
    grouped[:] = -1
    from_file[:] = -1
    steps.go_on()
    assert status_of(child) == 0
    assert (grouped == -1).all() and (from_file == -1).all()


def test_zeros_that_the_program_fills_cost_the_child_no_memory(memory: Memory, steps: Steps) -> None:
    array = memory.zeros(1 << 20, "i8")

    def look() -> bool:
        steps.turn()
        return not array.any()

    child = forked(look)
    wait_for(memory, processes=2)
    array[:] = 1
    anonymous = _anonymous(child)
    steps.go_on()
    assert status_of(child) == 0
    assert anonymous < 4 << 20, "8 MiB of zeros were copied"


def _anonymous(pid: int) -> int:
    """Bytes of memory that a process shares with none (proc(5), ``smaps_rollup``), but for the interpreter's own."""
    lines = Path(f"/proc/{pid}/smaps").read_text().split("memfd:thermocline-arena")[1:]
    return sum(
        int(line.split()[1]) << 10
        for mapping in lines
        for line in mapping.split("VmFlags")[0].splitlines()
        if line.startswith("Anonymous:")
    )


def test_an_array_shared_by_name_is_shared_with_children_too(memory: Memory) -> None:
    shared = memory.share(memory.zeros(1 << 17, "i8"))
    private = memory.zeros(1 << 17, "i8")

    def write() -> bool:
        shared[:] = 1
        private[:] = 1
        return True

    assert status_of(forked(write)) == 0
    assert (shared == 1).all() and not private.any()
    memory.advise(shared, "cold")

    def child() -> bool:
        shared[:] += 1
        return status_of(forked(write_more)) == 0 and bool((shared == 3).all())

    def write_more() -> bool:
        shared[:] += 1
        return True

    assert status_of(forked(child)) == 0
    assert (shared == 3).all()


def test_a_child_forked_by_a_c_library_is_served(memory: Memory) -> None:
    """No hook of Python's runs for fork(3) that C code calls."""
    array = memory.array(np.arange(1 << 18))
    memory.advise(array, "cold")
    fork = ctypes.PyDLL(None).fork
    pid = fork()
    if not pid:
        right = array.sum() == np.arange(1 << 18).sum()
        array[:] = 0
        os._exit(0 if right and not array.any() else 1)
    assert status_of(pid) == 0
    assert np.array_equal(array, np.arange(1 << 18))


def test_the_program_goes_on_while_a_child_is_stopped(memory: Memory, steps: Steps) -> None:
    array = memory.array(np.arange(1 << 18))

    def look() -> bool:
        steps.turn()
        return np.array_equal(array, np.arange(1 << 18))

    child = forked(look)
    wait_for(memory, processes=2)
    os.kill(child, signal.SIGSTOP)
    array[:] = -1
    assert (array == -1).all()
    os.kill(child, signal.SIGCONT)
    steps.go_on()
    assert status_of(child) == 0


def test_a_child_that_may_not_open_descriptors_is_told_so(memory: Memory) -> None:
    array = memory.array(np.arange(1 << 15))
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    read, write = os.pipe()
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, before[1]))
    try:
        child = os.fork()
        if not child:
            os.dup2(write, 2)
            array[0] = 1
            os._exit(0)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert status_of(child) == -signal.SIGSEGV
    os.close(write)
    with open(read, encoding="utf-8") as said:
        assert "this forked child" in said.read()
    assert array[0] == 0


def test_children_outlive_the_program_and_one_another(tmp_path: Path) -> None:
    """Pages come up and go down, and a pager is killed, when only children are left."""
    code = f"""
import os, signal, sys
import numpy as np
import thermocline
memory = thermocline.Memory("dram=1MiB, zstd=2MiB, file:{tmp_path}=64MiB", page_size=4096)
array = memory.array(np.arange(1 << 19))
read, write = os.pipe()
if os.fork():
    os._exit(0)
if not os.fork():
    os.read(read, 1)
    for _ in range(3):
        assert np.array_equal(array, np.arange(1 << 19))
    array[::512] = -1
    print("grandchild", (array[::512] == -1).all() and np.array_equal(array[1:512], np.arange(1, 512)), flush=True)
    os._exit(0)
array[:] = 3
os.write(write, b".")
os.wait()
print("child", (array == 3).all(), flush=True)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)
    assert (done.stdout, done.stderr) == ("grandchild True\nchild True\n", "")


def test_two_memories_are_forked_together(memory: Memory, tmp_path: Path, steps: Steps) -> None:
    with Memory("dram=1MiB, zstd=4MiB", page_size=PAGE) as other:
        arrays = [memory.array(np.arange(1 << 17)), other.array(np.arange(1 << 17))]

        def look() -> bool:
            steps.turn()
            return all(np.array_equal(array, np.arange(1 << 17)) for array in arrays)

        child = forked(look)
        arrays[0][:] = arrays[1][:] = -1
        steps.go_on()
        assert status_of(child) == 0
        arrays.clear()


@pytest.mark.parametrize("commit", ["strict", "heuristic"])
def test_what_a_child_held_is_free_for_an_allocation_that_needs_it(tmp_path: Path, commit: str) -> None:
    """The child runs another program by then: nothing tells that to the supervisor but a look."""
    with Memory(f"dram=1MiB, file:{tmp_path}=16MiB", commit=commit) as memory:
        most = memory._regions.commitment.limit * memory.page_size * 3 // 4
        arrays = [memory.zeros(most, "u1")]
        arrays[0][:] = 1
        read, write = os.pipe()
        child = subprocess.Popen(["cat"], stdin=read, preexec_fn=lambda: None)  # noqa: PLW1509 - as some do
        arrays.clear()
        arrays.append(memory.full(most, 2, "u1"))
        os.close(write)
        os.close(read)
        assert child.wait() == 0
        arrays.clear()


def test_a_program_that_is_killed_in_the_middle_of_forking_leaves_nothing(tmp_path: Path) -> None:
    code = f"""
import os
import numpy as np
import thermocline
memory = thermocline.Memory("dram=1MiB, zstd=2MiB, file:{tmp_path}=64MiB")
array = memory.array(np.arange(1 << 19))
print("ready", flush=True)
while True:
    if not os.fork():
        array[:] = 0
        os._exit(0)
    array[:] += 1
    os.wait()
"""
    for _ in range(5):
        program = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
        assert program.stdout is not None
        with contextlib.closing(program.stdout):
            assert program.stdout.readline() == "ready\n"
            program.kill()
            program.wait()


def test_a_snapshot_is_not_torn(memory: Memory, tmp_path: Path) -> None:
    """A child saves a checkpoint while its parent goes on writing."""
    array = memory.zeros((256, 4 << 10), "i8")
    done = mmap.mmap(-1, 1)

    def save() -> bool:
        np.save(tmp_path / "snapshot.npy", array)
        done[0] = 1
        return True

    for number in range(1, 4):
        array[:] = number
        done[0] = 0
        child = forked(save)
        while not done[0]:
            array += 1
        assert status_of(child) == 0
        assert (np.load(tmp_path / "snapshot.npy") == number).all()
    (tmp_path / "snapshot.npy").unlink()


def test_an_array_that_is_sent_to_a_child_is_shared_with_it(memory: Memory) -> None:
    """It was made, or shared, after the fork: the child joins the memory as any process does."""
    memory.share(memory.zeros(10))
    before = memory.zeros(1 << 16, "i8")
    ours, theirs = multiprocessing.Pipe()

    def work() -> bool:
        for _ in range(2):
            array = theirs.recv()
            array += 1
            theirs.send("done")
        return not before.any()

    child = forked(work)
    for array in (memory.share(before), memory.share(memory.zeros(1 << 16, "i8"))):
        ours.send(array)
        assert ours.recv() == "done"
        assert (array == 1).all()
    ours.close()
    theirs.close()
    assert status_of(child) == 0
    del array


def test_a_child_that_is_condemned_ends_before_it_has_run(memory: Memory) -> None:
    """There was no room for what it is owed while its fork was under way, so it must not read anything."""
    array = memory.array(np.arange(1000))
    memory._regions._tables.header[Tables.HEADER_CONDEMNED] = 1  # the first process after the program
    assert status_of(forked(lambda: array.sum() == 0)) == -signal.SIGKILL
    array += 1
    assert status_of(forked(lambda: array[0] == 1)) == 0


GROWS = """
    import os
    import numpy as np
    kept = np.arange(300_000.0)

    def grow(array):
        array.resize(600_000, refcheck=False)
        print(array.sum() == np.arange(300_000.0).sum(), array[300_000:].any(), flush=True)

    child = os.fork()
    if not child:
        grow(kept)
        os._exit(0)
    os.waitpid(child, 0)
    print(kept.size, kept.sum())
    grow(kept)
"""


def test_a_child_resizes_what_its_parent_has_made(script: Script) -> None:
    code, out, err = assert_same([script(GROWS)])
    assert (code, err) == (0, "")
    assert out.startswith("True False\n300000 ")
