"""The native library: how it is compiled, and what is said where it cannot be compiled or loaded."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
NATIVE = ROOT / "src" / "thermocline" / "native"
AGAIN = "install thermocline again, with a C compiler (gcc) at hand"
LOAD = "from thermocline.native import library; library()"


def compiled(target: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Compile the library, as ``pip install`` does."""
    command = [sys.executable, str(ROOT / "hatch_build.py"), str(target)]
    return subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, **environment})


def complaint(path: Path) -> str:
    """What is said when the library at ``path`` is loaded."""
    program = f"""
from thermocline.errors import UnsupportedError
try:
    {LOAD}
except UnsupportedError as error:
    print(error)
"""
    environment = {**os.environ, "THERMOCLINE_NATIVE": str(path)}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout


# --- compiling ---


def test_it_compiles_and_loads_from_any_place(tmp_path: Path) -> None:
    done = compiled(tmp_path / "made.so", CFLAGS="-Werror")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert os.listdir(tmp_path) == ["made.so"]
    assert complaint(tmp_path / "made.so") == ""


@pytest.mark.parametrize(
    ("environment", "named"),
    [
        ({"PATH": "/nowhere", "CC": ""}, "a C compiler is needed; run: sudo apt-get install gcc libc6-dev"),
        ({"CC": "/nowhere/cc -m64"}, "there is no C compiler /nowhere/cc; unset CC, or let it name one"),
    ],
)
def test_no_compiler_is_said_in_one_line(tmp_path: Path, environment: dict[str, str], named: str) -> None:
    done = compiled(tmp_path / "made.so", **environment)
    assert (done.returncode, done.stdout, done.stderr) == (1, "", f"thermocline: {named}\n")


def test_an_error_of_the_compiler_is_shown_and_leaves_what_was_there(tmp_path: Path) -> None:
    (tmp_path / "made.so").write_text("before")
    done = compiled(tmp_path / "made.so", CFLAGS="-no-such-flag")
    assert done.returncode == 1
    assert "unrecognized" in done.stderr
    assert "thermocline: the C compiler failed" in done.stderr.splitlines()[-1]
    assert (tmp_path / "made.so").read_text() == "before"
    assert os.listdir(tmp_path) == ["made.so"]


@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
def test_make_says_it_before_it_installs_anything(tmp_path: Path) -> None:
    shutil.copy(ROOT / "Makefile", tmp_path)
    for name in ("pyproject.toml", "hatch_build.py"):
        (tmp_path / name).touch()
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "sh").symlink_to("/bin/sh")
    done = subprocess.run(
        [str(shutil.which("make")), f"PYTHON={sys.executable}", "lint"],
        cwd=tmp_path,
        env={"PATH": str(tmp_path / "bin")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.splitlines()[0] == "make: a C compiler is needed; run: sudo apt-get install gcc libc6-dev"
    assert not (tmp_path / ".venv").exists()


# --- loading ---


def test_a_library_that_is_missing(tmp_path: Path) -> None:
    path = tmp_path / "missing.so"
    assert complaint(path) == f"the native library {path} is missing; {AGAIN}\n"


def test_a_library_of_another_machine(tmp_path: Path) -> None:
    """Its header says so: e_machine of elf(5)."""
    image = bytearray((NATIVE / "libthermocline.so").read_bytes())
    image[18:20] = b"\x08\x00" if sys.byteorder == "little" else b"\x00\x08"  # MIPS
    (tmp_path / "other.so").write_bytes(image)
    said = complaint(tmp_path / "other.so")
    assert said.startswith(f"the native library {tmp_path}/other.so is damaged, or is another machine's (")
    assert said.endswith(f"; {AGAIN}\n")
    assert said.count("\n") == 1


LIMITED = f"""
import ctypes, resource
from thermocline.errors import UnsupportedError
import thermocline.native
with open("/proc/self/statm") as sizes:
    mapped = int(sizes.read().split()[0]) * resource.getpagesize()
limit, extent = resource.{{limit}}, {{extent}}
before = resource.getrlimit(limit)
resource.setrlimit(limit, (extent, before[1]))
ctypes.set_errno(42)
try:
    {LOAD}
except UnsupportedError as error:
    print(error)
assert ctypes.get_errno() == 42  # the program's
resource.setrlimit(limit, before)
{LOAD}
"""


@pytest.mark.parametrize(
    ("limit", "extent", "said"),
    [
        ("RLIMIT_NOFILE", "3", "(Too many open files); raise the limit (ulimit -n)"),
        ("RLIMIT_AS", "mapped + (16 << 10)", "(Cannot allocate memory); raise the limit (ulimit -v)"),
    ],
)
def test_a_limit_that_is_in_the_way_is_named(limit: str, extent: str, said: str) -> None:
    program = LIMITED.format(limit=limit, extent=extent)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"the native library {NATIVE}/libthermocline.so cannot be loaded: ")
    assert done.stdout.endswith(f"{said}\n")
    assert done.stdout.count("\n") == 1


@pytest.mark.parametrize("text", ["int tc_abi(void) { return -1; }", "int another;"])
def test_a_library_of_another_version(tmp_path: Path, text: str) -> None:
    (tmp_path / "stale.c").write_text(text)
    command = [os.environ.get("CC") or "cc", "-shared", "-fPIC", "-o", "stale.so", "stale.c"]
    subprocess.run(command, check=True, cwd=tmp_path)
    path = tmp_path / "stale.so"
    assert complaint(path) == f"the native library {path} is of another version; {AGAIN}\n"


def test_a_command_says_it_in_one_line() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "thermocline.cli", "run", "--dram", "1MiB", "-c", "import numpy"],
        env={**os.environ, "THERMOCLINE_NATIVE": "/nowhere"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    assert done.stderr.count("\n") == 1, done.stderr
    assert "native library" in done.stderr
