"""NumPy's allocator over tiered memory: its filter, and what it does in processes of their own.

NumPy's functions are replaced once in a process and for good. So the behaviours of ``tests/numpy_allocator`` run in a
process of theirs, all at once, and each is reported here by its name.
"""

import ctypes
import importlib.util
import os
import re
import subprocess
import sys
from functools import cache
from pathlib import Path
from xml.etree import ElementTree

import pytest

from structures import in_c, in_python
from thermocline.native import library
from thermocline.numpy_allocator.state import State

HERE = Path(__file__).parent
BEHAVIOURS = HERE / "numpy_allocator"
NAMES = [
    name
    for file in sorted(BEHAVIOURS.glob("*.py"))
    for name in re.findall(r"^def (test_\w+)", file.read_text(), re.MULTILINE)
]


def python(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run Python with the sources of ``tests/numpy_allocator`` at hand."""
    package = importlib.util.find_spec("thermocline")
    assert package is not None
    assert package.submodule_search_locations is not None
    source = Path(package.submodule_search_locations[0]).parent
    environment = {
        **os.environ,
        "PYTHONPATH": f"{source}{os.pathsep}{BEHAVIOURS}",
        "PYTHONFAULTHANDLER": "1",
        **environment,
    }
    command = [sys.executable, *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False, timeout=300)


# --- behaviours ---


@cache
def outcomes(report: Path) -> tuple[dict[str, str], str]:
    """What went wrong in each behaviour, by its name (nothing: it went well), and what pytest printed."""
    options = ("-q", "-p", "installed", "-p", "no:cacheprovider", "-c", os.devnull, "--rootdir", str(HERE))
    files = map(str, sorted(BEHAVIOURS.glob("*.py")))
    done = python("-m", "pytest", *options, f"--junitxml={report}", *files, PYTEST_TIMEOUT="60")
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


@pytest.mark.timeout(400)
@pytest.mark.parametrize("name", NAMES)
def test_behaviour(name: str, reports: Path) -> None:
    wrong, printed = outcomes(reports / "behaviours.xml")
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


def status_and_errors(program: str, *options: str, **environment: str) -> tuple[int, str]:
    done = python(*options, "-c", PROGRAM + program, **environment)
    assert done.stdout == ("ran\n" if "print" in program else "")
    return done.returncode, done.stderr


def test_globals_hold_arrays_at_exit() -> None:
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
    assert status_and_errors(program) == (0, "")


def test_no_source_is_asked_for_anything_after_the_end() -> None:
    program = """
class Silent(Arena):
    def take_back(self, freed):
        print("freed")
    def settle(self):
        print("freed")
    def allocate_block(self, nbytes):
        if over: print("allocated")
        return super().allocate_block(nbytes)

over = False
arena.__class__ = Silent
numpy_allocator.activate(arena, MIN)
array, other = np.ones(MIN), np.ones(MIN)

@at_the_very_end.append
def late():
    global array, other, over
    over = True
    np.zeros(MIN)
    array.resize(9 * MIN, refcheck=False)  # is plain from now on
    assert (is_tiered(array), array.size, array.sum()) == (False, 9 * MIN, MIN)
    del array, other
    numpy_allocator.activate(arena, MIN)
    np.zeros(MIN)
    numpy_allocator.unregister_source(arena)
    numpy_allocator.register_source(arena, arena.low, arena.high)
    numpy_allocator.activate(arena, MIN)
    np.zeros(MIN)

print("ran")
"""
    assert status_and_errors(program) == (0, "")


def test_daemon_threads_allocate_until_the_end() -> None:
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
        assert status_and_errors(program) == (0, "")


def test_a_daemon_thread_inside_the_source_at_the_end() -> None:
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
    assert status_and_errors(program) == (0, "")


@pytest.mark.parametrize(
    ("options", "environment"),
    [(("-X", "dev"), {}), ((), {"PYTHONMALLOC": "debug"}), (("-X", "tracemalloc"), {}), ((), {})],
)
def test_growing_plain_arrays_under_hooks(options: tuple[str, ...], environment: dict[str, str]) -> None:
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
    assert status_and_errors(program, *options, **environment) == (0, "")


def test_an_unhandled_interrupt_is_reported_as_ever() -> None:
    program = """
import ctypes, functools, operator, signal
signal.signal(signal.SIGINT, signal.default_int_handler)  # whatever the tests were started with
numpy_allocator.activate(arena, MIN)
strike = functools.partial(ctypes.CDLL(None)["raise"], int(signal.SIGINT))
made = list(map(operator.call, [strike, functools.partial(np.zeros, MIN)]))
numpy_allocator.close()
print("not reached")
"""
    done = python("-c", PROGRAM + program)
    assert done.returncode == -2
    assert done.stdout == ""
    assert done.stderr.endswith("KeyboardInterrupt\n")


# --- the filter ---


def test_the_state_is_laid_out_as_the_filter_has_it() -> None:
    assert in_python(State) == in_c("tc_filter_fields")


def test_addresses_of_the_arena_are_ours_and_those_beside_it_are_not() -> None:
    low, high = 1 << 40, 1 << 41
    freed: list[int] = []
    signature = (None, ctypes.c_size_t, ctypes.c_size_t, ctypes.c_size_t)
    original = ctypes.PYFUNCTYPE(*signature)(lambda _context, block, _nbytes: freed.append(block))
    state = State(low=low, span=high - low)  # not open: what is ours is left alone
    state.original.free = ctypes.cast(original, ctypes.c_void_p)
    free = ctypes.PYFUNCTYPE(*signature)(("tc_filter_free", library()))
    for block in (0, low - 1, low, high - 1, high):
        free(ctypes.addressof(state), block, 8)
    assert freed == [0, low - 1, high]


def test_numpy_is_not_imported_before_it_is_needed() -> None:
    program = """
import sys
from thermocline import numpy_allocator
assert "numpy" not in sys.modules
numpy_allocator.install(1 << 40, 1 << 41)
print("numpy" in sys.modules)
"""
    done = python("-c", program)
    assert (done.returncode, done.stdout, done.stderr) == (0, "True\n", "")


def test_no_library_no_filter() -> None:
    program = """
import numpy
from thermocline import numpy_allocator
from thermocline.errors import UnsupportedError
from thermocline.numpy_allocator.handler import default_handler

before = list(default_handler().functions)
try:
    numpy_allocator.install(1 << 40, 1 << 41)
except UnsupportedError as error:
    print(error)
assert list(default_handler().functions) == before
"""
    done = python("-c", program, THERMOCLINE_NATIVE="/nowhere")
    assert done.returncode == 0, done.stderr
    assert "native library" in done.stdout


def test_calls_before_install() -> None:
    program = """
from thermocline import numpy_allocator
numpy_allocator.close()
numpy_allocator.deactivate()
"""
    done = python("-c", program)
    assert done.stderr.endswith("RuntimeError: call install() first\n")
