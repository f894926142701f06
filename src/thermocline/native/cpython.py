"""CPython's functions that the native library calls, by their addresses: it is linked to no libpython."""

from __future__ import annotations

import ctypes


class Functions(ctypes.Structure):
    """``struct tc_python``: functions of CPython's stable ABI, by their own names."""

    _fields_ = (
        ("PyErr_Fetch", ctypes.c_void_p),
        ("PyErr_Restore", ctypes.c_void_p),
        ("PyErr_NormalizeException", ctypes.c_void_p),
        ("PyErr_GivenExceptionMatches", ctypes.c_void_p),
        ("PyObject_GetAttrString", ctypes.c_void_p),
        ("PyUnicode_Tailmatch", ctypes.c_void_p),
        ("PyErr_NoMemory", ctypes.c_void_p),
        ("PyObject_CallFunction", ctypes.c_void_p),
        ("PyObject_CallObject", ctypes.c_void_p),
        ("Py_BuildValue", ctypes.c_void_p),
        ("PyLong_AsSsize_t", ctypes.c_void_p),
        ("PyList_Append", ctypes.c_void_p),
        ("PyList_SetSlice", ctypes.c_void_p),
        ("PyCapsule_New", ctypes.c_void_p),
        ("PyCapsule_IsValid", ctypes.c_void_p),
        ("PyCapsule_GetPointer", ctypes.c_void_p),
        ("Py_IncRef", ctypes.c_void_p),
        ("Py_DecRef", ctypes.c_void_p),
        ("Py_AddPendingCall", ctypes.c_void_p),
        ("PyObject_IsTrue", ctypes.c_void_p),
        ("PyThread_get_thread_ident", ctypes.c_void_p),
        ("PyGILState_Ensure", ctypes.c_void_p),
        ("PyGILState_Release", ctypes.c_void_p),
        ("PyEval_SaveThread", ctypes.c_void_p),
        ("PyEval_RestoreThread", ctypes.c_void_p),
    )


def introduce(library: ctypes.CDLL) -> None:
    """Tell the native library where this interpreter's functions are."""
    functions = Functions(*(ctypes.cast(ctypes.pythonapi[name], ctypes.c_void_p) for name, _ in Functions._fields_))
    library.tc_python_use(ctypes.byref(functions))
