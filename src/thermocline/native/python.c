/* SPDX-License-Identifier: Apache-2.0 */
/*
 * CPython's functions, by their addresses, so that this library is linked to no libpython and serves
 * every version of it. All of them are in the stable ABI.
 */
#include "thermocline.h"

struct tc_python tc_python;

void tc_python_use(const struct tc_python *functions)
{
	tc_python = *functions;
}

#define FIELD(member) TC_FIELD(struct tc_python, member)

const struct tc_field tc_python_fields[] = {
	FIELD(PyErr_Fetch),
	FIELD(PyErr_Restore),
	FIELD(PyErr_NormalizeException),
	FIELD(PyErr_GivenExceptionMatches),
	FIELD(PyObject_GetAttrString),
	FIELD(PyUnicode_Tailmatch),
	FIELD(PyErr_NoMemory),
	FIELD(PyObject_CallFunction),
	FIELD(PyObject_CallObject),
	FIELD(Py_BuildValue),
	FIELD(PyLong_AsSsize_t),
	FIELD(PyList_Append),
	FIELD(PyList_SetSlice),
	FIELD(PyCapsule_New),
	FIELD(PyCapsule_IsValid),
	FIELD(PyCapsule_GetPointer),
	FIELD(Py_IncRef),
	FIELD(Py_DecRef),
	FIELD(Py_AddPendingCall),
	FIELD(PyObject_IsTrue),
	FIELD(PyThread_get_thread_ident),
	FIELD(PyGILState_Ensure),
	FIELD(PyGILState_Release),
	FIELD(PyEval_SaveThread),
	FIELD(PyEval_RestoreThread),
	TC_END(struct tc_python),
};
