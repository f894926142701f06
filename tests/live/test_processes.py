"""The processes of a memory: which ends when, and that nothing is left behind.

Each program here is a real one, killed for real. Its end is waited for, not slept for.
"""

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import pytest

from pagers import children, find_supervisor, inode_of_arena
from thermocline import Memory, OutOfMemory
from thermocline.errors import UnsupportedError
from thermocline.live.tables import Tables

PAGE = 64 << 10
PRELUDE = """
import os, sys, threading
import numpy as np
from thermocline import Memory

memory = Memory("dram=2MiB, zstd=4MiB, file:{directory}=64MiB")
array = memory.zeros(8 << 20, "u1")
array[:] = np.arange(8 << 20) % 251
print(memory.stat()["pager"]["starts"], flush=True)
"""


def helpers(program: int) -> dict[str, int]:
    """The helper processes that serve a program, by name: those that hold its arena open."""
    arena = inode_of_arena(program)
    found = {}
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            name = Path(f"/proc/{pid}/cmdline").read_bytes().rstrip(b"\0").decode()
            if name.startswith("thermocline-") and arena in inodes_of(int(pid)):
                found[name] = int(pid)
        except OSError:
            continue
    return found


def inodes_of(pid: int) -> set[int]:
    """The files that a process has open, whatever else it opens and closes meanwhile."""
    found = set()
    for fd in os.listdir(f"/proc/{pid}/fd"):
        with suppress(FileNotFoundError):
            found.add(os.stat(f"/proc/{pid}/fd/{fd}").st_ino)
    return found


@contextmanager
def program(directory: Path, then: str) -> Iterator[subprocess.Popen[str]]:
    """A program that has filled a tiered array four times its DRAM, and then goes on with ``then``."""
    code = PRELUDE.format(directory=directory) + textwrap.dedent(then)
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None and process.stdout.readline() == "1\n"
            yield process
        finally:
            process.kill()


CHECK = """
for _ in sys.stdin:
    assert np.array_equal(array, (np.arange(8 << 20) % 251).astype("u1"))
    print(memory.stat()["pager"]["starts"], flush=True)
"""


def say(process: subprocess.Popen[str]) -> str:
    """Let the program check its array once -> the number of pagers that were started."""
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write("\n")
    process.stdin.flush()
    return process.stdout.readline().strip()


def wait_for_all(pids: list[int]) -> None:
    """Wait until processes are gone."""
    for pid in pids:
        try:
            handle = os.pidfd_open(pid)
        except ProcessLookupError:
            continue
        try:
            import select

            assert select.select([handle], [], [], 20)[0], f"process {pid} lives on"
        finally:
            os.close(handle)


