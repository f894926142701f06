"""System calls on tiered arrays, for an ordinary user: user-mode faults are served, and those of the kernel are not."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from comparison import Script
from ordinary import ORDINARY, as_ordinary_user
from thermocline.live import system_calls

HERE = Path(__file__).parent
MEMORY = "dram=4MiB, zstd=16MiB, file:/var/tmp=1GiB"
RUN = [sys.executable, "-m", "thermocline.cli", "run", "--quiet", "--memory", MEMORY]
BATTERY = ["-m", "pytest", "-q", "--noconftest", "-p", "no:cacheprovider", "--timeout=300", str(HERE / "battery.py")]


def start_as_ordinary_user(command: list[str], directory: Path, **environment: str) -> tuple[int, str, str]:
    os.chmod(directory, 0o777)
    ran = subprocess.run(
        [*ORDINARY, *command],
        cwd=directory,
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | environment,
    )
    return ran.returncode, ran.stdout, ran.stderr


def battery(directory: Path, start: list[str], *options: str) -> None:
    """Run every test of `battery.py` in a process that was started in some way."""
    status, out, err = start_as_ordinary_user([*start, *BATTERY, f"--basetemp={directory}/base", *options], directory)
    assert status == 0, out[-5000:] + err[-3000:]
    assert "passed" in out


@as_ordinary_user
@pytest.mark.timeout(600)
def test_every_wrapped_call_does_what_it_does_on_plain_memory(tmp_path: Path) -> None:
    battery(tmp_path, [*RUN, "--"])


@as_ordinary_user
@pytest.mark.timeout(600)
def test_every_wrapped_call_is_right_where_the_wrappers_came_later(tmp_path: Path) -> None:
    battery(tmp_path, [sys.executable], "-k", "not plain")


@as_ordinary_user
@pytest.mark.timeout(600)
def test_the_wrappers_are_clean_under_sanitizers(tmp_path: Path) -> None:
    flags = ["-std=gnu11", "-O1", "-g", "-fPIC", "-shared", "-pthread", "-fvisibility=hidden"]
    sanitize = ["-fsanitize=address,undefined", "-fno-sanitize-recover=undefined"]
    sources = map(str, (system_calls.LIBRARY.parent / "syscalls").glob("*.c"))
    library = tmp_path / "sanitized.so"
    built = subprocess.run(["gcc", *flags, *sanitize, "-o", str(library), *sources], check=False, capture_output=True)
    found = subprocess.run(["gcc", "-print-file-name=libasan.so"], check=False, capture_output=True, text=True)
    runtime = os.path.realpath(found.stdout.strip())
    if built.returncode or not os.path.exists(runtime):
        pytest.skip("gcc has no sanitizers here")
    # Python itself is not clean of leaks.
    environment = ["env", "ASAN_OPTIONS=detect_leaks=0", f"LD_PRELOAD={runtime}:{library}"]
    battery(tmp_path, [*environment, sys.executable], "-k", "not plain")


API = """
    import os, sys
    import numpy as np
    import thermocline as tc
    assert "_socket" not in sys.modules
    with tc.Memory("dram=1MiB, zstd=32MiB") as memory:
        a = memory.array(np.arange(1_000_000))
        b = memory.zeros(1_000_000, "i8")
        a.tofile("a")
        print(np.array_equal(np.fromfile("a", a.dtype), a))
        fd = os.open("b", os.O_RDWR | os.O_CREAT)
        print(os.write(fd, a), os.preadv(fd, [b], 0), np.array_equal(a, b))
        os.close(fd)
        b[:] = 0
        import socket  # loaded after the memory was made
        import threading
        one, other = socket.socketpair()
        thread = threading.Thread(target=one.sendall, args=(a,))
        thread.start()
        print(other.recv_into(b, 0, socket.MSG_WAITALL), np.array_equal(a, b), memory.serves_system_calls)
        thread.join()
        one.close(), other.close()
        del a, b
"""


@as_ordinary_user
def test_a_program_that_was_started_by_plain_python_has_the_wrappers(script: Script) -> None:
    """Of what it has loaded when it makes a memory, and of what it imports later."""
    ran = start_as_ordinary_user([sys.executable, script(API)], script.directory)
    assert ran == (0, "True\n8000000 8000000 True\n8000000 True True\n", "")


SAVED = """
    import os, sys
    import numpy as np
    a = np.arange(3_000_000)
    a.tofile("a")
    print(np.array_equal(np.fromfile("a", a.dtype), np.arange(3_000_000)), os.environ.get("LD_PRELOAD"))
"""


def run_as_ordinary_user(script: str, directory: Path, **environment: str) -> tuple[int, str, str]:
    return start_as_ordinary_user([*RUN, "--", script], directory, **environment)


@as_ordinary_user
def test_a_program_saves_and_loads_its_arrays(script: Script) -> None:
    assert run_as_ordinary_user(script(SAVED), script.directory) == (0, "True None\n", "")


@as_ordinary_user
def test_libraries_that_the_user_preloads_stay(script: Script) -> None:
    """Before ours and behind it, by a space or a colon; what the program starts has them, and not ours."""
    source = script("#include <unistd.h>\nint nice(int by) { return 7 + by; }\n", "own.c")
    own = str(script.directory / "own.so")
    subprocess.run(["cc", "-shared", "-fPIC", "-o", own, source], check=True)
    started = "    print(os.nice(0)); import subprocess; subprocess.run(['sh', '-c', 'echo $LD_PRELOAD'])\n"
    program = script(SAVED + started)
    for others in (own, f"{own} libdl.so.2", f"libdl.so.2:{own}"):
        status, out, err = run_as_ordinary_user(program, script.directory, LD_PRELOAD=others)
        assert (status, err) == (0, "")
        assert out.splitlines() == [f"True {others}", "7", others]


def test_sanitizers_stay_the_first_of_all() -> None:
    ours = str(system_calls.LIBRARY)
    assert system_calls.preload(None) == ours
    assert system_calls.preload("a.so b.so") == f"{ours}:a.so:b.so"
    assert system_calls.preload("/lib/libasan.so.8:a.so") == f"/lib/libasan.so.8:{ours}:a.so"


@as_ordinary_user
def test_where_the_wrappers_are_missing_one_line_says_so(script: Script) -> None:
    """A copy of the package without them."""
    package = script.directory / "elsewhere" / "thermocline"
    shutil.copytree(system_calls.LIBRARY.parents[1], package)
    (package / "native" / system_calls.LIBRARY.name).unlink()
    program = script("import numpy as np; print(np.ones(300_000).sum())")
    environment = {"PYTHONPATH": str(package.parent)}
    status, out, err = run_as_ordinary_user(program, script.directory, **environment)
    assert (status, out) == (0, "300000.0\n")
    assert err.count("\n") == 1 and "system calls on tiered arrays fail" in err and "install thermocline again" in err
