"""The descriptors of a program are the program's: it may close ours, or have other files there, at any time."""

import ctypes
import os
import resource
import select
import shlex
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from comparison import PLAIN, TIERED, Script, outcome, run
from pagers import children, find_supervisor
from thermocline import Memory
from thermocline.errors import ClosedError
from thermocline.live.channel import Channel
from thermocline.live.descriptor import Descriptor, moved_up
from thermocline.live.doorbell import Doorbell
from thermocline.live.tables import Tables
from thermocline.native import library

#: What programs do to descriptors that they do not know, before they open files of their own.
CLOSE = "os.closerange(3, 4096)"
REPLACE = """
for fd in map(int, os.listdir("/proc/self/fd")):
    if fd > 2:
        try:
            os.dup2(files[0].fileno(), fd)
        except OSError:
            pass
"""
PROGRAM = """
import os, sys
import numpy as np
from thermocline import Memory
memory = Memory("dram=2MiB, zstd=8MiB, file:/var/tmp=64MiB")
array = memory.zeros(1 << 20)
array += 1
files = []
if {replace}:
    files = [open(f"file{{k}}", "w") for k in range(1)]
{how}
files += [open(f"more{{k}}", "w") for k in range(100)]
def write(what):
    for file in files:
        file.write(what + chr(10))
        file.flush()
"""


# -- in a program -----------------------------------------------------------------------------------------------------


