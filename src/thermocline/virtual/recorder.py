"""What happens when: as lines of a trace, and as a digest by which two runs are compared."""

from __future__ import annotations

from collections.abc import Callable
from hashlib import blake2b

from thermocline.protocol.effects import Effect, Spawn
from thermocline.protocol.scheduler import Task
from thermocline.virtual.clock import NS


class Recorder:
    """Records every effect and every event of the threads.

    Parameters
    ----------
    digest : bool
        Whether to digest it all.
    trace : callable or None
        Called with a time in nanoseconds and a line. Each actor's times ascend; those of different actors need not,
        because a thread is brought up to the pager's time only when it matters.
    """

    __slots__ = ("_digest", "_trace", "on")

    def __init__(self, *, digest: bool, trace: Callable[[int, str], None] | None) -> None:
        self._digest = blake2b(digest_size=16) if digest else None
        self._trace = trace
        #: Whether there is a trace or a digest to write.
        self.on = digest or trace is not None

    def note(self, time: int, actor: str, text: str) -> None:
        """Something happened, at a time in picoseconds."""
        if self._digest is not None:
            self._digest.update(f"{time} {actor} {text}\n".encode())
        if self._trace is not None:
            self._trace(time // NS, f"{actor}: {text}")

    def note_effect(self, time: int, task: Task, effect: Effect) -> None:
        """A protocol asked for an effect."""
        send: object = task.send
        text = f"Spawn({_name(effect.protocol.send)})" if isinstance(effect, Spawn) else repr(effect)
        self.note(time, _name(send), text)

    def hexdigest(self) -> str | None:
        """Of everything until now."""
        return None if self._digest is None else self._digest.hexdigest()


def _name(send: object) -> str:
    """The name of the protocol whose ``send`` this is. (Its repr has an address in it, which differs every time.)"""
    generator = getattr(send, "__self__", None)
    return str(getattr(generator, "__name__", "protocol"))
