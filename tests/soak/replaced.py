"""A program that runs itself anew in its own place (execve(2)) under ``thermocline run``, and so does a child of it.

What is run so is not tiered, which a message says at the end; what was tiered before is given back at once. Each of the
programs verifies its arrays beside copies that are not tiered: they are bytes.
"""

from __future__ import annotations

import os
import select
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np

from pagers import find_supervisor

#: Seconds that it may take: more is a hang.
LIMIT = 30
#: Which of the programs it is, in the order in which they say so: who has the memory waits for the child.
CHILD, FIRST, SECOND = STAGES = ("child", "first", "second")
_REPLACED = "the program ran another one in its place (execve(2)), and that one was not tiered"


def run_replaced(directory: str, spec: str, page: int, seed: int, inject: str) -> None:
    """Run it, with pagers that end at points.

    Raises
    ------
    AssertionError
        Something was wrong.
    """
    thermocline = Path(sys.executable).with_name("thermocline")
    options = ["--memory", spec.format(directory=directory), "--page-size", str(page), "--min-array", "4KiB"]
    with subprocess.Popen(
        [sys.executable, thermocline, "run", *options, "--", __file__, FIRST, str(seed), str(page)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, "THERMOCLINE_INJECT": inject, "OPENBLAS_NUM_THREADS": "1"},
    ) as command:
        try:
            # Whoever is left behind, helper or child, has stderr open: then this does not end.
            said, errors = command.communicate(timeout=LIMIT)
        except subprocess.TimeoutExpired:
            os.killpg(command.pid, 9)
            said, errors = command.communicate()
            raise AssertionError(
                f"a program that was replaced hangs, or left somebody behind\n{said}{errors}"
            ) from None
    expected = "".join(f"{stage} {seed}\n" for stage in STAGES)
    assert (command.returncode, said) == (0, expected), (command.returncode, said, errors)
    assert _REPLACED in errors and "Traceback" not in errors, errors


class _Pair:
    """An array, and what must be in it."""

    def __init__(self, random: np.random.Generator, size: int) -> None:
        self.array = random.integers(0, 256, size, "u1")
        self.bytes = bytearray(self.array.tobytes())

    def write(self, start: int) -> None:
        """Change both alike."""
        self.array[start:] ^= 255
        self.bytes[start:] = bytes(byte ^ 255 for byte in self.bytes[start:])

    def verify(self) -> None:
        """See that they are alike."""
        assert self.array.tobytes() == self.bytes


def _remains() -> list[str]:
    """What of a memory this process has mapped, or open."""
    maps = Path("/proc/self/maps").read_text(encoding="utf-8", errors="replace").splitlines()
    opened = [os.readlink(entry) for entry in os.scandir("/proc/self/fd") if os.path.lexists(entry)]
    return [name for name in maps + opened if "memfd:thermocline" in name or "userfaultfd" in name]


def _run_anew(stage: str, **environment: str) -> None:
    os.execve(sys.executable, [sys.executable, __file__, stage, *sys.argv[2:]], os.environ | environment)


def main() -> None:
    """Be one of them."""
    stage, seed, page = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    assert bool(_remains()) == (stage == FIRST), _remains()
    if stage == SECOND:
        # What the first one had is given back: its helpers end, though this process goes on.
        assert select.select([int(os.environ["ENDS"])], [], [], LIMIT)[0]
    random = np.random.default_rng(seed)
    pairs = [_Pair(random, int(random.integers(1, 12 * page))) for _ in range(5)]
    for pair in pairs:
        pair.write(int(random.integers(0, len(pair.bytes))))
    child = os.fork() if stage == FIRST else None
    if child == 0:
        pairs[0].write(0)
        for pair in pairs:
            pair.verify()
        _run_anew(CHILD)
    for pair in pairs:
        pair.write(len(pair.bytes) // 2)
    for pair in pairs:
        pair.verify()
    if child is not None:
        assert os.waitpid(child, 0)[1] == 0
        for pair in pairs:
            pair.verify()
        print(stage, seed, flush=True)
        ends = os.pidfd_open(find_supervisor(os.getpid()))
        os.set_inheritable(ends, True)
        _run_anew(SECOND, ENDS=str(ends))
    print(stage, seed, flush=True)


if __name__ == "__main__":
    main()
