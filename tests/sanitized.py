"""The tests that run native code, over a library with gcc's address and undefined-behaviour sanitizers.

    python tests/sanitized.py [ARGUMENTS OF PYTEST]     (make sanitized)

A finding ends its process, wherever that is, and is written to a file: one in a helper that is replaced, or in a child
that is expected to end, counts too. Before the tests, two bugs are planted in a library of their own, to see that they
are found.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from hatch_build import LIBRARY, NATIVE, ROOT, compile_library, compiler

# libubsan is a part of the library with names of its own: loaded beside libasan, it takes that one's
# __sanitizer_set_report_path() for its own, and writes what it finds to stderr instead of to a file.
OWN_UBSAN = "-static-libubsan -Wl,--exclude-libs,ALL"
FLAGS = f"-O1 -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=all {OWN_UBSAN}"
TESTS = (
    "tests/live/test_fence.py",
    "tests/live/test_engine.py",
    "tests/live/test_guard.py",
    "tests/test_numpy_allocator.py",
    "tests/lab/test_prober.py",
)
WORK = ROOT / "build" / "sanitized"
FINDINGS = WORK / "findings"

PLANTED = """
#include <limits.h>
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
"""


def environment(library: Path) -> dict[str, str]:
    """That of a process that finds what the sanitizers find in ``library``.

    Raises
    ------
    SystemExit
        The compiler has no sanitizers.
    """
    asked = [*compiler(), "-print-file-name=libasan.so"]
    runtime = subprocess.run(asked, capture_output=True, text=True, check=False).stdout.strip()
    if not os.path.isabs(runtime):  # the bare name: it is not there
        raise SystemExit("tests/sanitized.py: this compiler has no libasan; let CC be gcc")
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
    return {
        **os.environ,
        "LD_PRELOAD": runtime,
        "ASAN_OPTIONS": options(asan),
        "UBSAN_OPTIONS": options(ubsan),
        "THERMOCLINE_NATIVE": str(library),
    }


def options(values: dict[str, object]) -> str:
    """As the sanitizers read them."""
    return ":".join(f"{name}={value}" for name, value in values.items())


def findings() -> list[Path]:
    """What was found: a file for each process."""
    return sorted(FINDINGS.iterdir())


def plant_bugs() -> None:
    """See that either sanitizer finds a bug. Raises SystemExit if not."""
    sources = WORK / "planted"
    sources.mkdir()
    (sources / "planted.c").write_text(PLANTED)
    library = sources / "planted.so"
    compile_library(sources, library)
    for call in ("overflow_block(16)", "overflow_integer(1)"):
        program = f"import ctypes; ctypes.CDLL({str(library)!r}).{call}"
        done = subprocess.run([sys.executable, "-c", program], env=environment(library), check=False)
        if not done.returncode or not findings():
            raise SystemExit(f"tests/sanitized.py: nothing was found in {call}, which was planted")
        for each in findings():
            each.unlink()


def main() -> int:
    shutil.rmtree(WORK, ignore_errors=True)
    FINDINGS.mkdir(parents=True)
    os.environ["CFLAGS"] = f"{os.environ.get('CFLAGS', '')} {FLAGS}"
    plant_bugs()
    library = WORK / LIBRARY
    compile_library(ROOT / NATIVE, library)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *(sys.argv[1:] or TESTS)]
    status = subprocess.run(command, cwd=ROOT, env=environment(library), check=False).returncode
    for each in findings():
        print(f"{each}:\n{each.read_text(errors='replace')}")
    print(f"{len(findings())} processes in which a sanitizer found something")
    return status or bool(findings())


if __name__ == "__main__":
    sys.exit(main())
