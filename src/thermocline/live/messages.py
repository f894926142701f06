"""What the helpers tell the user, on stderr."""

from __future__ import annotations

import contextlib
import sys


def say(message: str) -> None:
    """Tell the user, if anybody still listens: stderr may be a pipe whose reader has gone, and the program not."""
    with contextlib.suppress(OSError):
        print(f"thermocline: {message}", file=sys.stderr, flush=True)
