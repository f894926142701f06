"""`thermocline run` beside plain python, on the same small program."""

import os
import subprocess
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path

THERMOCLINE = str(Path(sys.executable).with_name("thermocline"))
MEMORY = "dram=4MiB, zstd=16MiB, file:/var/tmp=64MiB"
PLAIN = [sys.executable]
TIERED = [sys.executable, THERMOCLINE, "run", "--quiet", "--memory", MEMORY]
SECONDS = 60

NUMPY = """
    import numpy as np
    a = np.arange(2**20, dtype=np.int64)
    a += 1
    print(int(a.sum()))
"""
NUMPY_RESULT = f"{2**19 * (2**20 + 1)}\n"

Done = subprocess.CompletedProcess[bytes]


def run(command: Sequence[str], stdin: bytes = b"", cwd: Path | None = None, **environment: str) -> Done:
    return subprocess.run(
        command,
        input=stdin,
        capture_output=True,
        timeout=SECONDS,
        check=False,
        cwd=cwd,
        env=os.environ | environment,
    )


def outcome(done: Done) -> tuple[int, str, str]:
    return done.returncode, done.stdout.decode(), done.stderr.decode()


def assert_same(
    program: Sequence[str], stdin: bytes = b"", cwd: Path | None = None, **environment: str
) -> tuple[int, str, str]:
    """The outcome of `program`, checked to be the same with tiering and without."""
    plain = outcome(run([*PLAIN, *program], stdin, cwd, **environment))
    assert outcome(run([*TIERED, *program], stdin, cwd, **environment)) == plain
    return plain


class Script:
    """Writes programs into a directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def __call__(self, text: str, name: str = "script.py") -> str:
        path = self.directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text))
        return str(path)
