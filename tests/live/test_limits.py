"""Limits that a program sets itself, or is started with: it meets them as without us, or hears which is in the way."""

import contextlib
import ctypes
import mmap
import os
import pickle
import resource
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from families import forked, status_of

from comparison import NUMPY, NUMPY_RESULT, TIERED, Script, outcome, run
from thermocline import Memory, UnsupportedError
from thermocline.live import libc, limits
from thermocline.live.mapped import KEPT
from thermocline.live.pidfd import has_ended
from thermocline.spec import parse_spec

MIB = 1 << 20
#: prctl(2).
PR_SET_DUMPABLE, PR_SET_CHILD_SUBREAPER = 4, 36

#: What a program does that has 3 GiB of addresses. Nothing of what it allocates at once is more but where it says so.
WITHIN = """
    import mmap, os, resource, sys, threading
    {before}
    resource.setrlimit(resource.RLIMIT_AS, (3 << 30, 3 << 30))
    import numpy as np

    def attempt(what, call):
        try:
            print(what, call(), flush=True)
        except BaseException as error:
            print(what, type(error).__name__, error, flush=True)

    def in_thread():
        found = []
        thread = threading.Thread(target=lambda: found.append(float(np.arange(5e5).sum())))
        thread.start()
        thread.join()
        return found

    def in_child(array):
        child = os.fork()
        if not child:
            array[0] = 5
            os._exit(int(array[0] + in_thread()[0] % 2))
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

    attempt("array", lambda: float(np.ones(700_000).sum()))
    attempt("thread", in_thread)
    attempt("import", lambda: __import__("sqlite3").connect(":memory:").execute("select 1").fetchall())
    attempt("malloc", lambda: len(bytearray(50_000_000)))
    attempt("too large", lambda: np.zeros(1 << 29).size)
    attempt("again", lambda: float(np.ones(700_000).sum()))
    attempt("in turn", lambda: [np.zeros(1 << 27).size for _ in range(8)])
    kept = np.zeros(1 << 28)
    attempt("beside it", lambda: np.zeros(1 << 28).size)
    attempt("child", lambda: in_child(kept))
    del kept
    attempt("where an array was", lambda: len(mmap.mmap(-1, 2 << 30)))
"""


@pytest.mark.parametrize("before", ["", "import numpy"], ids=["before NumPy", "behind NumPy"])
@pytest.mark.parametrize("options", [[], ["--page-size", "4KiB", "--min-array", "4KiB"]], ids=["64KiB", "4KiB"])
def test_a_limit_on_addresses_that_a_program_sets_itself(script: Script, before: str, options: list[str]) -> None:
    program = script(WITHIN.format(before=before))
    plain = outcome(run([sys.executable, program]))
    assert "too large MemoryError" in plain[1]
    assert "beside it MemoryError" in plain[1]
    assert outcome(run([*TIERED, *options, program])) == plain


def addresses() -> int:
    """Bytes of addresses of this process that are mapped (proc(5), ``VmSize``)."""
    with open("/proc/self/statm") as counts:
        return int(counts.read().split()[0]) * os.sysconf("SC_PAGESIZE")


def test_only_what_arrays_need_is_mapped(tmp_path: Path) -> None:
    with Memory(f"dram=2MiB, zstd=4MiB, file:{tmp_path}=2GiB") as memory:
        memory.zeros(1)  # NumPy is there
        before = addresses()
        array = memory.zeros(800 * MIB, "u1")
        array[::MIB] = 1
        assert 800 * MIB <= addresses() - before < 816 * MIB
        child = os.fork()
        if not child:
            os._exit(int(addresses() - before >= 816 * MIB or array.sum() != 800))
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        del array
        assert addresses() - before < KEPT + 16 * MIB


def test_arrays_that_come_and_go_leave_no_addresses_behind(tmp_path: Path) -> None:
    with Memory(f"dram=2MiB, zstd=4MiB, file:{tmp_path}=1GiB") as memory:
        memory.zeros(1)
        before = addresses()
        arrays = [memory.zeros((3 + number % 7) * MIB, "u1") for number in range(100)]
        for number, array in enumerate(arrays):
            array[:] = number
        del array
        for number in [*range(0, 100, 2), *range(1, 100, 2)]:
            assert arrays[number][-1] == number
            arrays[number] = None  # type: ignore[call-overload]
        memory.stat()
        assert addresses() - before < KEPT + 16 * MIB