def start(tmp_path: Path, how: str, code: str) -> "subprocess.Popen[str]":
    text = PROGRAM.format(how=how, replace=how is REPLACE) + code
    return subprocess.Popen(
        [sys.executable, "-c", text],
        cwd=tmp_path,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@contextmanager
def started(tmp_path: Path, how: str, code: str) -> Iterator["subprocess.Popen[str]"]:
    with start(tmp_path, how, code) as process:
        try:
            yield process
        finally:
            process.kill()


def line(process: "subprocess.Popen[str]") -> str:
    """What a program says next."""
    assert process.stdout is not None
    return process.stdout.readline().strip()


def go_on(process: "subprocess.Popen[str]") -> None:
    """Let a program that reads a line go on."""
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()


def clean(tmp_path: Path, lines: list[str]) -> bool:
    """Whether every file of a program holds what it wrote, and nothing else."""
    return all(path.read_text().split("\n")[:-1] == lines for path in tmp_path.iterdir())


@pytest.mark.parametrize("how", [CLOSE, REPLACE], ids=["closed", "replaced"])
def test_a_program_without_our_descriptors_goes_on_and_its_files_are_its_own(tmp_path: Path, how: str) -> None:
    code = """
from thermocline.errors import ClosedError
for k in range(5):
    others = [memory.zeros(1 << k + 10) for k in range(9)]
    for other in others:
        other += k
    write(f"{k} {array.sum()} {sum(other[5] for other in others)}")
    del other, others
    memory.advise(array, "cold")
    with memory.pin(array[:1000]), memory.numpy():
        assert np.ones(1 << 18).sum() == 1 << 18
    assert memory.stat()["processes"] == 1
for refused in (lambda: memory.from_file("/proc/self/exe", "u1", 1), lambda: memory.share(array)):
    try:
        refused()
    except ClosedError as error:
        assert "os.closerange" in str(error), error
    except OSError:  # the file cannot be opened where descriptors have run out
        raise
    else:
        raise AssertionError
assert memory.zeros(10).sum() == 0
del array
memory.close()
with Memory("dram=2MiB, zstd=8MiB") as second:
    assert second.array(range(1000)).sum() == 499500
write("end")
print("done")
"""
    with started(tmp_path, how, code) as process:
        _, said = process.communicate(timeout=60)
        assert (process.returncode, said) == (0, "")
    assert clean(tmp_path, [*(f"{k} 1048576.0 {9.0 * k}" for k in range(5)), "end"]) or how is REPLACE
    garbage = [path for path in tmp_path.iterdir() if b"\0" in path.read_bytes()]
    assert not garbage


def test_a_connection_that_is_made_to_ask_once_is_closed(tmp_path: Path) -> None:
    """Also where no file was opened before: both are closed by the same guard."""
    code = """
before = sorted(os.listdir("/proc/self/fd"))
for _ in range(3):
    assert memory._regions.session.door.ask("reap") is not None
assert sorted(os.listdir("/proc/self/fd")) == before
"""
    with started(tmp_path, "pass", code) as process:
        _, said = process.communicate(timeout=60)
        assert (process.returncode, said) == (0, "")


@pytest.mark.parametrize("how", [CLOSE, REPLACE], ids=["closed", "replaced"])
def test_a_program_without_our_descriptors_takes_back_what_a_child_had(tmp_path: Path, how: str) -> None:
    """What the child has takes room for as long as it lives, and none when it is gone."""
    code = """
reader, writer = os.pipe()
child = os.fork()
if not child:
    os.close(writer)
    os.read(reader, 1)
    os._exit(int(array.sum() != 1 << 20))
os.close(reader)
del array
assert memory.stat()["nodes"]["dram"]["used"], "the child has it"
most = memory._regions.commitment.limit * memory.page_size
try:
    memory.empty(most, "u1")
except MemoryError:
    pass
else:
    raise AssertionError
os.close(writer)
assert os.waitpid(child, 0)[1] == 0
assert memory.empty(most, "u1")[-1] == 0
assert memory.stat()["processes"] == 1
"""
    with started(tmp_path, how, code) as process:
        _, said = process.communicate(timeout=60)
        assert (process.returncode, said) == (0, "")


@pytest.mark.parametrize("how", [CLOSE, REPLACE], ids=["closed", "replaced"])
def test_a_program_without_our_descriptors_outlives_its_pager(tmp_path: Path, how: str) -> None:
    code = """
print("ready", flush=True)
for _ in sys.stdin:
    array += 1
    print(array.sum(), memory.zeros(1 << 18).sum(), memory.stat()["pager"]["starts"], flush=True)
"""
    with started(tmp_path, how, code) as process:
        assert line(process) == "ready"
        supervisor = int(
            next(pid for pid in filter(str.isdigit, os.listdir("/proc")) if is_supervisor_of(int(pid), process.pid))
        )
        for k in range(1, 4):
            go_on(process)
            assert line(process) == f"{(1 << 20) * (k + 1.0)} 0.0 {k}"
            (pager,) = children(supervisor)
            handle = os.pidfd_open(pager)
            os.kill(pager, signal.SIGKILL)
            select.select([handle], [], [])
            os.close(handle)


def is_supervisor_of(pid: int, program: int) -> bool:
    """Whether a process is a supervisor that has the program's arena, which both have mapped or open."""
    try:
        if not Path(f"/proc/{pid}/cmdline").read_bytes().startswith(b"thermocline-supervisor"):
            return False
        arenas = {os.stat(f"/proc/{pid}/fd/{fd}").st_ino for fd in os.listdir(f"/proc/{pid}/fd")}
        maps = Path(f"/proc/{program}/maps").read_text().splitlines()
        return any(int(entry.split()[4]) in arenas for entry in maps if "thermocline-arena" in entry)
    except OSError:
        return False


@pytest.mark.parametrize("how", [CLOSE, REPLACE], ids=["closed", "replaced"])
@pytest.mark.parametrize("waits", ["for a page", "for an answer", "for nothing"])
def test_a_program_without_our_descriptors_ends_with_its_supervisor(tmp_path: Path, how: str, waits: str) -> None:
    """Nobody answers its faults: it must not wait for ever, nor read zeros."""
    code = f"""
print("ready", flush=True)
sys.stdin.readline()
while True:
    if {waits == "for a page"}:
        assert array.min() == 1
    elif {waits == "for an answer"}:
        memory.stat()
    else:
        sys.stdin.readline()
"""
    with started(tmp_path, how, code) as process:
        assert line(process) == "ready"
        go_on(process)
        pids = [int(pid) for pid in filter(str.isdigit, os.listdir("/proc"))]
        (supervisor,) = (pid for pid in pids if is_supervisor_of(pid, process.pid))
        os.kill(supervisor, signal.SIGKILL)
        assert process.wait(timeout=30) == -signal.SIGKILL
        assert process.stderr is not None
        assert "Error" not in process.stderr.read()


@pytest.mark.parametrize("command", [PLAIN, TIERED], ids=["plain", "tiered"])
def test_a_daemon_closes_what_it_does_not_know(script: Script, command: list[str], tmp_path: Path) -> None:
    program = """
        import os
        import numpy as np
        keep = [np.full(131_072, k, "f8") for k in range(12)]
        del keep[1::2]
        os.closerange(3, 4096)
        files = [open(f"file{k}", "w") for k in range(100)]
        for k in range(4):
            a = np.arange(131_072.0) + k
            for file in files:
                print(k, a.sum(), file=file, flush=True)
            del a
        print([int(each[5]) for each in keep], {open(file.name).read() for file in files})
    """
    expected = "".join(f"{k} {131_072 * (131_071 / 2 + k)}\n" for k in range(4))
    done = run([*command, script(program)], cwd=tmp_path)
    assert outcome(done) == (0, f"{[0, 2, 4, 6, 8, 10]} {{{expected!r}}}\n", "")


# -- numbers ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&-", "<&- >&- 2>&-"])
@pytest.mark.parametrize("command", [PLAIN, TIERED], ids=["library", "run"])
def test_standard_streams_may_be_closed(script: Script, tmp_path: Path, closed: str, command: list[str]) -> None:
    program = script(
        """
        import os, sys
        import numpy as np
        from thermocline import Memory
        memory = Memory("dram=2MiB, zstd=8MiB, file:/var/tmp=64MiB")
        array = memory.zeros(1 << 20)
        array += np.arange(1 << 20)
        with open("out", "w") as file:
            print(array.sum() + np.arange(1 << 18).sum(), file=file)
        """
    )
    shell = f"exec {shlex.join([*command, program])} {closed}"
    done = subprocess.run(["bash", "-c", shell], cwd=tmp_path, capture_output=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    assert (tmp_path / "out").read_text() == f"{549755289600.0 + 34359607296}\n"


def test_ours_are_out_of_the_way(memory: Memory) -> None:
    assert memory.stat()["pager"]["starts"] == 1
    program, supervisor = os.getpid(), find_supervisor(os.getpid())
    for fd in os.listdir(f"/proc/{program}/fd"):
        target = os.readlink(f"/proc/self/fd/{fd}") if os.path.exists(f"/proc/self/fd/{fd}") else ""
        if "thermocline" in target or "userfaultfd" in target:
            assert int(fd) >= 64
    for pid in (supervisor, *children(supervisor)):
        assert [os.readlink(f"/proc/{pid}/fd/{fd}") for fd in (0, 1)] == ["/dev/null"] * 2


def test_the_helpers_have_no_standard_stream_closed(tmp_path: Path) -> None:
    """What a process sends them would stand in for it, and be written to by the next message."""
    text = PROGRAM.format(how="print('ready', flush=True)", replace=False) + "sys.stdin.readline()"
    command = ["bash", "-c", f"exec {shlex.join([sys.executable, '-c', text])} 2>&-"]
    with subprocess.Popen(command, cwd=tmp_path, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert line(process) == "ready"
        supervisor = find_supervisor(process.pid)
        for pid in (supervisor, *children(supervisor)):
            assert [os.readlink(f"/proc/{pid}/fd/{fd}") for fd in range(3)] == ["/dev/null"] * 3
        go_on(process)


def test_few_descriptors_are_enough(script: Script) -> None:
    program = script(
        """
        import resource
        resource.setrlimit(resource.RLIMIT_NOFILE, (40, 40))
        from thermocline import Memory
        with Memory("dram=2MiB, zstd=8MiB, file:/var/tmp=64MiB") as memory:
            array = memory.zeros(1 << 20)
            array += 1
            print(array.sum(), memory.stat()["processes"])
            del array
        """
    )
    assert outcome(run([*PLAIN, program])) == (0, "1048576.0 1\n", "")


@pytest.mark.parametrize("looked", [False, True], ids=["first", "again"])
def test_counters_are_there_where_no_descriptor_is_free(memory: Memory, looked: bool) -> None:
    seen = memory.stat()["arena"]["page_tables"] if looked else 0
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, limits[1]))
    try:
        array = memory.zeros(1 << 20)
        array += 1
        memory.advise(array, "cold")
        stat = memory.stat()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert stat["arena"]["page_tables"] == seen
    assert stat["nodes"]["zstd"]["used"] > 0
    assert memory.stat()["arena"]["page_tables"] > seen


# -- one descriptor ---------------------------------------------------------------------------------------------------


def test_a_descriptor_is_ours_until_its_number_is_another_s() -> None:
    first, second = (Descriptor.opened(os.memfd_create("test")) for _ in range(2))
    assert first.is_ours and second.is_ours
    os.dup2(second.number, first.number)
    assert not first.is_ours
    with pytest.raises(OSError, match="has closed"):
        first.fileno()
    number = first.number
    first.close()
    os.fstat(number)  # it is still open: it was not ours
    os.close(number)
    os.close(second.number)
    assert not second.is_ours
    second.close()
    second.close()


def test_a_socket_is_told_from_another_of_its_kind() -> None:
    (ours, theirs), (other, others) = (Channel.pair(socket.SOCK_SEQPACKET) for _ in range(2))
    ours.send(b"word")
    assert theirs.receive() == (b"word", (), False)
    os.dup2(other.number, ours.number)
    for use in (lambda: ours.send(b"word"), ours.receive):
        with pytest.raises(OSError, match="has closed"):
            use()
    os.close(ours.number)
    for channel in (ours, theirs, other, others):
        channel.close()


def test_a_number_is_moved_up_where_the_limit_allows_it() -> None:
    import resource

    library()  # which takes a number to load
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    low = os.dup(0)
    resource.setrlimit(resource.RLIMIT_NOFILE, (low + 1, hard))
    try:
        assert moved_up(low) == low
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    high = moved_up(low)
    assert high >= 64
    os.close(high)


# -- the doorbell -----------------------------------------------------------------------------------------------------


@pytest.fixture
def tables() -> Iterator[Tables]:
    made = Tables.create(16)
    yield made
    made.close()


def test_a_wait_that_is_over_at_once_leaves_the_errno_of_ctypes_alone(tables: Tables) -> None:
    """An allocation may wait, and the program may ask afterwards for what its own call has left (ctypes.get_errno)."""
    bell = Doorbell(tables, Tables.HEADER_ANSWERS)
    ctypes.set_errno(77)
    assert bell.wait(bell.value + 1, 10)
    assert not bell.wait(bell.value, 0.001)
    assert ctypes.get_errno() == 77


def test_no_ring_is_lost(tables: Tables) -> None:
    """Each of two threads waits for the other, many times; one that slept too long would say so."""
    bells = [Doorbell(tables, Tables.HEADER_ANSWERS), Doorbell(tables, Tables.HEADER_RING_HEAD)]
    late: list[int] = []

    def play(side: int, rounds: int) -> None:
        for turn in range(rounds):
            if side or turn:
                while True:
                    seen = bells[1 - side].value
                    if seen > turn - (1 - side):
                        break
                    if not bells[1 - side].wait(seen, 20.0):
                        late.append(turn)
                        return
            bells[side].change()

    other = threading.Thread(target=play, args=(1, 20_000))
    other.start()
    play(0, 20_000)
    other.join()
    assert not late
    assert [bell.value for bell in bells] == [20_000, 20_000]


def test_a_signal_handler_runs_while_an_answer_is_waited_for(tables: Tables) -> None:
    class Late(Exception):
        pass

    def raises(*_: object) -> None:
        raise Late

    before = signal.signal(signal.SIGALRM, raises)
    try:
        bell = Doorbell(tables, Tables.HEADER_ANSWERS)
        signal.setitimer(signal.ITIMER_REAL, 0.01, 0.01)
        with pytest.raises(Late):
            while bell.wait(bell.value, 30.0):
                pass
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_a_word_is_passed_on_to_an_eventfd() -> None:
    """In a child: the thread that does so lives as long as the process."""
    child = os.fork()
    if not child:
        status = 1
        try:
            tables, eventfd = Tables.create(16), os.eventfd(0)
            bell = Doorbell(tables, Tables.HEADER_RING_HEAD)
            bell.relay(eventfd)
            for _ in range(1000):
                bell.change()
                if not select.select([eventfd], [], [], 20)[0]:
                    break
                os.eventfd_read(eventfd)
            else:
                status = 0
        finally:
            os._exit(status)
    assert os.waitpid(child, 0)[1] == 0


def test_a_memory_says_what_it_has_lost(memory: Memory, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(bytes(8))
    peer = memory._regions.session.attachment.peer
    kept = os.dup(peer.number)
    os.close(peer.number)
    try:
        with pytest.raises(ClosedError, match="closerange"):
            memory.from_file(tmp_path / "file")
        assert memory.zeros(3).tolist() == [0, 0, 0]
    finally:
        os.dup2(kept, peer.number, inheritable=False)
        os.close(kept)
    assert memory.from_file(tmp_path / "file").tolist() == [0]
    assert np.array_equal(memory.array([1, 2]), [1, 2])
