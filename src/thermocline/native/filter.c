/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The filter between NumPy and tiered memory: the four functions of a memory handler (NEP 49).
 * NumPy passes the struct tc_filter to each as its context.
 *
 * A block below the threshold, and an address outside the arena, go to NumPy's own function: a
 * compare and a jump (the compiler makes a tail call of it). A block of a size that was freed
 * before comes from the bins, and goes there (bins.c). Everything else enters Python, by ask() or
 * release().
 *
 * Why not ctypes callbacks? Handlers are called with exceptions pending: an array is freed while an
 * exception passes through. A ctypes callback cannot give a pending exception back: what it
 * restores, ctypes takes for an error of the callback, prints and clears, and the interpreter
 * crashes. Here the exception is put aside before Python is entered and put back afterwards.
 *
 * NumPy promises to call a handler with the GIL held, and does not always keep that promise:
 * numpy.fromstring() resizes its result without it (array_from_text). So ask() and release(),
 * through which every way into Python leads, take the GIL themselves; in a thread that holds it,
 * PyGILState_Ensure() nests.
 */
#include <errno.h>
#include <stdbool.h>

#include "thermocline.h"

/* What serve() answers beside an address. */
#define EXHAUSTED 0
#define DECLINED (-1) /* not tiered */

/* Python writes threshold, open and bins while other threads, without the GIL, read them. */
#define READ_ONCE(word) __atomic_load_n(&(word), __ATOMIC_RELAXED)

/*
 * Keeps what enters Python out of the four functions, which then need no stack frame for the sake
 * of it: they compare and jump.
 */
#define OUT_OF_LINE __attribute__((noinline))

static inline bool is_small(const struct tc_filter *filter, size_t bytes)
{
	return bytes < READ_ONCE(filter->threshold);
}

static inline bool in_arena(const struct tc_filter *filter, const void *block)
{
	return (uintptr_t)block - filter->low < filter->span;
}

/* The integer that was answered, or is the value of a lease that was: the block is NumPy's now. */
static intptr_t address_in(void *answer)
{
	void *address = tc_lease_is(answer) ? tc_lease_take(answer) : answer;
	intptr_t integer = tc_python.PyLong_AsSsize_t(address);

	if (address != answer)
		tc_python.Py_DecRef(address);
	tc_python.Py_DecRef(answer);
	return integer;
}

/*
 * Calls a Python function with the arguments that the format names -> the integer that it answers.
 * The GIL is held and no exception is pending.
 *
 * A call that raises is made once more: what a signal handler raises is not about the allocation.
 * It is sent to the program afterwards, when it can no longer hit a call of ours. When the second
 * call raises as well (the recursion limit), the answer is -1.
 */
static intptr_t enter(struct tc_filter *filter, void *function, const char *format,
		      uintptr_t pointer, size_t bytes)
{
	intptr_t integer = -1;
	bool raised = false;
	void *answer;

	for (;;) {
		answer = tc_python.PyObject_CallFunction(function, format, (unsigned long long)pointer,
							      (unsigned long long)bytes);
		if (answer) {
			integer = address_in(answer);
			break;
		}
		tc_errors_keep(filter->object.errors);
		if (raised)
			break;
		raised = true;
	}
	if (raised)
		tc_errors_send(filter->object.errors);
	return integer;
}

/* What serve(pointer, bytes) answers: an address, EXHAUSTED or DECLINED. */
static intptr_t ask(struct tc_filter *filter, const void *block, size_t bytes)
{
	int saved = errno; /* malloc(3) leaves it alone, if it succeeds */
	int gil = tc_python.PyGILState_Ensure();
	void *type, *value, *traceback;
	intptr_t answer;

	tc_python.PyErr_Fetch(&type, &value, &traceback);
	answer = enter(filter, filter->object.serve, "KK", (uintptr_t)block, bytes);
	tc_python.PyErr_Restore(type, value, traceback);
	tc_python.PyGILState_Release(gil);
	errno = saved;
	return answer;
}

/*
 * The block goes on the backlog, and drain() frees what is there. When Python cannot be entered
 * just now (the recursion limit), the block waits there for the next drain.
 */
static void release(struct tc_filter *filter, const void *block)
{
	int saved = errno;
	int gil = tc_python.PyGILState_Ensure();
	void *type, *value, *traceback, *address;
	int error;

	tc_python.PyErr_Fetch(&type, &value, &traceback);
	address = tc_python.Py_BuildValue("K", (unsigned long long)(uintptr_t)block);
	if (address) {
		error = tc_python.PyList_Append(filter->object.backlog, address);
		tc_python.Py_DecRef(address);
		if (!error)
			enter(filter, filter->object.drain, "", 0, 0); /* "": neither is passed on */
	}
	tc_python.PyErr_Restore(type, value, traceback);
	tc_python.PyGILState_Release(gil);
	errno = saved;
}

