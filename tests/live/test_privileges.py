"""What a process is allowed decides how much of userfaultfd it gets; it is told clearly when that is nothing."""

import ctypes
import errno
import os
import platform
import re
import shutil
import struct
import subprocess
import sys
import tempfile
from collections.abc import Callable

import numpy as np
import pytest
from families import Steps, forked, status_of

from thermocline import Memory
from thermocline.errors import UnsupportedError
from thermocline.live.userfaultfd import open_userfaultfd
from thermocline.topology import Topology

NOBODY = 65534
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="dropping privileges takes some to drop")


def in_child(run: Callable[[], str]) -> str:
    """What ``run`` answers, or the error it raises, in a forked child."""
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        try:
            answer = run()
        except BaseException as error:
            answer = f"{type(error).__name__}: {error}"
        os.write(writer, answer.encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        answer = pipe.read()
    os.waitpid(child, 0)
    return answer


def forbid_userfaultfd() -> None:
    """What Docker's default profile does."""
    forbid(323)


def forbid(*numbers: int) -> None:
    """From now on system calls, by their x86-64 numbers, fail with EPERM (seccomp(2), a BPF filter)."""

    def statement(code: int, jump_true: int, jump_false: int, value: int) -> bytes:
        return struct.pack("HBBI", code, jump_true, jump_false, value)

    program = ctypes.create_string_buffer(
        statement(0x20, 0, 0, 0)  # load the system call's number
        + b"".join(
            statement(0x15, 0, 1, number)  # is it that one?
            + statement(0x06, 0, 0, 0x00050001)  # then EPERM
            for number in numbers
        )
        + statement(0x06, 0, 0, 0x7FFF0000)  # else allow
    )
    filters = ctypes.create_string_buffer(struct.pack("HxxxxxxP", 2 * len(numbers) + 2, ctypes.addressof(program)))
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.prctl(38, 1, 0, 0, 0) == 0  # PR_SET_NO_NEW_PRIVS
    assert libc.prctl(22, 2, filters, 0, 0) == 0, os.strerror(ctypes.get_errno())  # PR_SET_SECCOMP


def test_root_has_its_system_calls_served() -> None:
    if os.geteuid() != 0:
        pytest.skip("not root")
    opened = open_userfaultfd()
    os.close(opened.fd)
    assert opened.serves_system_calls


@needs_root
def test_nobody_has_user_mode_faults_served() -> None:
    def run() -> str:
        os.setuid(NOBODY)
        return str(open_userfaultfd().serves_system_calls)

    assert in_child(run) == str(os.access("/dev/userfaultfd", os.R_OK) and os.stat("/dev/userfaultfd").st_mode & 7 == 6)


@needs_root
@pytest.mark.skipif(platform.machine() != "x86_64", reason="the filter names the system call by its x86-64 number")
def test_where_userfaultfd_is_forbidden_one_line_says_what_to_do() -> None:
    def run() -> str:
        os.setuid(NOBODY)
        forbid_userfaultfd()
        open_userfaultfd()
        return "opened"

    answer = in_child(run)
    assert answer.startswith(f"{UnsupportedError.__name__}: userfaultfd is not available here")
    assert "\n" not in answer and "seccomp" in answer and "/dev/userfaultfd" in answer


@needs_root
def test_another_process_of_the_user_cannot_look_into_the_helpers() -> None:
    """They have the key and the pages in their memory: neither that nor their descriptors may be opened."""
    program = f"""if True:
        import os
        from thermocline import Memory
        memory = Memory("dram=1MiB, lz4=1MiB")
        memory.zeros(100)[0] = 1
        arena = memory._regions.session.attachment.arena.number
        for pid in filter(str.isdigit, os.listdir("/proc")):
            try:
                name = open(f"/proc/{{pid}}/cmdline").read().rstrip(chr(0))
                users = next(line for line in open(f"/proc/{{pid}}/status") if line.startswith("Uid")).split()
            except OSError:
                continue
            if name.startswith("thermocline-") and users[1] == "{NOBODY}":
                # The helpers have the arena under the number that it has here.
                for what, path in ("mem", "mem"), ("fd", f"fd/{{arena}}"), ("environ", "environ"):
                    try:
                        os.open(f"/proc/{{pid}}/{{path}}", os.O_RDONLY)
                    except PermissionError:
                        print(name, what)
                    except FileNotFoundError:
                        pass  # the helper of another program of this user, which has just ended
    """
    # The right to read any file lets it find the interpreter and its own modules, wherever they are. It is not one
    # that lets it trace others.
    rights = ["--inh-caps=-all,+dac_read_search", "--ambient-caps=-all,+dac_read_search"]
    command = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", *rights]
    if shutil.which("setpriv") is None or subprocess.run([*command, "true"], check=False).returncode:
        pytest.skip("no setpriv(1) here, or not the right to it")
    ran = subprocess.run([*command, sys.executable, "-c", program], check=True, stdout=subprocess.PIPE, text=True)
    expected = [(f"thermocline-{who}", what) for who in ("pager", "supervisor") for what in ("environ", "fd", "mem")]
    assert sorted({tuple(line.split()) for line in ran.stdout.splitlines()}) == expected


@needs_root
def test_a_child_of_one_that_has_dropped_its_privileges_is_served(memory: Memory) -> None:
    """It gets less of userfaultfd than the program did, and no byte that is wrong, in system calls either."""
    array = memory.array(np.arange(1 << 19))

    def grandchild() -> str:
        array[0] = 5
        with tempfile.TemporaryFile() as file:
            array.tofile(file)
            file.seek(0)
            saved = np.array_equal(np.fromfile(file, array.dtype), array)
        return f"{saved and memory.serves_system_calls} {np.array_equal(array[1:], np.arange(1, 1 << 19))}"

    def child() -> str:
        os.setuid(NOBODY)
        return in_child(grandchild)

    assert in_child(child) == "True True"
    assert array[0] == 0, "what a child writes is its own"


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the filter names system calls by their x86-64 numbers")
def test_a_fork_needs_no_right_to_look_into_another_process(steps: Steps) -> None:
    """Nor would it matter what Yama says (``ptrace_scope``): none of the calls that it is asked about is made."""
    ptrace, process_vm_readv, process_vm_writev, kcmp, pidfd_getfd, process_madvise = 101, 310, 311, 312, 438, 440

    def run() -> str:
        forbid(ptrace, process_vm_readv, process_vm_writev, kcmp, pidfd_getfd, process_madvise)
        with Memory("dram=1MiB, zstd=64MiB") as memory:
            array = memory.array(np.arange(1 << 19))
            before = int(array.sum())

            def look() -> bool:
                seen = int(array[: 1 << 16].sum())  # their frames are mapped here, others are not
                steps.done()
                steps.turn()
                return seen + int(array[1 << 16 :].sum()) == before == int(array.sum())

            child = forked(look)
            steps.wait()
            array[:] = -1
            steps.go_on()
            return f"{status_of(child)} {bool((array == -1).all())}"

    assert in_child(run) == "0 True"


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the filter names the system call by its x86-64 number")
@pytest.mark.skipif(not Topology.read().usable(0), reason="this kernel tells of no memory nodes")
@pytest.mark.parametrize("number", [237, 279], ids=["mbind", "move_pages"])
def test_where_memory_nodes_are_forbidden_one_line_says_what_to_do(number: int) -> None:
    def run() -> str:
        forbid(number)
        with Memory("dram@0=2MiB"):
            return "made"

    said = in_child(run)
    assert re.match(r"SpecError: (mbind|move_pages): Operation not permitted, so dram@NODE cannot be used here", said)
    assert "seccomp" in said


DEBUGGER = """
import os, sys
memory = os.open(f"/proc/{os.getppid()}/mem", os.O_RDONLY)
for address in map(int, sys.argv[1:]):
    try:
        print(os.pread(memory, 8, address))
    except OSError as error:
        print(error.errno)
"""


def test_a_debugger_reads_what_is_in_dram_and_is_told_of_the_rest(memory: Memory) -> None:
    here, below = memory.full(1 << 13, 7.0), memory.full(1 << 13, 7.0)
    memory.advise(below, "cold")
    command = [sys.executable, "-c", DEBUGGER, *(str(array.ctypes.data) for array in (here, below))]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == f"{here[:1].tobytes()}\n{errno.EIO}\n"
    assert (here.sum(), below.sum()) == (7 << 13, 7 << 13)
