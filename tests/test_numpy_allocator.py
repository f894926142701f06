"""NumPy's allocator over tiered memory: its filter, and what it does in processes of their own.

NumPy's functions are replaced once in a process and for good. So the behaviours run in a process of theirs,
all of `numpy_allocator_behaviours` at once and for each way the filter is made, and each is reported here
by its name.
"""

import errno
import importlib.util
import os
import re
import subprocess
import sys
from functools import cache
from pathlib import Path
from xml.etree import ElementTree

import pytest

from thermocline.errors import UnsupportedError
from thermocline.machine_code import compiler
from thermocline.machine_code.executable import mapped
from thermocline.numpy_allocator import plain
from thermocline.numpy_allocator.native import FILTER
from thermocline.numpy_allocator.state import State

HERE = Path(__file__).parent
BEHAVIOURS = HERE / "numpy_allocator"
NAMES = [
    name
    for file in sorted(BEHAVIOURS.glob("*.py"))
    for name in re.findall(r"^def (test_\w+)", file.read_text(), re.MULTILINE)
]
WAYS = {"compiled_beforehand": "1", "compiled_by_llvmlite": "0"}

way = pytest.mark.parametrize("way", WAYS)


def python(way: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run Python with the filter made in one of the WAYS."""
    package = importlib.util.find_spec("thermocline")
    assert package is not None
    assert package.submodule_search_locations is not None
    source = Path(package.submodule_search_locations[0]).parent
    environment = {
        **os.environ,
        "PYTHONPATH": f"{source}{os.pathsep}{BEHAVIOURS}",
        "PYTHONFAULTHANDLER": "1",
        "THERMOCLINE_PLAIN_ALLOCATOR": WAYS[way],
        **environment,
    }
    command = [sys.executable, *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False, timeout=300)


# --- behaviours ---


@cache
def outcomes(way: str, report: Path) -> tuple[dict[str, str], str]:
    """What went wrong in each behaviour, by its name (nothing: it went well), and what pytest printed."""
    options = ("-q", "-p", "installed", "-p", "no:cacheprovider", "-c", os.devnull, "--rootdir", str(HERE))
    files = map(str, sorted(BEHAVIOURS.glob("*.py")))
    done = python(way, "-m", "pytest", *options, f"--junitxml={report}", *files, PYTEST_TIMEOUT="60")
    found: dict[str, str] = {}
    if report.exists():
        for case in ElementTree.parse(report).iter("testcase"):
            name = case.attrib["name"].partition("[")[0]
            texts = [part.text or part.tag for part in case if part.tag in {"failure", "error"}]
            found[name] = "\n".join(filter(None, [found.get(name), *texts]))
    return found, f"status {done.returncode}\n{done.stdout}\n{done.stderr}"


@pytest.fixture(scope="session")
def reports(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("numpy_allocator")


@way
@pytest.mark.timeout(400)
@pytest.mark.parametrize("name", NAMES)
def test_behaviour(way: str, name: str, reports: Path) -> None:
    if way == "compiled_by_llvmlite":
        pytest.importorskip("llvmlite")
    wrong, printed = outcomes(way, reports / f"{way}.xml")
    assert name in wrong, f"it did not run: {printed}"
    assert not wrong[name], wrong[name]


# --- processes that end ---

PROGRAM = """
import atexit, sys, threading
import numpy as np
from arena import Arena, reserve
from thermocline import numpy_allocator

at_the_very_end = []
atexit.register(lambda: [each() for each in at_the_very_end])  # after the allocator's, which is registered later

MIN = 1 << 16
low = reserve(1 << 32)
arena = Arena(low, low + (1 << 32))
numpy_allocator.install(arena.low, arena.high)
numpy_allocator.register_source(arena, arena.low, arena.high)

def is_tiered(array):
    return arena.low <= array.ctypes.data < arena.high
"""


def status_and_errors(way: str, program: str, *options: str, **environment: str) -> tuple[int, str]:
    done = python(way, *options, "-c", PROGRAM + program, **environment)
    assert done.stdout == ("ran\n" if "print" in program else "")
    return done.returncode, done.stderr


@way
def test_globals_hold_arrays_at_exit(way: str) -> None:
    program = """
class Holder:
    def __init__(self): self.array = np.ones(MIN)
    def __del__(self): self.array.sum(); np.zeros(MIN).sum()

with numpy_allocator.tiered(arena, MIN):
    in_module, in_a_cycle = np.ones(MIN), [np.ones(MIN)]
    in_a_cycle.append(in_a_cycle)
    with_a_finalizer = Holder()
    np.kept_by_numpy = np.ones(MIN)
    sys.modules["kept"] = np.ones(MIN)
    threading.local().kept = np.ones(MIN)
    atexit.register(lambda array: array.sum(), np.ones(MIN))
numpy_allocator.activate(arena, MIN)  # never ended
assert is_tiered(in_module)
"""
    assert status_and_errors(way, program) == (0, "")


@way
def test_frees_after_the_end_enter_no_python(way: str) -> None:
    program = """
class Silent(Arena):
    def free_block(self, address):
        print("freed")
    def allocate_block(self, nbytes):
        if over: print("allocated")
        return super().allocate_block(nbytes)

over = False
arena.__class__ = Silent
numpy_allocator.activate(arena, MIN)
array = np.ones(MIN)

@at_the_very_end.append
def late():
    global array, over
    over = True
    np.zeros(MIN)
    try:
        array.resize(9 * MIN, refcheck=False)
        print("resized")
    except MemoryError:
        assert array.sum() == MIN
    del array
    numpy_allocator.activate(arena, MIN)
    np.zeros(MIN)
    numpy_allocator.unregister_source(arena)
    numpy_allocator.register_source(arena, arena.low, arena.high)
    numpy_allocator.activate(arena, MIN)
    np.zeros(MIN)

print("ran")
"""
    assert status_and_errors(way, program) == (0, "")


@way
def test_daemon_threads_allocate_until_the_end(way: str) -> None:
    program = """
numpy_allocator.activate(arena, MIN)
running = threading.Barrier(4)

def work():
    kept = [np.ones(MIN) for _ in range(10)]
    running.wait()
    while True:
        kept[0] = np.ones(MIN)
        kept[1].resize(kept[1].size ^ (3 * MIN), refcheck=False)

for _ in range(3):
    threading.Thread(target=work, daemon=True).start()
running.wait()
print("ran")
"""
    for _ in range(5):
        assert status_and_errors(way, program) == (0, "")


@way
def test_a_daemon_thread_inside_the_source_at_the_end(way: str) -> None:
    program = """
inside, never = threading.Event(), threading.Event()

def wait():
    inside.set()
    never.wait()

arena.during_allocation = wait
numpy_allocator.activate(arena, MIN)
threading.Thread(target=np.zeros, args=(MIN,), daemon=True).start()
inside.wait()
print("ran")
"""
    assert status_and_errors(way, program) == (0, "")


@way
@pytest.mark.parametrize(
    ("options", "environment"),
    [(("-X", "dev"), {}), ((), {"PYTHONMALLOC": "debug"}), (("-X", "tracemalloc"), {}), ((), {})],
)
def test_growing_plain_arrays_under_hooks(way: str, options: tuple[str, ...], environment: dict[str, str]) -> None:
    """With guard bytes around Python's blocks, the C library must not be asked for the size of one."""
    guarded = options == ("-X", "dev") or bool(environment)
    program = f"""
with numpy_allocator.tiered(arena, MIN):
    array = np.arange(1000)
    array.resize(MIN)
    assert array[:1000].sum() == 499500 and not array[1000:].any()
    assert is_tiered(array) != {guarded}
    assert np.fromiter(iter(range(MIN)), int).sum() == sum(range(MIN))
    assert is_tiered(np.ones(MIN))
print("ran")
"""
    assert status_and_errors(way, program, *options, **environment) == (0, "")


@way
def test_an_unhandled_interrupt_is_reported_as_ever(way: str) -> None:
    program = """
import ctypes, functools, operator, signal
signal.signal(signal.SIGINT, signal.default_int_handler)  # whatever the tests were started with
numpy_allocator.activate(arena, MIN)
strike = functools.partial(ctypes.CDLL(None)["raise"], int(signal.SIGINT))
made = list(map(operator.call, [strike, functools.partial(np.zeros, MIN)]))
numpy_allocator.close()
print("not reached")
"""
    done = python(way, "-c", PROGRAM + program)
    assert done.returncode == -2
    assert done.stdout == ""
    assert done.stderr.endswith("KeyboardInterrupt\n")


# --- the filter ---


def test_the_state_is_laid_out_as_the_filter_has_it() -> None:
    text = FILTER.text()
    fields = re.findall(r"^  (?:i64|ptr),? *; +(\d+) (\w+)", text, re.MULTILINE)
    assert [int(number) for number, _ in fields] == list(range(len(fields)))
    assert len(fields) * 8 == sum(getattr(State, name).size for name, _ in State._fields_)
    numbers = {name: int(number) for number, name in fields}
    for first, member in (
        ("threshold", "threshold"),
        ("low", "low"),
        ("span", "span"),
        ("open", "open"),
        ("original_context", "originals"),
        ("ask", "shared"),
        ("err_fetch", "cpython"),
        ("serve", "objects"),
        ("format_serve", "formats"),
    ):
        assert getattr(State, member).offset == 8 * numbers[first]


def test_the_tables_are_made_from_this_filter() -> None:
    assert compiler.digest(FILTER.text()) == plain.DIGEST
    for functions in plain.MACHINES.values():
        assert tuple(functions) == FILTER.functions


def test_the_tables_are_what_llvm_makes() -> None:
    llvm = pytest.importorskip("llvmlite.binding")
    if llvm.llvm_version_info != plain.LLVM:
        pytest.skip(f"the tables are LLVM {plain.LLVM}'s, this is {llvm.llvm_version_info}")
    for machine, functions in plain.MACHINES.items():
        made = compiler.compiled_for(machine, FILTER.text(), FILTER.functions)
        assert made == {name: bytes.fromhex(code) for name, code in functions.items()}


class OtherMachine:
    machine = "s390x"


def test_a_machine_without_tables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "uname", OtherMachine)
    monkeypatch.setenv("THERMOCLINE_PLAIN_ALLOCATOR", "1")
    with pytest.raises(UnsupportedError, match="for s390x; unset THERMOCLINE_PLAIN_ALLOCATOR"):
        FILTER.code()
    monkeypatch.delenv("THERMOCLINE_PLAIN_ALLOCATOR")
    monkeypatch.setitem(sys.modules, "llvmlite.binding", None)
    with pytest.raises(UnsupportedError, match="pip install 'llvmlite"):
        FILTER.code()


def test_a_system_that_maps_no_code(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: str) -> int:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(os, "memfd_create", refuse)
    with pytest.raises(UnsupportedError, match=r"Permission denied.*PROT_EXEC"):
        mapped(dict.fromkeys(FILTER.functions, b""), "thermocline-filter")


@way
def test_neither_numpy_nor_llvmlite_is_imported_before_it_is_needed(way: str) -> None:
    if way == "compiled_by_llvmlite":
        pytest.importorskip("llvmlite")
    program = """
import sys
from thermocline import numpy_allocator
assert not {"numpy", "llvmlite"} & set(sys.modules)
import numpy
numpy_allocator.install(1 << 40, 1 << 41)
print("llvmlite" in sys.modules)
"""
    done = python(way, "-c", program)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"{way == 'compiled_by_llvmlite'}\n"


def test_calls_before_install() -> None:
    program = """
from thermocline import numpy_allocator
numpy_allocator.close()
numpy_allocator.deactivate()
"""
    done = python("compiled_beforehand", "-c", program)
    assert done.stderr.endswith("RuntimeError: call install() first\n")