/* A block for so many bytes, from the bins or as ask() answers; of zeros, if it is to be cleared. */
static intptr_t take(struct tc_filter *filter, size_t bytes, bool clear)
{
	void *kept = tc_bins_take(READ_ONCE(filter->bins), bytes, clear);

	return kept ? (intptr_t)kept : ask(filter, NULL, bytes);
}

static OUT_OF_LINE void *malloc_large(struct tc_filter *filter, size_t bytes)
{
	intptr_t block = take(filter, bytes, false);

	if (block == DECLINED)
		return filter->original.malloc(filter->original.context, bytes);
	return (void *)block;
}

/* NULL when tiered memory is exhausted. */
void *tc_filter_malloc(struct tc_filter *filter, size_t bytes)
{
	if (is_small(filter, bytes))
		return filter->original.malloc(filter->original.context, bytes);
	return malloc_large(filter, bytes);
}

static OUT_OF_LINE void *calloc_large(struct tc_filter *filter, size_t items, size_t size)
{
	intptr_t block = take(filter, items * size, true);

	if (block == DECLINED)
		return filter->original.calloc(filter->original.context, items, size);
	return (void *)block;
}

/* Tiered memory that was not used before is zero already. NULL also when the product overflows. */
void *tc_filter_calloc(struct tc_filter *filter, size_t items, size_t size)
{
	size_t bytes;

	if (__builtin_mul_overflow(items, size, &bytes))
		return NULL;
	if (is_small(filter, bytes))
		return filter->original.calloc(filter->original.context, items, size);
	return calloc_large(filter, items, size);
}

/*
 * A block of ours gets another size: as a plain one in a forked child, and while the interpreter
 * shuts down. Who resizes an array runs Python, so it can be entered.
 */
static OUT_OF_LINE void *realloc_ours(struct tc_filter *filter, void *old, size_t bytes)
{
	intptr_t block = ask(filter, old, bytes);

	if (block == DECLINED || block == EXHAUSTED)
		return NULL;
	if ((void *)block != old && READ_ONCE(filter->open))
		release(filter, old);
	return (void *)block;
}

/* A plain block grows, or NULL does, to what may be one of ours. */
static OUT_OF_LINE void *realloc_large(struct tc_filter *filter, void *old, size_t bytes)
{
	intptr_t block = ask(filter, old, bytes);

	if (block == DECLINED)
		return filter->original.realloc(filter->original.context, old, bytes);
	if (block == EXHAUSTED)
		return NULL;
	/*
	 * NumPy keeps freed blocks of less than 1024 bytes in a cache, by their size. This one's
	 * is not known here, so it is given as the largest there is: that goes to free().
	 */
	filter->original.free(filter->original.context, old, SIZE_MAX);
	return (void *)block;
}

/*
 * NULL leaves the old block as it was. Python finds and fills the new block; the old one is let go
 * here, so that no signal can come between the two.
 */
void *tc_filter_realloc(struct tc_filter *filter, void *old, size_t bytes)
{
	if (in_arena(filter, old))
		return realloc_ours(filter, old, bytes);
	if (is_small(filter, bytes))
		return filter->original.realloc(filter->original.context, old, bytes);
	return realloc_large(filter, old, bytes);
}

/* A block of ours is let go: to the bins, or to Python. */
static OUT_OF_LINE void free_ours(struct tc_filter *filter, const void *block)
{
	if (!tc_bins_keep(block))
		release(filter, block);
}

/* In a forked child, and while the interpreter shuts down, a block of ours is not freed. */
void tc_filter_free(struct tc_filter *filter, void *block, size_t bytes)
{
	if (!in_arena(filter, block))
		filter->original.free(filter->original.context, block, bytes);
	else if (READ_ONCE(filter->open))
		free_ours(filter, block);
}

#define FIELD(member) TC_FIELD(struct tc_filter, member)

const struct tc_field tc_filter_fields[] = {
	FIELD(threshold),
	FIELD(low),
	FIELD(span),
	FIELD(open),
	FIELD(bins),
	FIELD(original.context),
	FIELD(original.malloc),
	FIELD(original.calloc),
	FIELD(original.realloc),
	FIELD(original.free),
	FIELD(object.serve),
	FIELD(object.drain),
	FIELD(object.backlog),
	FIELD(object.errors),
	TC_END(struct tc_filter),
};
