/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Exceptions that come up where no caller can be told, on their way to the program: those of signal
 * handlers, which run in whatever Python code the main thread comes to first.
 */
#include "thermocline.h"

/*
 * The pending exception is added to the errors, with its thread. tc_errors_send() has the main
 * thread raise them as soon as it runs Python again. No exception is pending on return.
 */
void tc_errors_keep(const struct tc_errors *errors)
{
	void *type, *value, *traceback, *error;

	tc_python.PyErr_Fetch(&type, &value, &traceback);
	tc_python.PyErr_NormalizeException(&type, &value, &traceback);
	tc_python.Py_DecRef(type);
	tc_python.Py_DecRef(traceback);
	error = tc_python.Py_BuildValue("kO", tc_python.PyThread_get_thread_ident(), value);
	tc_python.Py_DecRef(value);
	if (error) {
		tc_python.PyList_Append(errors->list, error);
		tc_python.Py_DecRef(error);
	}
	tc_python.PyErr_Restore(NULL, NULL, NULL);
}

void tc_errors_send(const struct tc_errors *errors)
{
	tc_python.Py_AddPendingCall(tc_python.PyObject_IsTrue, errors->courier);
}
