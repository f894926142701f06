"""Deaths and failing devices, made to order: what the environment variable THERMOCLINE_INJECT asks for.

It is for tests of what is promised when things go wrong, and it costs nothing when the variable is not set: the
pager's handlers and stores are then untouched. Rules are parted by semicolons::

    kill before Commit 7          the pager kills itself (SIGKILL) before its 7th Commit; or ``after``
    kill after Native 7           ... behind the 7th store that the native half made when it answered faults
    exit up at 17                 every pager ends itself (status 70) when it brings page 17 up; or ``down``
    break read file 3             the third read from the file node is a bug, which raises what nobody expects
    fail write file ENOSPC 3      the third write to the file node fails
    fail write file ENOSPC 3 on   so do all that follow; this can be said of ``break`` and ``hang``, too
    hang read file 5 2s           the fifth read waits for two seconds first
    patience 2s                   an allocation without room gives up after two seconds, and so does a supervisor
                                  whose pagers are killed before they have answered a fault

Each pager obeys one rule that begins with ``kill``: the first pager the first, its successor the second, and so on.
``after`` an effect that a worker performs is while the worker is at it. A store is named by its kind (``zstd``,
``file``; ``source`` for the files of ``from_file`` arrays), or ``any``; a call is ``read``, ``write`` or ``any``; each
pager counts them from 1.
"""

from __future__ import annotations

import errno
import itertools
import os
import re
import signal
import time
from collections.abc import Callable, Iterable, MutableMapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from thermocline.errors import SpecError, StoreError
from thermocline.live.buffer import Buffer
from thermocline.live.stores.store import Store
from thermocline.live.suspicion import note_of
from thermocline.live.tables import Tables
from thermocline.protocol import effects
from thermocline.protocol.page import Column
from thermocline.sizes import parse_seconds

if TYPE_CHECKING:  # the program reads the rules, and has nothing of a pager's
    from thermocline.live.arena import Arena
    from thermocline.live.copier import Copier
    from thermocline.protocol.interpreter import Interpreter
    from thermocline.protocol.node import Node
    from thermocline.protocol.scheduler import Handler, Scheduler, Task

#: Exit status of a pager that was told to end.
EXIT_STATUS = 70
#: Names of the effects at which a pager can be told to end.
POINTS = sorted(kind.__name__ for kind in effects.Effect.__subclasses__())
#: What the native half does when it answers a fault: each of its stores that a successor may find counts.
NATIVE = "Native"

_KILL = re.compile(r"kill (before|after) (\w+) ([1-9]\d*)")
_EXIT = re.compile(r"exit (up|down) at (\d+)")
_FAIL = re.compile(r"fail (read|write|any) (\w+) (E\w+) ([1-9]\d*)( on)?")
_BREAK = re.compile(r"break (read|write|any) (\w+) ([1-9]\d*)( on)?")
_HANG = re.compile(r"hang (read|write|any) (\w+) ([1-9]\d*) (\S+?)( on)?")
_PATIENCE = re.compile(r"patience (\S+)")


@dataclass(frozen=True)
class Kill:
    """Kill the pager at one occurrence of an effect."""

    before: bool
    effect: str
    occurrence: int


@dataclass(frozen=True)
class Exit:
    """End the pager whenever it moves a page one way."""

    down: bool
    page: int


@dataclass(frozen=True)
class Disturb:
    """Let a call of a store fail with ``error`` (0: with an exception that it may not raise), or wait first."""

    call: str
    node: str
    error: int
    occurrence: int
    onward: bool = False
    seconds: float = 0.0

    def concerns(self, call: str, node: str) -> bool:
        """Whether it counts such calls."""
        return self.call in (call, "any") and self.node in (node, "any")

    def hits(self, count: int) -> bool:
        """Whether it is for the ``count``-th of them."""
        return count == self.occurrence or (self.onward and count > self.occurrence)


@dataclass(frozen=True)
class Patience:
    """How long allocations wait for room."""

    seconds: float


Rule = Kill | Exit | Disturb | Patience


def parse(text: str) -> list[Rule]:
    """The rules that a text asks for.

    Raises
    ------
    SpecError
        It is not one.
    """
    return [_parse_rule(rule) for rule in (" ".join(part.split()) for part in text.split(";")) if rule]


def patience_of(text: str) -> float | None:
    """How long one waits, if a text says so."""
    return next((rule.seconds for rule in parse(text) if isinstance(rule, Patience)), None)


def _parse_rule(text: str) -> Rule:
    if found := _KILL.fullmatch(text):
        return Kill(found[1] == "before", _effect(found[2], text), int(found[3]))
    if found := _EXIT.fullmatch(text):
        return Exit(found[1] == "down", int(found[2]))
    if found := _FAIL.fullmatch(text):
        number = getattr(errno, found[3], None)
        if number is None:
            raise SpecError(f'THERMOCLINE_INJECT: "{text}": there is no error {found[3]}; write EIO or ENOSPC')
        return Disturb(found[1], found[2], number, int(found[4]), onward=found[5] is not None)
    if found := _BREAK.fullmatch(text):
        return Disturb(found[1], found[2], 0, int(found[3]), onward=found[4] is not None)
    if found := _HANG.fullmatch(text):
        seconds = parse_seconds(found[4])
        return Disturb(found[1], found[2], 0, int(found[3]), onward=found[5] is not None, seconds=seconds)
    if found := _PATIENCE.fullmatch(text):
        return Patience(parse_seconds(found[1]))
    raise SpecError(f'THERMOCLINE_INJECT: "{text}" is no rule; write for example "kill before Commit 7"')


