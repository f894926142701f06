"""How long some methods of an object take, added up while others use it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

_clock = time.perf_counter_ns
#: Calls from which a meter learns what it takes itself.
_TRIALS = 2000


class Meter:
    """Adds up the time of calls."""

    def __init__(self) -> None:
        self._calls = self._nanoseconds = 0
        metered = self._metered(_nothing)
        begun = _clock()
        for _ in range(_TRIALS):
            metered()
        self._own = (_clock() - begun) / _TRIALS
        self.reset()

    @property
    def total(self) -> float:
        """Nanoseconds of all calls since the last reset, and of metering them."""
        return self._nanoseconds + self._own * self._calls

    def reset(self) -> None:
        """Begin again at 0."""
        self._calls = self._nanoseconds = 0

    @contextmanager
    def on(self, thing: object, *methods: str) -> Iterator[None]:
        """Meter methods of one object."""
        with replaced(thing, {name: self._metered(getattr(thing, name)) for name in methods}):
            yield

    def _metered(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            begun = _clock()
            try:
                return function(*arguments, **named)
            finally:
                self._nanoseconds += _clock() - begun
                self._calls += 1

        return call


@contextmanager
def replaced(thing: object, methods: Mapping[str, Callable[..., Any]]) -> Iterator[None]:
    """Let one object have other methods than those of its class."""
    for name, function in methods.items():
        setattr(thing, name, function)
    try:
        yield
    finally:
        for name in methods:
            delattr(thing, name)


def _nothing() -> None:
    pass