def test_a_program_that_ignores_its_children_s_ends_survives_its_pager_s(tmp_path: Path) -> None:
    """The supervisor inherits that (execve(2)), and must learn all the same how a pager has ended."""
    code = PRELUDE.format(directory=tmp_path).replace(
        "memory =", "import signal; signal.signal(signal.SIGCHLD, signal.SIG_IGN)\nmemory ="
    )
    with subprocess.Popen(
        [sys.executable, "-c", code + CHECK], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None and process.stdout.readline() == "1\n"
        os.kill(helpers(process.pid)["thermocline-pager"], signal.SIGKILL)
        assert say(process) == "2"


@pytest.fixture
def memory_of_one_array(tmp_path: Path) -> Iterator[Memory]:
    """A memory whose array is written once and then left alone."""
    with Memory(f"dram=2MiB, zstd=4MiB, file:{tmp_path}=64MiB") as memory:
        array = memory.zeros(8 << 20, "u1")
        array[:] = 1
        yield memory
        assert (array == 1).all()


def test_helpers_show_by_name(tmp_path: Path) -> None:
    with program(tmp_path, CHECK) as process:
        found = helpers(process.pid)
        assert set(found) == {"thermocline-pager", "thermocline-supervisor"}
        shown = subprocess.run(
            ["ps", "-o", "args=", "-p", str(found["thermocline-pager"])], check=True, capture_output=True, text=True
        )
        assert shown.stdout.strip() == "thermocline-pager"


def test_a_killed_pager_is_replaced_and_the_program_goes_on(tmp_path: Path) -> None:
    with program(tmp_path, CHECK) as process:
        for count in range(2, 12):
            os.kill(helpers(process.pid)["thermocline-pager"], signal.SIGKILL)
            assert say(process) == str(count)
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait() == 0


def test_pagers_killed_while_nobody_asks_for_anything_are_replaced_for_ever(
    memory_of_one_array: Memory,
) -> None:
    """A second without a fault is nothing special, and says nothing against the pager of that second."""
    header = memory_of_one_array._regions.session.tables.header
    last = 0
    for _ in range(14):
        while header[Tables.HEADER_RESTED] == last:
            os.sched_yield()
        last = header[Tables.HEADER_RESTED]
        os.kill(last, signal.SIGKILL)
    assert memory_of_one_array.stat()["pager"]["starts"] == 15


def kill_each_pager_at_birth(supervisor: int, times: int) -> None:
    """Before it has answered anything, as far as that can be: it is killed as soon as it is seen."""
    last = 0
    for _ in range(times):
        pager = last
        while pager == last and Path(f"/proc/{supervisor}").exists():
            pager = next(iter(children(supervisor)), last)
        os.kill(pager, signal.SIGKILL)
        last = pager


def test_pagers_that_are_killed_faster_than_they_are_replaced_are_a_stall(tmp_path: Path) -> None:
    with program(tmp_path, CHECK) as process:
        supervisor = find_supervisor(process.pid)
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write("\n")
        process.stdin.flush()
        kill_each_pager_at_birth(supervisor, 40)
        assert process.stdout.readline(), "the check has failed, or the program was ended"


def test_pagers_that_are_killed_for_ever_end_the_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THERMOCLINE_INJECT", "patience 0.2s")
    with program(tmp_path, CHECK) as process:
        supervisor = find_supervisor(process.pid)
        assert process.stdin is not None and process.stderr is not None
        process.stdin.write("\n")
        process.stdin.flush()
        with contextlib.suppress(ProcessLookupError, FileNotFoundError):
            kill_each_pager_at_birth(supervisor, 1000)
        assert process.wait(20) == -signal.SIGKILL
        assert "without answering a fault" in process.stderr.read()


def test_pager_killed_while_threads_write(tmp_path: Path) -> None:
    """Counters in every page, checked against plain ones, while one pager after the other is killed."""
    then = """
        plain = array.copy()
        stop = threading.Event()
        def work(part):
            random = np.random.default_rng(part.start)
            while not stop.is_set():
                at = random.integers(part.start, part.stop, 64)
                at = np.unique(at)
                array[at] += 1
                plain[at] += 1
                assert np.array_equal(array[at], plain[at])
        parts = [slice(i * (2 << 20), (i + 1) * (2 << 20)) for i in range(4)]
        threads = [threading.Thread(target=work, args=(part,)) for part in parts]
        [thread.start() for thread in threads]
        for line in sys.stdin:
            print(memory.stat()["vmstat"]["pgfault"], flush=True)
        stop.set()
        [thread.join() for thread in threads]
        print("right" if np.array_equal(array, plain) else "wrong")
    """
    with program(tmp_path, then) as process:
        for _ in range(40):
            os.kill(helpers(process.pid)["thermocline-pager"], signal.SIGKILL)
            assert int(say(process)) > 0
        out, err = process.communicate()
        assert out == "right\n", err


@pytest.mark.parametrize(
    ("then", "status"),
    [
        ("os._exit(7)", 7),
        ("raise SystemExit(3)", 3),
        ("raise ValueError('oops')", 1),
        ("os.kill(os.getpid(), 15)", -signal.SIGTERM),
        ("os.kill(os.getpid(), 9)", -signal.SIGKILL),
        ("os.abort()", -signal.SIGABRT),
    ],
)
def test_nothing_is_left_however_the_program_ends(then: str, status: int, tmp_path: Path) -> None:
    with program(tmp_path, "sys.stdin.readline()\n" + then) as process:
        found = helpers(process.pid)
        process.communicate("\n")
        assert process.returncode == status
        wait_for_all(list(found.values()))
    assert list(tmp_path.iterdir()) == []


def test_supervisor_killed_ends_the_program(tmp_path: Path) -> None:
    with program(tmp_path, CHECK) as process:
        found = helpers(process.pid)
        os.kill(found["thermocline-supervisor"], signal.SIGKILL)
        assert process.wait(20) == -signal.SIGKILL
        wait_for_all(list(found.values()))
        assert process.stderr is not None
        assert process.stderr.read().startswith("thermocline: the supervisor has ended;")


def test_all_helpers_killed_at_once_end_the_program(tmp_path: Path) -> None:
    with program(tmp_path, CHECK) as process:
        found = helpers(process.pid)
        for pid in found.values():
            os.kill(pid, signal.SIGSTOP)
        for pid in found.values():
            os.kill(pid, signal.SIGKILL)
        assert process.wait(20) == -signal.SIGKILL


UNSERVED = """
import resource
most = max(map(int, os.listdir("/proc/self/fd"))) + 1
resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
while True:
    try:
        os.dup(0)
    except OSError:
        break
"""


def test_a_forked_child_that_cannot_be_served_fails_clearly_and_the_parent_is_untouched(tmp_path: Path) -> None:
    then = """
        child = os.fork()
        if not child:
            int(array[5])  # never zeros: this ends the child
            os._exit(0)
        _, status = os.waitpid(child, 0)
        print(os.WTERMSIG(status), int(array.sum(dtype="i8")))
    """
    with program(tmp_path, UNSERVED + textwrap.dedent(then)) as process:
        out, err = process.communicate()
        assert out == f"{signal.SIGSEGV} {int((np.arange(8 << 20) % 251).sum())}\n"
        assert err.count("this forked child has touched a tiered array") == 1


def test_another_fault_of_a_forked_child_goes_where_it_went(tmp_path: Path) -> None:
    """Of one that is not served: to the handler that the program had; and a signal that is only sent is not lost."""
    then = """
        import ctypes, faulthandler, signal
        faulthandler.enable()
        for harm in (lambda: ctypes.string_at(8), lambda: os.kill(os.getpid(), signal.SIGSEGV)):
            child = os.fork()
            if not child:
                harm()
                os._exit(0)
            _, status = os.waitpid(child, 0)
            print(os.WTERMSIG(status))
    """
    with program(tmp_path, UNSERVED + textwrap.dedent(then)) as process:
        out, err = process.communicate()
        assert out == f"{signal.SIGSEGV}\n" * 2
        assert err.count("Fatal Python error: Segmentation fault") == 2
        assert "tiered" not in err


@pytest.mark.parametrize("executable", ["/bin/false", "/nowhere/python", "", None])
def test_a_supervisor_that_cannot_be_started_is_an_error_and_leaves_nothing(
    executable: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where Python is embedded in another program."""
    Memory("dram=1MiB, zstd=1MiB").close()  # what a process has but once is there
    before = os.listdir("/proc/self/fd")
    monkeypatch.setattr(sys, "executable", executable)
    with pytest.raises(UnsupportedError, match="starts no supervisor"):
        Memory("dram=1MiB, zstd=1MiB")
    assert os.listdir("/proc/self/fd") == before


def test_a_forked_child_makes_plain_arrays_and_frees_nothing(tmp_path: Path) -> None:
    then = """
        total = int(array.sum(dtype="i8"))
        context = memory.numpy()
        context.__enter__()
        large = np.ones(1 << 20)
        child = os.fork()
        if not child:
            del array, large
            made = np.ones(1 << 20)
            os._exit(0 if made.sum() == 1 << 20 else 1)
        _, status = os.waitpid(child, 0)
        print(status, int(array.sum(dtype="i8")) == total, large.sum() == 1 << 20)
    """
    with program(tmp_path, then) as process:
        out, err = process.communicate()
        assert out == "0 True True\n", err


def test_subprocesses_are_unaffected_and_nobody_else_is_our_child(tmp_path: Path) -> None:
    then = """
        import subprocess
        print(subprocess.run([sys.executable, "-c", "print(5)"], capture_output=True, text=True).stdout.strip())
        try:
            os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            print("no children")
    """
    with program(tmp_path, then) as process:
        assert process.communicate()[0] == "5\nno children\n"


def test_store_files_are_private_and_nameless(tmp_path: Path) -> None:
    with program(tmp_path, CHECK) as process:
        assert list(tmp_path.iterdir()) == []
        supervisor = helpers(process.pid)["thermocline-supervisor"]
        ours = [
            os.stat(f"/proc/{supervisor}/fd/{fd}")
            for fd in os.listdir(f"/proc/{supervisor}/fd")
            if str(tmp_path) in os.readlink(f"/proc/{supervisor}/fd/{fd}")
        ]
        assert [oct(status.st_mode & 0o777) for status in ours] == ["0o600"]
        assert ours[0].st_nlink == 0


def test_a_source_that_is_half_up_when_the_pager_is_killed_comes_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The successor reads it in its recovery, before it has heard anything from the program."""
    monkeypatch.setenv("THERMOCLINE_INJECT", "kill before Fill 1")
    file = tmp_path / "data"
    file.write_bytes(b"x" * (1 << 20))
    with Memory("dram=2MiB, zstd=4MiB") as memory:
        assert memory.from_file(file, "u1").sum(dtype="i8") == ord("x") << 20
        assert memory.stat()["pager"]["starts"] == 2


def wait_until_blocked(process: int, thread: int, where: str) -> None:
    """Wait until a thread is in a wait of the kernel's whose name has ``where`` in it."""
    while where not in Path(f"/proc/{process}/task/{thread}/wchan").read_text():
        os.sched_yield()  # pytest's timeout is the bound


def test_a_source_that_a_killed_pager_has_not_answered_for_is_answered_for(tmp_path: Path) -> None:
    file = tmp_path / "data"
    file.write_bytes(b"x" * (1 << 20))
    sums: list[int] = []
    with Memory("dram=2MiB, zstd=4MiB") as memory:
        memory.zeros(1)[0] = 1
        pager = helpers(os.getpid())["thermocline-pager"]
        os.kill(pager, signal.SIGSTOP)
        thread = threading.Thread(target=lambda: sums.append(int(memory.from_file(file, "u1").sum(dtype="i8"))))
        thread.start()
        assert thread.native_id is not None
        wait_until_blocked(os.getpid(), thread.native_id, "wait_for_more_packets")
        os.kill(pager, signal.SIGKILL)
        thread.join()
    assert sums == [ord("x") << 20]


def test_a_stopped_pager_is_a_stall_and_no_more(tmp_path: Path) -> None:
    with program(tmp_path, CHECK) as process:
        assert process.stdin is not None and process.stdout is not None
        pager = helpers(process.pid)["thermocline-pager"]
        os.kill(pager, signal.SIGSTOP)
        process.stdin.write("\n")
        process.stdin.flush()
        wait_until_blocked(process.pid, process.pid, "userfault")
        os.kill(pager, signal.SIGCONT)
        assert process.stdout.readline() == "1\n"


# -- devices and files that fail --------------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 16 MiB."""
    if os.geteuid() != 0:
        pytest.skip("mounting a file system takes root")
    directory = tmp_path / "disk"
    directory.mkdir()
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.mount(b"none", bytes(directory), b"tmpfs", 0, b"size=16m") == 0, os.strerror(ctypes.get_errno())
    yield directory
    assert libc.umount2(bytes(directory), 2) == 0


def test_a_disk_that_fills_up_is_a_memory_error_and_loses_no_page(small_disk: Path) -> None:
    """Somebody else fills the disk while arrays that are committed are half on it."""
    with Memory(f"dram=2MiB, file:{small_disk}=12MiB") as memory:
        plain = np.random.default_rng(0).integers(0, 256, 6 << 20, dtype="u1")
        tiered = memory.array(plain)
        hog = small_disk / "hog"
        with hog.open("wb", buffering=0) as file, pytest.raises(OSError, match="No space left"):
            while True:
                file.write(bytes(1 << 16))
        with pytest.raises(OutOfMemory):
            memory.zeros(4 << 20, "u1")
        assert np.array_equal(tiered, plain)
        hog.unlink()
        assert memory.zeros(4 << 20, "u1").size == 4 << 20
        assert memory.stat()["pager"]["starts"] == 1
        del tiered


def test_a_truncated_source_file_is_sigbus_and_the_rest_goes_on(tmp_path: Path) -> None:
    file = tmp_path / "data"
    file.write_bytes(b"x" * (1 << 20))
    then = f"""
        made = memory.from_file({str(file)!r}, "u1")
        first = int(made[0])
        os.truncate({str(file)!r}, 65536)
        child_of_fault = made[1 << 19]
    """
    with program(tmp_path, then) as process:
        _, err = process.communicate()
        assert process.returncode == -signal.SIGBUS
        assert "cannot be read" in err


def test_a_lost_page_that_was_in_dram_before_is_sigbus_too(tmp_path: Path) -> None:
    """A demoted page leaves a write-protect marker; poison has to take its place, or the thread faults for ever."""
    file = tmp_path / "data"
    file.write_bytes(b"x" * (1 << 20))
    then = f"""
        with Memory("dram=2MiB, zstd=4MiB", clean="discard") as other:
            made = other.from_file({str(file)!r}, "u1")
            assert int(made.sum(dtype="i8")) == ord("x") << 20
            other.advise(made, "cold")
            os.truncate({str(file)!r}, 65536)
            made[1 << 19]
    """
    with program(tmp_path, then) as process:
        process.communicate()
        assert process.returncode == -signal.SIGBUS


def test_many_sources_are_closed_with_their_arrays(tmp_path: Path) -> None:
    file = tmp_path / "data"
    file.write_bytes(bytes(range(256)))
    with Memory("dram=2MiB, zstd=4MiB") as memory:
        for _ in range(2000):
            assert memory.from_file(file, "u1")[200] == 200
        supervisor = helpers(os.getpid())["thermocline-supervisor"]
        assert len(os.listdir(f"/proc/{supervisor}/fd")) < 100


def test_freed_slots_go_back_to_the_disk(tmp_path: Path) -> None:
    with Memory(f"dram=1MiB, file:{tmp_path}=64MiB") as memory:
        tiered = memory.array(np.random.default_rng(0).integers(0, 256, 16 << 20, dtype="u1"))
        supervisor = helpers(os.getpid())["thermocline-supervisor"]
        store = next(
            f"/proc/{supervisor}/fd/{fd}"
            for fd in os.listdir(f"/proc/{supervisor}/fd")
            if str(tmp_path) in os.readlink(f"/proc/{supervisor}/fd/{fd}")
        )
        assert os.stat(store).st_blocks * 512 >= 14 << 20
        del tiered
        while os.stat(store).st_blocks:  # the pager trims when it is idle; pytest's timeout is the bound
            os.sched_yield()
