"""Exceptions that came up inside NumPy's allocator, on their way to the program.

A signal handler runs in the first Python code that the main thread comes to, and that is our ``serve`` or
``drain`` whenever the signal arrived during a NumPy call which then allocates or frees. What the handler
raises (say, ``KeyboardInterrupt``) must stop the program and not the allocation, for which NumPy knows
``MemoryError`` only. So the filter keeps it, and the main thread raises it once NumPy has returned.
"""

import ctypes
import threading

_set_async_exception = ctypes.pythonapi.PyThreadState_SetAsyncExc
_set_async_exception.argtypes = (ctypes.c_ulong, ctypes.py_object)


class Courier:
    """An object whose truth value raises what is in ``errors``: pairs of a thread and an exception.

    The filter passes it to ``Py_AddPendingCall`` together with ``PyObject_IsTrue``, which has the very
    signature of a pending call: an int of a pointer, and an exception when it is -1.
    """

    def __init__(self, errors: list[tuple[int, BaseException]]) -> None:
        self._errors = errors

    def __bool__(self) -> bool:
        while self._errors:
            thread, error = self._errors.pop(0)
            if isinstance(error, RecursionError):
                continue  # it was our call that did not fit, and it was done without
            if thread == threading.main_thread().ident:
                raise error
            _set_async_exception(thread, type(error))
        return False
