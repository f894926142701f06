"""What the filter and Python share: the context that NumPy passes to every function of its handler."""

import ctypes
from collections.abc import Callable, Mapping, Sequence

NEVER = ctypes.c_size_t(-1).value  # as a threshold: no block is that large

_SHARED = ("ask", "release", "enter", "collect")

_FUNCTIONS_OF_CPYTHON = (
    "PyErr_Fetch",
    "PyErr_Restore",
    "PyErr_NormalizeException",
    "PyObject_CallFunction",
    "Py_BuildValue",
    "PyLong_AsSsize_t",
    "PyList_Append",
    "Py_DecRef",
    "Py_AddPendingCall",
    "PyObject_IsTrue",
    "PyThread_get_thread_ident",
    "PyGILState_Ensure",
    "PyGILState_Release",
)


class State(ctypes.Structure):
    """``%State`` of ``filter.ll``, field for field."""

    _fields_ = (
        ("threshold", ctypes.c_size_t),
        ("low", ctypes.c_size_t),
        ("span", ctypes.c_size_t),
        ("open", ctypes.c_size_t),
        ("originals", ctypes.c_void_p * 5),
        ("shared", ctypes.c_void_p * 4),
        ("cpython", ctypes.c_void_p * len(_FUNCTIONS_OF_CPYTHON)),
        ("objects", ctypes.c_void_p * 5),
        ("formats", ctypes.c_char_p * 4),
    )


class Objects:
    """The Python objects that the filter uses, in the order of their fields."""

    def __init__(
        self,
        serve: Callable[[int, int], int],
        drain: Callable[[], int],
        backlog: list[int],
        errors: list[tuple[int, BaseException]],
        courier: object,
    ) -> None:
        self.in_order = (serve, drain, backlog, errors, courier)


def new_state(
    low: int, high: int, originals: Sequence[int], code: Mapping[str, int], objects: Objects
) -> tuple[State, int]:
    """A state and its address, for the arena ``[low, high)``; neither it nor what it refers to is ever freed.

    NumPy calls its handler until the very last array goes, which is after Python has freed every module.
    """
    address = _raw_calloc(1, ctypes.sizeof(State))
    if not address:
        raise MemoryError("no memory for the allocator's state")
    state = State.from_address(address)
    state.threshold, state.low, state.span = NEVER, low, high - low
    state.originals[:] = list(originals)
    state.shared[:] = [code[name] for name in _SHARED]
    state.cpython[:] = [_address_of(name) for name in _FUNCTIONS_OF_CPYTHON]
    formats = (b"KK", b"", b"K", b"kO")
    for kept in (*objects.in_order, *formats):
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(kept))
    state.objects[:] = [id(each) for each in objects.in_order]
    state.formats[:] = list(formats)
    state.open = 1
    return state, address


_raw_calloc = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.c_size_t, ctypes.c_size_t)(
    ("PyMem_RawCalloc", ctypes.pythonapi)
)


def _address_of(function: str) -> int:
    address = ctypes.cast(getattr(ctypes.pythonapi, function), ctypes.c_void_p).value
    assert address is not None
    return address