def _effect(name: str, text: str) -> str:
    if name not in (*POINTS, NATIVE):
        raise SpecError(
            f'THERMOCLINE_INJECT: "{text}": there is no effect {name}; write one of: {", ".join((*POINTS, NATIVE))}'
        )
    return name


class Injection:
    """What one pager was told to do to itself.

    Parameters
    ----------
    predecessors : int
        Pagers that there were before.
    header : column
        Of the shared tables: calls of stores are counted there, and those that were disturbed.
    """

    def __init__(self, text: str, predecessors: int, header: Column) -> None:
        self._header = header
        rules = parse(text)
        kills = [rule for rule in rules if isinstance(rule, Kill)]
        self._kill = kills[predecessors] if predecessors < len(kills) else None
        self._exits = [rule for rule in rules if isinstance(rule, Exit)]
        # Workers call stores, too: next() of such a counter is one step for all of them.
        self._disturbances = {rule: itertools.count(1) for rule in rules if isinstance(rule, Disturb)}
        self._patience = [rule.seconds for rule in rules if isinstance(rule, Patience)]

    @property
    def kill_in(self) -> int:
        """Behind how many of its stores the native half is to kill the pager; 0: not there."""
        return self._kill.occurrence if self._kill is not None and self._kill.effect == NATIVE else 0

    @property
    def concerns_native(self) -> bool:
        """Whether the native half may answer faults: else it would go past what the rules say."""
        return self.kill_in > 0 or not (self._kill or self._exits or self._disturbances)

    def install(
        self,
        scheduler: Scheduler,
        stores: MutableMapping[int, Store],
        nodes: Sequence[Node],
        arena: Arena,
        interpreter: Interpreter,
        copier: Copier,
    ) -> None:
        """Put the rules between a pager and what it does."""
        for kind, handler in scheduler.handlers.items():
            if self._kill is not None and self._kill.effect == kind.__name__:
                scheduler.handlers[kind] = _killing(self._kill, handler)
        fatal = {note_of(rule.page, down=rule.down) for rule in self._exits}
        if fatal:
            for name in ("read", "install", "install_zeros"):
                setattr(arena, name, _exiting(fatal, scheduler, getattr(arena, name)))
        calls, disturbed = itertools.count(1), itertools.count(self._header[Tables.HEADER_DISTURBED] + 1)

        def disturb(call: str, name: str) -> None:
            self._header[Tables.HEADER_STORE_CALLS] = next(calls)
            for rule, counter in self._disturbances.items():
                if rule.concerns(call, name) and rule.hits(next(counter)):
                    self._header[Tables.HEADER_DISTURBED] = next(disturbed)
                    _disturb(rule, name)

        for index, store in stores.items():
            stores[index] = DisturbedStore(store, nodes[index].name.partition(":")[0], disturb)
        find_source = copier.source
        copier.source = lambda number: DisturbedStore(find_source(number), "source", disturb)
        for seconds in self._patience:
            interpreter.patience = interpreter.entrance = seconds


def _killing(rule: Kill, handler: Handler) -> Handler:
    count = 0

    def perform(effect: Any, task: Task) -> Any:
        nonlocal count
        count += 1
        if count < rule.occurrence:
            return handler(effect, task)
        if not rule.before:
            handler(effect, task)
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError("a killed process does not go on")

    return perform


def _exiting(fatal: set[int], scheduler: Scheduler, method: Callable[..., Any]) -> Callable[..., Any]:
    def call(*arguments: Any, **named: Any) -> Any:
        if scheduler.noted[0] in fatal:
            os._exit(EXIT_STATUS)
        return method(*arguments, **named)

    return call


def _disturb(rule: Disturb, name: str) -> None:
    if rule.seconds:
        time.sleep(rule.seconds)
    elif rule.error:
        raise StoreError(rule.error, f"{name}: {os.strerror(rule.error)} (injected)")
    else:
        raise RuntimeError(f"{name}: a bug (injected)")


class DisturbedStore(Store):
    """A store whose reads and writes are announced first, to what may raise or take its time.

    Parameters
    ----------
    disturb : callable
        Told which call it is, and of which store.
    """

    def __init__(self, store: Store, name: str, disturb: Callable[[str, str], None]) -> None:
        self._store = store
        self._name = name
        self._disturb = disturb
        self.slow = store.slow  # type: ignore[misc]
        self.slot_bytes = store.slot_bytes

    def reserve(self) -> int:
        return self._store.reserve()

    def write(self, slot: int, buffer: Buffer, offset: int, hint: int = 0) -> int:
        self._disturb("write", self._name)
        return self._store.write(slot, buffer, offset, hint)

    def read(self, slot: int, buffer: Buffer, offset: int) -> None:
        self._disturb("read", self._name)
        self._store.read(slot, buffer, offset)

    def read_part(self, slot: int, buffer: Buffer, offset: int, begin: int, length: int) -> None:
        self._disturb("read", self._name)
        self._store.read_part(slot, buffer, offset, begin, length)

    def size(self, slot: int) -> int:
        return self._store.size(slot)

    def release(self, slot: int) -> None:
        self._store.release(slot)

    def recover(self, slots: Iterable[int]) -> None:
        self._store.recover(slots)

    def trim(self) -> int:
        return self._store.trim()

    def close(self) -> None:
        self._store.close()
