"""How far a command has got, on a terminal."""

import sys
import time

#: Seconds between two looks of the user at it.
_EVERY = 0.1
_WIDTH = 30


class Progress:
    """One line on stderr that is written again and again, if that is a terminal; otherwise nothing."""

    def __init__(self) -> None:
        self._shown = sys.stderr.isatty()
        self._next = 0.0
        self._begun = time.monotonic()

    def show(self, text: str) -> None:
        """Show a line in place of the last one, unless that is just there."""
        now = time.monotonic()
        if self._shown and now >= self._next:
            self._next = now + _EVERY
            print(f"\r{text}\x1b[K", end="", file=sys.stderr, flush=True)

    def bar(self, done: int, total: int, text: str) -> None:
        """Show a bar, what is being done, and how long the rest will take at this rate."""
        full = _WIDTH * done // max(total, 1)
        left = ""
        if done:
            seconds = (time.monotonic() - self._begun) / done * (total - done)
            left = f"  {seconds:.0f} s left"
        self.show(f"{'█' * full}{'░' * (_WIDTH - full)} {done}/{total}{left}  {text}")

    def close(self) -> None:
        """Take the line away."""
        if self._shown:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)
