/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Exceptions that come up where no caller can be told, on their way to the program: those of signal
 * handlers, which run in whatever Python code the main thread comes to first.
 */
#include <stdint.h>

#include "thermocline.h"

/* The attribute of an object's, whose reference is given up: a new reference, or NULL. */
static void *attribute(void *object, const char *name)
{
	void *found = object ? tc_python.PyObject_GetAttrString(object, name) : NULL;

	tc_python.Py_DecRef(object);
	return found;
}

static bool begins_with(void *text, void *part)
{
	return tc_python.PyUnicode_Tailmatch(text, part, 0, INTPTR_MAX, -1) == 1;
}

/*
 * Whether an exception says that a call of ours did not fit: it was done without, or again. One of
 * the same type that a signal handler raises comes from code that is not ours, or from the courier.
 * Its frames are looked at here, for they are not to be kept.
 */
static bool is_ours(const struct tc_errors *errors, void *type, void *traceback)
{
	void *last = traceback, *next, *file;
	bool is = true;

	if (!tc_python.PyErr_GivenExceptionMatches(type, errors->unfit))
		return false;
	tc_python.Py_IncRef(last);
	while (last) {
		tc_python.Py_IncRef(last);
		next = attribute(last, "tb_next");
		if (!next || next == errors->none) {
			tc_python.Py_DecRef(next);
			break;
		}
		tc_python.Py_DecRef(last);
		last = next;
	}
	file = attribute(attribute(attribute(last, "tb_frame"), "f_code"), "co_filename");
	if (file)
		is = begins_with(file, errors->package) && !begins_with(file, errors->file);
	tc_python.Py_DecRef(file);
	tc_python.PyErr_Restore(NULL, NULL, NULL);
	return is;
}

/*
 * The pending exception is added to the errors, with its thread, unless it is ours.
 * tc_errors_send() has the main thread raise them as soon as it runs Python again. No exception is
 * pending on return.
 */
void tc_errors_keep(const struct tc_errors *errors)
{
	void *type, *value, *traceback, *error;

	tc_python.PyErr_Fetch(&type, &value, &traceback);
	tc_python.PyErr_NormalizeException(&type, &value, &traceback);
	if (is_ours(errors, type, traceback)) {
		tc_python.Py_DecRef(value);
		value = NULL;
	}
	tc_python.Py_DecRef(type);
	tc_python.Py_DecRef(traceback);
	if (!value)
		return;
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

#define FIELD(member) TC_FIELD(struct tc_errors, member)

const struct tc_field tc_errors_fields[] = {
	FIELD(list), FIELD(courier), FIELD(unfit), FIELD(package),
	FIELD(file), FIELD(none),    TC_END(struct tc_errors),
};
