"""Exceptions that came up where no caller could be told, on their way to the program.

A signal handler runs in the first Python code that the main thread comes to, and that is ours whenever the signal
arrived during a NumPy call which then allocates or frees, or while an array goes. What the handler raises (say,
``KeyboardInterrupt``) must stop the program and not the bookkeeping. So the native library keeps it (``errors.c``), and
the main thread raises it once the call is over.
"""

from __future__ import annotations

import ctypes
import os
import threading

_set_async_exception = ctypes.pythonapi.PyThreadState_SetAsyncExc
_set_async_exception.argtypes = (ctypes.c_ulong, ctypes.py_object)


#: A call did not fit. Where it is ours, it is done without, or again. (ctypes makes the last of a MemoryError.)
_UNFIT = MemoryError, RecursionError, ctypes.ArgumentError
#: With what the names of our files begin.
_PACKAGE = os.path.dirname(os.path.dirname(__file__)) + os.sep


class Errors(ctypes.Structure):
    """``struct tc_errors``."""

    _fields_ = tuple((name, ctypes.c_void_p) for name in ("list", "courier", "unfit", "package", "file", "none"))


class Courier:
    """An object whose truth value raises what is in ``errors``: pairs of a thread and an exception.

    The native library passes it to ``Py_AddPendingCall`` together with ``PyObject_IsTrue``, which has the very
    signature of a pending call: an int of a pointer, and an exception when it is -1.
    """

    def __init__(self, errors: list[tuple[int, BaseException]]) -> None:
        self._errors = errors

    def __bool__(self) -> bool:
        while self._errors:
            thread, error = self._errors.pop(0)
            # As standard signals do (signal(7)), those of a type that are pending together count once.
            self._errors[:] = [each for each in self._errors if (each[0], type(each[1])) != (thread, type(error))]
            if thread == threading.main_thread().ident:
                raise error
            _set_async_exception(thread, type(error))
        return False


#: What is under way in this process.
ERRORS: list[tuple[int, BaseException]] = []
#: They live for ever: arrays end after the modules are freed.
_LASTING = ERRORS, Courier(ERRORS), _UNFIT, _PACKAGE, __file__, None
for _each in _LASTING:
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(_each))


#: Where the native library keeps them. It lives for ever, too.
KEPT = Errors(*map(id, _LASTING))
ctypes.pythonapi.Py_IncRef(ctypes.py_object(KEPT))
