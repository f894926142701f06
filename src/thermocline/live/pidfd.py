"""Waiting for processes by their pidfds (pidfd_open(2)).

By poll(2): select(2) takes no number above 1023, and a supervisor has as many descriptors as processes use its memory.
"""

from __future__ import annotations

import select


def has_ended(process: int, seconds: float | None = None) -> bool:
    """Wait until a process has ended, for so many seconds at most -> whether it has."""
    poll = select.poll()
    poll.register(process, select.POLLIN)
    return bool(poll.poll(None if seconds is None else seconds * 1000))
