"""What the filter (``native/filter.c``) and Python share: the context that NumPy passes to every function."""

import ctypes
from collections.abc import Callable, Sequence

from thermocline.live.interrupts import KEPT, Errors
from thermocline.native import library

NEVER = ctypes.c_size_t(-1).value  # as a threshold: no block is that large


class _Originals(ctypes.Structure):
    _fields_ = tuple((name, ctypes.c_void_p) for name in ("context", "malloc", "calloc", "realloc", "free"))


class _Objects(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("serve", "drain", "backlog")),
        ("errors", ctypes.POINTER(Errors)),
    )


class State(ctypes.Structure):
    """``struct tc_filter`` of ``native/thermocline.h``, field for field."""

    _fields_ = (
        ("threshold", ctypes.c_size_t),
        ("low", ctypes.c_size_t),
        ("span", ctypes.c_size_t),
        ("open", ctypes.c_size_t),
        ("bins", ctypes.c_void_p),
        ("original", _Originals),
        ("object", _Objects),
    )


def new_state(
    low: int,
    high: int,
    originals: Sequence[int],
    *,
    serve: Callable[[int, int], object],
    drain: Callable[[], int],
    backlog: list[int],
) -> tuple[State, list[int]]:
    """A state for the arena ``[low, high)``, and what a handler's functions are with it: its address, and the filter's.

    Neither it nor what it refers to is ever freed: NumPy calls its handler until the very last array goes, which is
    after Python has freed every module.

    Raises
    ------
    UnsupportedError
        The native library does not load.
    """
    filters = [_address_of(library(), f"tc_filter_{function}") for function in ("malloc", "calloc", "realloc", "free")]
    address = _raw_calloc(1, ctypes.sizeof(State))
    if not address:
        raise MemoryError("no memory for the allocator's state")
    state = State.from_address(address)
    state.threshold, state.low, state.span = NEVER, low, high - low
    state.original = _Originals(*originals)
    kept = (serve, drain, backlog)
    for each in kept:
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(each))
    state.object = _Objects(*map(id, kept), ctypes.pointer(KEPT))
    state.open = 1
    return state, [address, *filters]


_raw_calloc = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.c_size_t, ctypes.c_size_t)(
    ("PyMem_RawCalloc", ctypes.pythonapi)
)


def _address_of(where: ctypes.CDLL, function: str) -> int:
    address = ctypes.cast(getattr(where, function), ctypes.c_void_p).value
    assert address is not None
    return address