def test_what_only_a_child_has_is_not_mapped(tmp_path: Path) -> None:
    with Memory(f"dram=2MiB, zstd=4MiB, file:{tmp_path}=512MiB") as memory:
        array = memory.array(np.arange(40 << 20, dtype="u4"))
        before = addresses()
        reader, writer = os.pipe()
        child = os.fork()
        if not child:
            os.close(writer)
            os.read(reader, 1)
            os._exit(int((array != np.arange(array.size, dtype="u4")).any()))
        os.close(reader)
        del array
        assert addresses() < before - 60 * MIB
        other = memory.full(4 << 20, 7, "u4")
        os.close(writer)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert (other == 7).all()
        del other
        assert memory.stat()["nodes"]["dram"]["used"] == 0


@pytest.mark.parametrize("commit", ["strict", "heuristic"])
def test_a_limit_on_addresses_that_refuses_an_array_is_named(tmp_path: Path, commit: str) -> None:
    def attempt() -> bool:
        with Memory(f"dram=2MiB, zstd=4MiB, file:{tmp_path}=2GiB", commit=commit) as memory:
            memory.zeros(1)
            _, hard = resource.getrlimit(resource.RLIMIT_AS)
            resource.setrlimit(resource.RLIMIT_AS, (addresses() + 20 * MIB, hard))
            with pytest.raises(MemoryError) as refused:
                memory.zeros(200 * MIB, "u1")
            resource.setrlimit(resource.RLIMIT_AS, (hard, hard))
            return "(ulimit -v)" in str(refused.value) and not memory.zeros(200 * MIB, "u1")[:: 10 * MIB].any()

    assert status_of(forked(attempt)) == 0


def test_a_limit_on_addresses_that_refuses_more_than_the_nodes_hold_is_named(tmp_path: Path) -> None:
    def attempt() -> bool:
        with Memory(f"dram=2MiB, zstd=4MiB, file:{tmp_path}=64MiB", commit="heuristic") as memory:
            memory.zeros(1)
            _, hard = resource.getrlimit(resource.RLIMIT_AS)
            resource.setrlimit(resource.RLIMIT_AS, (addresses() + 20 * MIB, hard))
            with pytest.raises(MemoryError) as refused:
                memory.zeros(200 * MIB, "u1")
            return "ulimit -v" in str(refused.value) and "heuristic" not in str(refused.value)

    assert status_of(forked(attempt)) == 0


def test_too_many_mappings_that_refuse_an_array_are_named(tmp_path: Path) -> None:
    def attempt() -> bool:
        with Memory(f"dram=2MiB, zstd=4MiB, file:{tmp_path}=64MiB") as memory:
            kept = memory.zeros(1)  # else its addresses are given back, and one more can be mapped
            mapped: list[int] = []
            with contextlib.suppress(OSError):
                while True:  # two kinds in turn, which the kernel cannot merge
                    kind = libc.PROT_READ if len(mapped) % 2 else libc.PROT_NONE
                    mapped.append(libc.mmap(None, mmap.PAGESIZE, kind, libc.MAP_PRIVATE | libc.MAP_ANONYMOUS))
            with pytest.raises(MemoryError) as refused:
                memory.zeros(20 * MIB, "u1")
            for page in mapped:
                libc.munmap(page, mmap.PAGESIZE)
            return "(vm.max_map_count)" in str(refused.value) and not memory.zeros(20 * MIB, "u1").any() and not kept[0]

    assert status_of(forked(attempt)) == 0


