"""Operations that an exception from outside leaves done, or not done: nothing is half done.

Such an exception (a signal handler's, ``KeyboardInterrupt``, ``PyThreadState_SetAsyncExc``, ``MemoryError``) may come
before any instruction of Python, the first of a ``finally`` and the one that stores a function's answer included. So
what is shared is changed by *operations* that the native library calls (``native/guard.c``), one at a time:

- An operation has no effect, or the one that it should have. One truth is changed in a single step of the interpreter
  (a key of a dictionary, mostly), and all else is derived from it: *repair*, which is called when an operation has
  ended by an exception, derives it anew. What cannot be derived is written to the guard's *journal* before it is
  done, as a function that undoes it, and its arguments. It may be called more than once, and for what was not done.
- What is given out is a *lease*, which gives it back when the last reference to it is gone, wherever that is. What is
  given back is put in a list, and taken up by *settle*. That may be called at any time, and goes on where it was.

A signal handler may raise an exception of any type: ``TimeoutError`` is an ``OSError``. So what runs in a program's
process catches none of Python's own to go on with something else: what a call of ours cannot do is an answer, or an
exception of a class of ours. While a memory is made, when the kernel is asked for much,
:func:`thermocline.errors.is_ours` tells the refusal of a call of ours from what a handler has raised.

What comes up while something is given back reaches the program when that is done (:mod:`thermocline.live.interrupts`).
"""

from __future__ import annotations

import atexit
import ctypes
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from functools import cache, partial
from typing import Any, NamedTuple, NewType, TypeVar

from thermocline.errors import ThermoclineError
from thermocline.live.interrupts import KEPT, Errors
from thermocline.native import library


class BusyError(ThermoclineError):
    """A thread has met itself: the call comes from the middle of another one."""

    def __init__(self) -> None:
        super().__init__(
            "a signal handler or finalizer has called into the memory that its own thread was using; "
            "set a flag there and call later"
        )


#: What an operation has given out. The native library's: not to be looked into.
Lease = NewType("Lease", object)
#: What a ``with`` block names.
Held_co = TypeVar("Held_co", covariant=True)


