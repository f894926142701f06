"""A forked child, as the pager knows it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True, eq=False)
class Child:
    """A process that sees the arrays as they were when it was forked, and writes to copies of its own.

    Attributes
    ----------
    number : int
        Of its mapping.
    fork : int
        The program counts its forks from 1. A child's own children see what that child sees, so they have its number.
    expected : bool
        Its fork is under way, and it has not been attached: what it is given is saved until then.
    inherits : bool
        A child forked it. Its mapping is a copy of that child's, with what that had mapped, frames among it.
    """

    number: int
    fork: int
    expected: bool = True
    inherits: bool = False