def test_descriptors_without_which_an_array_cannot_be_mapped_are_named(script: Script) -> None:
    """In another network namespace, where the supervisor cannot be asked for them."""
    program = script("""
        import ctypes, os
        from thermocline import Memory
        memory = Memory("dram=2MiB, zstd=4MiB, file:/var/tmp=512MiB")
        memory.zeros(1)
        os.closerange(3, 4096)
        if ctypes.CDLL(None).unshare(0x40000000):  # CLONE_NEWNET
            print("skipped")
            os._exit(0)
        try:
            memory.zeros(8_000_000)
        except MemoryError as error:
            print("has closed descriptors" in str(error))
    """)
    code, out, _ = outcome(run([sys.executable, program]))
    if out == "skipped\n":
        pytest.skip("this process may have no network namespace of its own")
    assert (code, out) == (0, "True\n")


def test_what_the_program_has_mapped_among_the_arrays_stays_as_it_is(tmp_path: Path) -> None:
    with Memory(f"dram=2MiB, zstd=4MiB, file:{tmp_path}=1GiB") as memory:
        memory.zeros(MIB, "u1")
        there = memory._regions.session.address + 16 * MIB
        access, flags = libc.PROT_READ | libc.PROT_WRITE, libc.MAP_PRIVATE | libc.MAP_ANONYMOUS
        assert libc.mmap(there, 2 * MIB, access, flags) == there
        foreign = (ctypes.c_char * (2 * MIB)).from_address(there)
        foreign[:] = b"\x07" * (2 * MIB)
        arrays = [memory.zeros(3 * MIB, "u1") for _ in range(20)]
        for array in arrays:
            array[:] = 9
        assert all((array == 9).all() for array in arrays)
        assert foreign[:] == b"\x07" * (2 * MIB)
        del array, arrays
        libc.munmap(there, 2 * MIB)


def test_arrays_are_mapped_after_the_program_has_closed_all_descriptors(script: Script) -> None:
    code, out, err = outcome(
        run(
            [
                sys.executable,
                script("""
                    import os
                    from thermocline import Memory
                    memory = Memory("dram=2MiB, zstd=4MiB, file:/var/tmp=512MiB")
                    os.closerange(3, 4096)
                    files = [open(f"file{number}", "w+") for number in range(100)]
                    arrays = [memory.full(8_000_000, float(number)) for number in range(3)]
                    print([float(array.sum()) for array in arrays], [file.read() for file in files] == [""] * 100)
                """),
            ],
            cwd=script.directory,
        )
    )
    assert (code, out, err) == (0, "[0.0, 8000000.0, 16000000.0] True\n", "")


GUEST = """
    import os, pickle, resource, sys
    import numpy as np
    with open("/proc/self/statm") as counts:
        used = int(counts.read().split()[0]) * os.sysconf("SC_PAGESIZE")
    resource.setrlimit(resource.RLIMIT_AS, (used + (200 << 20), used + (200 << 20)))
    array = pickle.load(sys.stdin.buffer)
    assert (array == np.arange(array.size)).all()
    array += 1
    try:
        pickle.load(sys.stdin.buffer)
    except OSError as error:
        print(type(error).__name__, error.errno)
"""


def test_a_process_that_is_sent_an_array_maps_that_array(script: Script, tmp_path: Path) -> None:
    with Memory(f"dram=2MiB, zstd=4MiB, file:{tmp_path}=2GiB") as memory:
        array = memory.share(memory.array(np.arange(1 << 20)))
        too_large = memory.share(memory.zeros(300 * MIB, "u1"))
        done = run([sys.executable, script(GUEST)], pickle.dumps(array) + pickle.dumps(too_large))
        assert outcome(done) == (0, "MappingError 12\n", "")
        memory.advise(array, "cold")
        assert (array == np.arange(1 << 20) + 1).all()
        del array, too_large


# -- before the start -------------------------------------------------------------------------------------------------


def limited(limit: str, *program: str) -> "tuple[int, str, str]":
    """The outcome of a program that a shell starts with a limit."""
    return outcome(run(["bash", "-c", f'ulimit {limit} && exec "$@"', "bash", *program]))


def test_few_open_files_are_enough(script: Script) -> None:
    assert limited("-n 30", *TIERED, script(NUMPY)) == (0, NUMPY_RESULT, "")


