"""Tasks: protocols under way in a machine."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any, Final

from thermocline.protocol.effects import Effect, Protocol, Trace


class _Parked:
    """The result of an effect that is not done yet."""

    def __repr__(self) -> str:
        return "waits"


PARKED: Final = _Parked()


class Task:
    """A protocol under way.

    Attributes
    ----------
    effect : Effect or None
        What it has asked for and what has not been begun; None before its first step, and when it was resumed.
    job : generator or None
        An effect that takes several steps and was begun.
    value : Any
        The result of the effect that is done.
    waits_for : str
        What it is parked for, in words; empty while it can run.
    done : callable or None
        Called with the protocol's return value.
    """

    __slots__ = ("done", "effect", "finished", "job", "memo", "name", "protocol", "thread", "value", "waits_for")

    def __init__(
        self, name: str, protocol: Protocol[Any], *, thread: str = "", done: Callable[[Any], None] | None = None
    ) -> None:
        self.name = name
        self.protocol = protocol
        #: The program's thread whose fault it answers.
        self.thread = thread
        self.done = done
        self.effect: Effect | None = None
        self.job: Generator[None, None, Any] | None = None
        self.value: Any = None
        self.waits_for = ""
        self.finished = False
        #: Digest of where the protocol is; None when it has moved since.
        self.memo: bytes | None = None

    def advance(self) -> None:
        """Run the protocol's own code up to the next effect that it asks for."""
        value, self.value = self.value, None
        self.memo = None
        try:
            self.effect = self.protocol.send(value)
            while type(self.effect) is Trace:
                self.effect = self.protocol.send(None)  # a tracepoint is no step
        except StopIteration as stop:
            self.effect = None
            self.finished = True
            if self.done is not None:
                self.done(stop.value)

    def resume(self, value: Any) -> None:
        """Let a parked task run again, with the result that it waited for."""
        self.waits_for = ""
        self.value = value
