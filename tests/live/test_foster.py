"""A program that adopts orphans never meets the helpers of its memories, whatever it waits for."""

import shutil
import subprocess
import sys
import textwrap

import pytest

from structures import in_c, in_python
from thermocline.live.foster import Starter

NAMESPACE = ["unshare", "--pid", "--fork", "--mount-proc"]

#: Its own end is known, and there is no other to be met; the arrays are right, and a pager that is killed is replaced.
PROGRAM = """
    import ctypes, os, select, signal, subprocess, sys
    if os.getpid() != 1:
        ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)
    import numpy as np
    from pagers import children, find_supervisor
    from thermocline import Memory
    own = bytearray(os.urandom(1)) * 100_000_000
    memory = Memory("dram=1MiB, zstd=32MiB")
    array = memory.array(np.arange(500_000))
    assert array.sum() == 124999750000
    # However it is asked, it has no child.
    for options in (0, os.WNOHANG):
        try:
            print(os.waitpid(-1, options))
        except ChildProcessError as error:
            print(error)
    # An orphan is its own to wait for.
    subprocess.run(["sh", "-c", "sh -c 'read line; exit 4' <&0 & exit 3"], stdin=subprocess.PIPE)
    print(os.waitstatus_to_exitcode(os.wait()[1]))
    supervisor = find_supervisor(os.getpid())
    (parent,) = children(os.getpid())
    assert children(parent) == [supervisor]
    # It has let go of what this process has, but for the data of libraries.
    (held,) = (int(line.split()[1]) for line in open(f"/proc/{parent}/status") if line.startswith("RssAnon"))
    assert held < 20_000, held
    assert os.listdir(f"/proc/{parent}/fd") == []
    os.kill(children(supervisor)[0], signal.SIGKILL)
    assert (array[::-1] == np.arange(500_000)[::-1]).all()
    handle = os.pidfd_open(parent)
    del array
    memory.close()
    select.select([handle], [], [])
    # It is let go of when the memory is closed, if it has ended by then, or when the next one is made.
    memory = Memory("dram=1MiB, zstd=32MiB")
    assert parent not in children(os.getpid())
    assert memory.zeros(1000).sum() == 0
    try:
        os.wait()
    except ChildProcessError as error:
        print(error)
"""


def run(command: list[str], text: str, here: str) -> tuple[int, str, str]:
    done = subprocess.run(
        [*command, sys.executable, "-c", textwrap.dedent(text)],
        capture_output=True,
        text=True,
        check=False,
        env={"PYTHONPATH": here},
    )
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize("command", [NAMESPACE, []], ids=["PID 1", "subreaper"])
def test_it_meets_its_own_children_only(command: list[str], pytestconfig: pytest.Config) -> None:
    if command and (
        not shutil.which("unshare") or subprocess.run([*NAMESPACE, "true"], check=False, capture_output=True).returncode
    ):
        pytest.skip("no unshare(1) here, or not the right to it")
    none = "[Errno 10] No child processes\n"
    assert run(command, PROGRAM, str(pytestconfig.rootpath / "tests")) == (0, f"{none}{none}4\n{none}", "")


def test_an_interpreter_that_does_not_start_is_named() -> None:
    program = """
        import ctypes, sys
        from thermocline import Memory
        ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)
        for sys.executable in ("/no/such/python", "/bin/false"):
            try:
                Memory("dram=1MiB")
            except Exception as error:
                print(type(error).__name__, error)
    """
    status, out, err = run([], program, "")
    assert (status, err) == (0, "")
    assert [line.split(";")[0] for line in out.splitlines()] == [
        'UnsupportedError "/no/such/python" starts no supervisor (it ends with status 127)',
        'UnsupportedError "/bin/false" starts no supervisor (it ends with status 1)',
    ]


def test_c_and_python_have_the_same_structure() -> None:
    assert in_python(Starter) == in_c("tc_starter_fields")