@pytest.mark.parametrize(
    ("limit", "said"),
    [
        ("-n 12", "a process may have 12 files open here (ulimit -n)"),
        ("-f 100000", "files may have 97.7 MiB here (ulimit -f)"),
    ],
)
def test_a_limit_that_is_in_the_way_is_said_in_one_line(script: Script, limit: str, said: str) -> None:
    code, out, err = limited(limit, *TIERED, script(NUMPY))
    assert (code, out) == (2, "")
    (line,) = err.splitlines()
    assert line.startswith(f"thermocline run: error: {said}")


def test_addresses_for_the_helpers_are_looked_for_beforehand(monkeypatch: pytest.MonkeyPatch) -> None:
    nodes = parse_spec("dram=2MiB, zstd=1GiB", 65536)
    monkeypatch.setattr(limits, "_may_raise", lambda: False)
    before = resource.getrlimit(resource.RLIMIT_AS)
    child = os.fork()
    if not child:
        status = 1
        with contextlib.suppress(BaseException):
            resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))
            try:
                limits.check(nodes, 1000, 65536)
            except UnsupportedError as error:
                status = int("(ulimit -v)" not in str(error) or "needs 1.3 GiB" not in str(error))
        os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert resource.getrlimit(resource.RLIMIT_AS) == before
    limits.check(nodes, 1000, 65536)


def cannot_be_made(said: str) -> bool:
    """Whether a memory cannot be made, says why, and leaves nothing open."""
    before = os.listdir("/proc/self/fd")
    with pytest.raises(UnsupportedError) as error:
        Memory("dram=2MiB, zstd=1GiB")
    return said in str(error.value) and os.listdir("/proc/self/fd") == before


@pytest.mark.parametrize("room", [0, MIB, 2 * MIB, 4 * MIB])
def test_a_memory_that_there_are_no_addresses_for_leaves_nothing_open(room: int) -> None:
    def attempt() -> bool:
        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (addresses() + room, hard))
        return cannot_be_made("(ulimit -v)")

    assert status_of(forked(attempt)) == 0


@pytest.mark.parametrize("adopts", [False, True], ids=["", "that adopts orphans"])
def test_a_program_whose_user_may_have_no_more_processes_is_told_so(adopts: bool) -> None:
    def attempt() -> bool:
        prctl = ctypes.CDLL(None).prctl
        if adopts:
            prctl(PR_SET_CHILD_SUBREAPER, 1)
        if os.geteuid() == 0:  # of whom the kernel does not count them
            os.setresuid(65534, 65534, 65534)
            prctl(PR_SET_DUMPABLE, 1)
        resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))
        return cannot_be_made("(ulimit -u")

    assert status_of(forked(attempt)) == 0


NO_LIBRARY = """
import os, resource, sys
from thermocline import Memory

with open("/proc/self/statm") as sizes:
    mapped = int(sizes.read().split()[0]) * resource.getpagesize()
before = sorted(os.listdir("/proc/self/fd"))
resource.setrlimit(resource.RLIMIT_AS, (mapped + (16 << 10), resource.RLIM_INFINITY))
try:
    Memory("dram=1MiB, file:/var/tmp=64MiB")
except Exception as error:
    name, said = type(error).__name__, "(ulimit -v)" in str(error)
resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY,) * 2)
print(name, said, before == sorted(os.listdir("/proc/self/fd")))
"""


def test_a_program_that_has_no_addresses_for_the_native_library_keeps_no_descriptors(script: Script) -> None:
    assert outcome(run([sys.executable, script(NO_LIBRARY)])) == (0, "UnsupportedError True True\n", "")


def test_a_program_runs_within_few_addresses(script: Script) -> None:
    assert limited("-v 2000000", *TIERED, script(NUMPY)) == (0, NUMPY_RESULT, "")


def test_a_process_is_waited_for_under_any_number() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(2048, hard), hard))
    try:
        with subprocess.Popen(["sleep", "1000"]) as sleeper:
            low = os.pidfd_open(sleeper.pid)
            os.dup2(low, 1500, inheritable=False)
            os.close(low)
            assert not has_ended(1500, 0)
            sleeper.send_signal(signal.SIGKILL)
            assert has_ended(1500)
            os.close(1500)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
