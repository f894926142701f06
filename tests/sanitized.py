"""The tests that run native code, over a library with gcc's sanitizers: address and undefined behaviour, then threads.

    python tests/sanitized.py [ARGUMENTS OF PYTEST]     (make sanitized)

A finding ends its process, wherever that is, and is written to a file: one in a helper that is replaced, or in a child
that is expected to end, counts too. Before the tests, bugs are planted in a library of their own, to see that they are
found.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from hatch_build import LIBRARY, NATIVE, ROOT, compile_library, compiler

# libubsan is a part of the library with names of its own: loaded beside libasan, it takes that one's
# __sanitizer_set_report_path() for its own, and writes what it finds to stderr instead of to a file.
OWN_UBSAN = "-static-libubsan -Wl,--exclude-libs,ALL"
FLAGS = {
    "address": f"-O1 -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=all {OWN_UBSAN}",
    "thread": "-O1 -fno-omit-frame-pointer -fsanitize=thread",
}
#: The bugs that are planted, as calls.
BUGS = {"address": ("overflow_block(16)", "overflow_integer(1)"), "thread": ("race()",)}
TESTS = {
    "address": (
        "tests/live/test_fence.py",
        "tests/live/test_engine.py",
        "tests/live/test_guard.py",
        "tests/live/test_jobs.py",
        "tests/live/test_packing.py",
        "tests/test_numpy_allocator.py",
        "tests/lab/test_prober.py",
    ),
    "thread": (
        "tests/live/test_jobs.py",
        "tests/live/test_packing.py",
        "tests/live/test_memory.py::test_arrays_four_times_the_budget_hold_what_was_written",
        "tests/live/test_memory.py::test_sequential_reading_is_read_ahead_and_random_advice_stops_it",
    ),
}
WORK = ROOT / "build" / "sanitized"
FINDINGS = WORK / "findings"

PLANTED = """
#include <limits.h>
#include <pthread.h>
#include <stdlib.h>

__attribute__((visibility("default"))) int overflow_block(int bytes)
{
	volatile char *block = calloc(bytes, 1);
	int found = block[bytes];

	free((void *)block);
	return found;
}

__attribute__((visibility("default"))) int overflow_integer(int more)
{
	return INT_MAX + more;
}

static int count;

static void *increment(void *unused)
{
	count++;
	return unused;
}

__attribute__((visibility("default"))) int race(void)
{
	pthread_t threads[2];

	for (int i = 0; i < 2; i++)
		pthread_create(&threads[i], NULL, increment, NULL);
	for (int i = 0; i < 2; i++)
		pthread_join(threads[i], NULL);
	return count;
}
"""


def environment(kind: str, library: Path) -> dict[str, str]:
    """That of a process that finds what the sanitizers of a kind find in ``library``.

    Raises
    ------
    SystemExit
        The compiler has no sanitizers.
    """
    name = {"address": "libasan.so", "thread": "libtsan.so"}[kind]
    asked = [*compiler(), f"-print-file-name={name}"]
    runtime = subprocess.run(asked, capture_output=True, text=True, check=False).stdout.strip()
    if not os.path.isabs(runtime):  # the bare name: it is not there
        raise SystemExit(f"tests/sanitized.py: this compiler has no {name}; let CC be gcc")
    # A fault ends the process by its signal, as without sanitizers: tests expect that. What an interpreter has not
    # freed at its end is no leak of the library's.
    asan = {
        "log_path": FINDINGS / "address",
        "exitcode": 86,
        "detect_leaks": 0,
        "detect_stack_use_after_return": 1,
        "allocator_may_return_null": 1,
        "quarantine_size_mb": 1,  # of freed blocks: tests count resident memory
        "use_sigaltstack": 0,
        **dict.fromkeys(("handle_segv", "handle_sigbus", "handle_abort", "handle_sigfpe", "handle_sigill"), 0),
    }
    ubsan = {"log_path": FINDINGS / "undefined", "exitcode": 86, "print_stacktrace": 1}
    # Python's handlers of signals allocate memory, which is Python's own affair.
    tsan = {"log_path": FINDINGS / "thread", "exitcode": 86, "report_signal_unsafe": 0}
    return {
        **os.environ,
        "LD_PRELOAD": runtime,
        "ASAN_OPTIONS": options(asan),
        "UBSAN_OPTIONS": options(ubsan),
        "TSAN_OPTIONS": options(tsan),
        "THERMOCLINE_NATIVE": str(library),
    }


def options(values: dict[str, object]) -> str:
    """As the sanitizers read them."""
    return ":".join(f"{name}={value}" for name, value in values.items())


def findings() -> list[Path]:
    """What was found: a file for each process."""
    return sorted(FINDINGS.iterdir())


def plant_bugs(kind: str) -> None:
    """See that the sanitizers of a kind find bugs. Raises SystemExit if not."""
    sources = WORK / kind / "planted"
    sources.mkdir(parents=True)
    (sources / "planted.c").write_text(PLANTED)
    library = sources / "planted.so"
    compile_library(sources, library)
    for call in BUGS[kind]:
        program = f"import ctypes; ctypes.CDLL({str(library)!r}).{call}"
        done = subprocess.run([sys.executable, "-c", program], env=environment(kind, library), check=False)
        if not done.returncode or not findings():
            raise SystemExit(f"tests/sanitized.py: nothing was found in {call}, which was planted")
        for each in findings():
            each.unlink()


def run(kind: str, tests: Sequence[str]) -> int:
    """Run tests over a library with the sanitizers of a kind -> the exit status of pytest."""
    flags = os.environ.get("CFLAGS", "")
    os.environ["CFLAGS"] = f"{flags} {FLAGS[kind]}"
    plant_bugs(kind)
    library = WORK / kind / LIBRARY
    compile_library(ROOT / NATIVE, library)
    os.environ["CFLAGS"] = flags
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *tests]
    return subprocess.run(command, cwd=ROOT, env=environment(kind, library), check=False).returncode


def main() -> int:
    shutil.rmtree(WORK, ignore_errors=True)
    FINDINGS.mkdir(parents=True)
    failed = [kind for kind in FLAGS if run(kind, sys.argv[1:] or TESTS[kind])]
    for each in findings():
        print(f"{each}:\n{each.read_text(errors='replace')}")
    print(f"{len(findings())} processes in which a sanitizer found something")
    return bool(failed or findings())


if __name__ == "__main__":
    sys.exit(main())
