"""Suggestions for a misspelt word."""

from collections.abc import Iterable


def near(word: str, known: Iterable[str], most: int = 1) -> list[str]:
    """The known words (in small letters) that are most like a word, the likeliest first."""
    from difflib import get_close_matches  # imported only when a word is misspelt

    return get_close_matches(word.lower(), list(known), n=most, cutoff=0.5)