class _Guarded(ctypes.Structure):
    """``struct tc_guarded``."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("settle", "repair", "journal", "released", "none", "busy")),
        ("errors", ctypes.POINTER(Errors)),
    )


#: Answered by the native library where the thread is in the middle of another operation.
_BUSY = object()


class _Native(NamedTuple):
    """Functions of the native library. They keep the GIL, and let go of it while they wait for a guard."""

    new: Callable[[_Guarded], object]
    run: Callable[[object, Callable[..., Any], tuple[object, ...]], Any]
    lease: Callable[[object, Guard, Callable[..., Any], tuple[object, ...]], Any]
    settle: Callable[[object], None]
    end: Callable[[Lease], None]
    value: Callable[[Lease], Any]


@cache
def _native() -> _Native:
    loaded = library()
    thing = ctypes.py_object
    atexit.register(loaded.tc_leases_close)
    return _Native(
        ctypes.PYFUNCTYPE(thing, ctypes.POINTER(_Guarded))(("tc_guard_new", loaded)),
        ctypes.PYFUNCTYPE(thing, thing, thing, thing)(("tc_guard_run", loaded)),
        ctypes.PYFUNCTYPE(thing, thing, thing, thing, thing)(("tc_guard_lease", loaded)),
        ctypes.PYFUNCTYPE(None, thing)(("tc_guard_settle", loaded)),
        ctypes.PYFUNCTYPE(None, thing)(("tc_lease_end", loaded)),
        ctypes.PYFUNCTYPE(thing, thing)(("tc_lease_value", loaded)),
    )


def _nothing() -> None:
    """Nothing is to be settled, or derived."""


class Guard:
    """Lets one thread at a time perform operations, each of them whole or not at all.

    Parameters
    ----------
    settle : callable
        Takes up what was released, and goes on with what was left over. Called with the guard held.
    repair : callable
        Derives what an operation may have left wrong, once the journal is undone. Called with the guard held.

    Attributes
    ----------
    journal : list
        What an operation has done so far: functions that undo it, and their arguments.
    released : list
        The values of leases that have ended. ``settle`` removes each when it has dealt with it.
    """

    def __init__(self, settle: Callable[[], object] = _nothing, repair: Callable[[], object] = _nothing) -> None:
        self.journal: list[tuple[Any, ...]] = []
        self.released: list[Any] = []
        self._derive = repair
        # The native library borrows them from this object.
        self._kept = (settle, self._repair, self.journal, self.released, None, _BUSY)
        self._native = _native()
        self._guard = self._native.new(_Guarded(*map(id, self._kept), ctypes.pointer(KEPT)))
        #: :meth:`settle` without an instruction of Python.
        self.settle_at_once: Callable[[], object] = partial(self._native.settle, self._guard)

    def _repair(self) -> None:
        for undo, *arguments in reversed(self.journal):
            undo(*arguments)
        self._derive()

    def run(self, operation: Callable[..., Any], *arguments: object) -> Any:
        """Perform an operation -> its answer.

        Raises
        ------
        BusyError
            The thread is in the middle of another one.
        """
        answer = self._native.run(self._guard, operation, arguments)
        if answer is _BUSY:
            raise BusyError
        return answer

    def lease(self, operation: Callable[..., Any], *arguments: object) -> Lease | None:
        """Perform an operation -> a lease of its answer; None if that is None.

        Raises
        ------
        BusyError
            The thread is in the middle of another one.
        """
        lease: Lease | None = self._native.lease(self._guard, self, operation, arguments)
        if lease is _BUSY:
            raise BusyError
        return lease

    def settle(self) -> None:
        """Settle now if the guard is free, or when it will be. Never waits, and may be called at any moment."""
        self._native.settle(self._guard)


#: See :func:`process_guard`.
_of_process: dict[str, Guard] = {}


def process_guard(name: str, settle: Callable[[], object] = _nothing) -> Guard:
    """The guard, by name, of something that this process has one of. It is made when it is asked for first.

    Not earlier: the native library is loaded by the first guard. All threads that ask at once are given the same.
    """
    guard = _of_process.get(name)
    return _of_process.setdefault(name, Guard(settle)) if guard is None else guard


def value_of(lease: Lease) -> Any:
    """What a lease is of; None if it is over."""
    return _native().value(lease)


def end(lease: Lease) -> None:
    """End a lease now, rather than when the last reference to it is gone. Doing it again is nothing."""
    _native().end(lease)


def leased_bytes(address: int, size: int, lease: Lease) -> ctypes.Array[ctypes.c_char]:
    """The bytes at an address, which hold a lease of them for as long as they are referred to."""
    held: ctypes.Array[ctypes.c_char] = (ctypes.c_char * size).from_address(address)
    held.lease = lease  # type: ignore[attr-defined]
    return held


class Holding(AbstractContextManager[Held_co]):
    """What is held, by leases, while a ``with`` block runs.

    Not a generator (:func:`contextlib.contextmanager`): Python ignores an exception from outside that comes while it
    ends one.

    Parameters
    ----------
    take : callable
        Called when the block is entered -> what ``as`` names, and the leases, the last of which ends first.
    """

    def __init__(self, take: Callable[[], tuple[Held_co, Sequence[Lease]]]) -> None:
        self._take = take
        self._leases: list[Sequence[Lease]] = []

    def __enter__(self) -> Held_co:
        held, leases = self._take()
        self._leases.append(leases)
        return held

    def __exit__(self, *_: object) -> None:
        for lease in reversed(self._leases.pop()):
            end(lease)


class Teardown:
    """What is to be done when something is closed, the last of it first. Each step may be done twice."""

    def __init__(self) -> None:
        self._steps: list[tuple[Any, ...]] = []

    def callback(self, step: Callable[..., object], *arguments: object) -> None:
        """Add a step."""
        self._steps.append((step, *arguments))

    def close(self) -> None:
        """Do what is left to do. After an exception, call it again: it goes on with the step that raised it."""
        while self._steps:
            step, *arguments = self._steps[-1]
            step(*arguments)
            self._steps.pop()
