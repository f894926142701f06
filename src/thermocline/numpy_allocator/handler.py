"""NumPy's default memory handler, found through NumPy's C-API table.

NEP 49 gives every array a handler: a struct of four functions and their context. ``PyDataMem_SetHandler``
installs another one, but in a context variable, which threads that start later do not inherit. So the
functions are replaced inside the one struct that all threads use, ``PyDataMem_DefaultHandler``.
"""

import ctypes
import importlib
from collections.abc import Sequence
from typing import Any

from thermocline.errors import UnsupportedError

_DEFAULT_HANDLER = 306  # place of PyDataMem_DefaultHandler in PyArray_API: numpy/_core/code_generators/numpy_api.py
_CAPSULE_NAME = b"mem_handler"

_Words = ctypes.c_void_p * 5

_capsule_pointer = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.py_object, ctypes.c_char_p)(
    ("PyCapsule_GetPointer", ctypes.pythonapi)
)


class Handler(ctypes.Structure):
    """``PyDataMem_Handler`` (numpy/ndarraytypes.h); functions: context, malloc, calloc, realloc, free."""

    _fields_ = (("name", ctypes.c_char * 127), ("version", ctypes.c_uint8), ("functions", _Words))

    def replace(self, functions: Sequence[int]) -> None:
        """Put others in place: in one assignment, so no thread sees new functions with the old context."""
        self.functions[:] = list(functions)


def default_handler() -> Handler:
    """The handler of every array whose program has not set its own.

    Raises
    ------
    UnsupportedError
        NumPy's table does not hold what it held in NumPy 1.22 to 2.5.
    """
    table = _capsule_pointer(_multiarray()._ARRAY_API, None)
    variable = ctypes.c_void_p.from_address(table + _DEFAULT_HANDLER * ctypes.sizeof(ctypes.c_void_p)).value
    capsule = ctypes.py_object.from_address(variable or 0).value
    try:
        handler = Handler.from_address(_capsule_pointer(capsule, _CAPSULE_NAME))
    except ValueError as error:
        raise UnsupportedError("this NumPy keeps its memory handler elsewhere; install numpy 2.5") from error
    if handler.version != 1:
        raise UnsupportedError(f"this NumPy has memory handlers of version {handler.version}, not 1; install numpy 2.5")
    return handler


def _multiarray() -> Any:
    try:
        return importlib.import_module("numpy._core.multiarray")
    except ModuleNotFoundError:
        return importlib.import_module("numpy.core.multiarray")  # NumPy 1
