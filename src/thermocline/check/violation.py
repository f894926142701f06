"""What the checker finds."""

from __future__ import annotations


class Violation(Exception):
    """Something that must never be the case is.

    Attributes
    ----------
    kind : str
        Which invariant: "deadlock", "lost", "stale", "slot", "leak", "budget", "wakeup", ...
    """

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind
