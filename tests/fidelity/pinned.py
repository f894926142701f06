"""Differences that are left, each with the paragraph of ``docs/limits.md`` that tells users of it.

One that no longer differs fails the test, as does one that differs in another way.
"""

from dataclasses import dataclass

from settings import SETTINGS


@dataclass(frozen=True)
class Pinned:
    """A difference that is known.

    Attributes
    ----------
    program : str
        Its name.
    settings : frozenset of str
        Those in which it differs.
    parts : frozenset of str
        What differs, as :meth:`outcome.Outcome.differences` names it.
    says : str
        What the tiered program has on stdout or stderr that plain Python has not.
    paragraph : str
        Words of ``docs/limits.md`` that say so.
    """

    program: str
    settings: frozenset[str]
    parts: frozenset[str]
    says: str
    paragraph: str


ALL = frozenset(setting.name for setting in SETTINGS)
PINNED = [
    Pinned(
        "interpreter/settrace",
        ALL,
        frozenset({"stdout"}),
        "call serve allocator.py",
        "**Tools that watch Python code**",
    ),
    Pinned(
        "buffers/other_calls",
        frozenset({"user", "user-4k"}),
        frozenset({"stdout"}),
        "-1 b'\\x00",
        "the C library's other calls that fill a buffer",
    ),
    Pinned(
        "processes/group_leader",
        ALL,
        frozenset({"stdout"}),
        "leads its group: False",
        "**The wrapper.**",
    ),
]


def pinned(program: str, setting: str) -> Pinned | None:
    """What is known of a program in a setting."""
    return next((known for known in PINNED if known.program == program and setting in known.settings), None)
