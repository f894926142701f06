"""A process of a round: run it, and say in one line why it failed."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from contents import WrongError
from plan import ENVIRONMENT

HERE = Path(__file__).parent
#: How the last line of a process begins that found something wrong.
_WRONG = ("contents.WrongError", "wrong")
#: Seconds that one may take.
LIMIT = 1200


class KilledError(OSError):
    """A process was killed, or a call of it failed: under a limit of memory, the kernel found none to reclaim."""


def persistent(run: Callable[[], dict[str, Any]], tries: int = 3) -> dict[str, Any]:
    """What a run gives, again if it was killed; ``saved`` also counts how often that was.

    Raises
    ------
    OSError
        It cannot be run here, or was killed every time.
    """
    for died in range(tries):
        try:
            found = run()
        except KilledError:
            if died == tries - 1:
                raise
        else:
            return {**found, "saved": found["saved"] + died}
    raise AssertionError("not reached")


def python(script: str, *arguments: str) -> list[str]:
    """The command of a script of the suite."""
    return [sys.executable, str(HERE / script), *arguments]


def said(
    command: list[str], environment: dict[str, str] | None = None, before: Callable[[], None] | None = None
) -> Any:
    """Run a command -> the JSON that it printed last. ``before`` is called in the child first.

    Raises
    ------
    OSError
        It cannot be run here, or went wrong. KilledError: a signal ended it.
    WrongError
        What it read is not what it had written.
    """
    try:
        ran = subprocess.run(
            command,
            env=ENVIRONMENT | (environment or {}),
            preexec_fn=before,
            capture_output=True,
            text=True,
            timeout=LIMIT,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise OSError(f"it took more than {LIMIT} s") from error
    if ran.returncode < 0:
        raise KilledError(f"it was ended by {signal.Signals(-ran.returncode).name}")
    if ran.returncode:
        lines = ran.stderr.strip().splitlines() or [f"status {ran.returncode}"]
        if lines[-1].startswith(_WRONG):
            raise WrongError(f"{' '.join(command)}: {lines[-1]}")
        if os.strerror(errno.ENOMEM) in lines[-1]:
            raise KilledError(lines[-1])
        raise OSError(lines[-1])
    return json.loads(ran.stdout.strip().splitlines()[-1])
