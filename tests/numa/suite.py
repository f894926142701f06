"""`make test-numa`: tests in an emulated machine with a slow memory node, and an older kernel than most.

    python tests/numa/suite.py [PYTEST-ARGUMENT...]

One start of the machine for all of them. Without arguments these are the tests that need a slow node (tests/numa), and
those of lost pages that differ where there is no UFFDIO_POISON, which Linux 6.1 has not: what CI has the time for. Of a
test that is the same for every design, or with and without encryption, one runs. All of them are

    python tests/numa/suite.py tests/numa/test_tiered_memory.py tests/live/test_lost_pages.py

and the other tests of live memory run there as well, when they are named, and take their time: an emulated processor is
ten to thirty times slower than a real one.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from emulator import MIB, Emulator, EmulatorFailed
from kernel import CannotRun

ROOT = Path(__file__).resolve().parent.parent.parent
#: What runs without being asked for.
CHOSEN = (
    "tests/numa/test_slow_node.py",
    "tests/numa/test_tiered_memory.py",
    "tests/live/test_lost_pages.py",
    "-k",
    "not (deferred or discard or prealloc or relock or transactional or [off] or test_what_is_written)",
)
#: Seconds that a test may take, and all of them.
_TEST_SECONDS = 600
_SECONDS = 2400


def main() -> int:
    """Run them -> the exit status: pytest's; 2 if the machine cannot be had, 125 if it failed."""
    python = str(Path(sys.prefix) / "bin" / "python")
    command = [python, "-m", "pytest", "-p", "no:cacheprovider", "-p", "pytest_timeout"]
    command += ["-o", f"timeout={_TEST_SECONDS}", *(sys.argv[1:] or CHOSEN)]
    begun = time.monotonic()
    try:
        status = Emulator(fast=768 * MIB, slow=512 * MIB, timeout=_SECONDS).run(
            command,
            directory=ROOT,
            # A plugin that nobody needs takes seconds to import.
            environment={"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        )
    except CannotRun as error:
        print(f"make test-numa cannot run here: {error}", file=sys.stderr)
        return 2
    except EmulatorFailed as error:
        print(f"make test-numa: the machine failed: {error}", file=sys.stderr)
        return 125
    print(f"make test-numa: {time.monotonic() - begun:.0f} s, in an emulated machine")
    return status


if __name__ == "__main__":
    sys.exit(main())
