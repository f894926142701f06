/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Guards: a guard lets one thread at a time change what it guards, and sees to it that an exception
 * which comes from outside (a signal handler's, a debugger's, MemoryError) leaves nothing half done.
 *
 * No `with` or `finally` of Python can: such an exception may come before their first instruction.
 * An operation is therefore called from here, where nothing comes in between, and has a repair: a
 * function that makes good whatever was done when an operation ended by an exception. It may be
 * called any number of times. Should it fail as well (another signal), it is called again; if it
 * fails too often, it is called before the next operation.
 *
 * What an operation gives its caller may be lost between its return and the caller's next
 * instruction. So it comes in a lease: a capsule. When the last reference to it is gone, its value
 * is added to the guard's list of what was released. Settling takes that list up. It is done when
 * the guard is free: at once, or at the end of the operation that is under way, whose thread may be
 * this one (a finalizer) or another.
 *
 * Python decides: settle and repair are functions of the guard's owner. The lists are only added to
 * or emptied here, in calls that run no Python.
 */
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>

#include "thermocline.h"

/* How often a repair, or a settling, is tried at a time: a timer may fire each time. */
#define ATTEMPTS 16
#define SEEN 8 /* types of exceptions */
#define ALL INTPTR_MAX /* of a list: up to its end */

static const char guard_name[] = "thermocline.guard";
static const char lease_name[] = "thermocline.lease";

struct tc_guard {
	struct tc_guard *next, **link; /* of all guards, for a child that is forked */
	struct tc_guarded is;
	pthread_mutex_t mutex;
	uint64_t owner; /* thread, 0 if it is free */
	bool wanted;	/* there is something to settle */
	bool torn;	/* an operation has begun that is not over, or not repaired */
	void *seen[SEEN]; /* types of exceptions that came up since it was taken: only compared */
	int seen_count;
	int failures; /* exceptions that were kept since then */
	struct lease *ended; /* leases whose values are yet to be added to what was released */
};

/* It belongs to its capsule, and to its guard's list once it has ended: ending needs no memory. */
struct lease {
	struct tc_guard *guard;
	struct lease *next;
	void *keeper; /* Python's object that has the guard */
	void *value;
	int owners;
	bool over;
};

/* The interpreter shuts down: no Python is called for leases that end. */
static bool closed;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct tc_guard *guards;

static bool is_mine(const struct tc_guard *guard)
{
	uint64_t owner = __atomic_load_n(&guard->owner, __ATOMIC_RELAXED);

	return owner == tc_python.PyThread_get_thread_ident();
}

static void set_owner(struct tc_guard *guard, uint64_t owner)
{
	__atomic_store_n(&guard->owner, owner, __ATOMIC_RELAXED);
}

static void want_settling(struct tc_guard *guard)
{
	__atomic_store_n(&guard->wanted, true, __ATOMIC_SEQ_CST);
}

static bool is_settling_wanted(const struct tc_guard *guard)
{
	return __atomic_load_n(&guard->wanted, __ATOMIC_SEQ_CST);
}

/* The thread that has the guard may wait for the GIL, so no thread waits for the guard with it. */
static void take(struct tc_guard *guard)
{
	if (pthread_mutex_trylock(&guard->mutex)) {
		void *thread = tc_python.PyEval_SaveThread();

		pthread_mutex_lock(&guard->mutex);
		tc_python.PyEval_RestoreThread(thread);
	}
	set_owner(guard, tc_python.PyThread_get_thread_ident());
}

static void let_go_of(struct lease *lease)
{
	if (!__atomic_sub_fetch(&lease->owners, 1, __ATOMIC_ACQ_REL))
		free(lease);
}

static void add_ended(struct tc_guard *guard, struct lease *lease)
{
	lease->next = __atomic_load_n(&guard->ended, __ATOMIC_RELAXED);
	while (!__atomic_compare_exchange_n(&guard->ended, &lease->next, lease, false,
					    __ATOMIC_RELEASE, __ATOMIC_RELAXED))
		;
}

/*
 * Add the values of leases that have ended to what was released. Returns false, with MemoryError
 * pending, if some have to wait.
 */
static bool take_ended(struct tc_guard *guard)
{
	struct lease *lease = __atomic_exchange_n(&guard->ended, NULL, __ATOMIC_ACQUIRE);
	bool failed = false;

	while (lease) {
		struct lease *next = lease->next;

		failed = failed || tc_python.PyList_Append(guard->is.released, lease->value);
		if (failed) {
			add_ended(guard, lease);
		} else {
			tc_python.Py_DecRef(lease->value);
			let_go_of(lease);
		}
		lease = next;
	}
	return !failed;
}

static void clear_journal(struct tc_guard *guard)
{
	tc_python.PyList_SetSlice(guard->is.journal, 0, ALL, NULL);
}

/*
 * No caller can be told of the pending exception now. One of each type is kept: when signals come
 * faster than an operation is over, the rest would not have come without us.
 */
static void note_failure(struct tc_guard *guard)
{
	void *type, *value, *traceback;
	int index;

	tc_python.PyErr_Fetch(&type, &value, &traceback);
	for (index = 0; index < guard->seen_count && guard->seen[index] != type; index++)
		;
	if (index < guard->seen_count) {
		tc_python.Py_DecRef(type);
		tc_python.Py_DecRef(value);
		tc_python.Py_DecRef(traceback);
		return;
	}
	if (index < SEEN - 1) /* one is for what a caller is told */
		guard->seen[guard->seen_count++] = type;
	tc_python.PyErr_Restore(type, value, traceback);
	tc_errors_keep(guard->is.errors);
	guard->failures++;
}

/* Repair what is torn. Returns false, with an exception pending, if that fails all the time. */
static bool mend(struct tc_guard *guard)
{
	int attempt;

	for (attempt = 1; guard->torn; attempt++) {
		void *done = tc_python.PyObject_CallObject(guard->is.repair, NULL);

		if (done) {
			tc_python.Py_DecRef(done);
			clear_journal(guard);
			guard->torn = false;
		} else if (attempt == ATTEMPTS) {
			return false;
		} else {
			note_failure(guard);
		}
	}
	return true;
}

/*
 * Call an operation whole or not at all. The guard is held. Returns NULL with an exception pending,
 * which is the caller's, or is to be noted.
 */
static void *perform(struct tc_guard *guard, void *operation, void *arguments, bool caller_is_told)
{
	void *answer, *type, *value, *traceback;

	if (!mend(guard))
		return NULL;
	guard->torn = true;
	answer = tc_python.PyObject_CallObject(operation, arguments);
	if (answer) {
		clear_journal(guard);
		guard->torn = false;
		return answer;
	}
	tc_python.PyErr_Fetch(&type, &value, &traceback);
	if (caller_is_told)
		guard->seen[guard->seen_count++] = type;
	if (!mend(guard))
		note_failure(guard);
	tc_python.PyErr_Restore(type, value, traceback);
	return NULL;
}

/* Settle. Returns false if it cannot be done now. */
static bool settle(struct tc_guard *guard)
{
	int attempt;

	for (attempt = 0; attempt < ATTEMPTS; attempt++) {
		void *done = take_ended(guard) ? perform(guard, guard->is.settle, NULL, false) : NULL;

		if (done) {
			tc_python.Py_DecRef(done);
			return true;
		}
		note_failure(guard);
	}
	return false;
}

/*
 * Let go of a guard that is held, and settle what there is before. A thread that wanted that and
 * found the guard taken has said so first, and does not wait: it is looked for once the guard is free.
 */
static void leave(struct tc_guard *guard)
{
	bool settled = true;
	int failures;

	do {
		if (is_settling_wanted(guard)) {
			__atomic_store_n(&guard->wanted, false, __ATOMIC_SEQ_CST);
			settled = settle(guard);
		}
		failures = guard->failures;
		guard->failures = guard->seen_count = 0;
		set_owner(guard, 0);
		pthread_mutex_unlock(&guard->mutex);
		while (failures-- > 0)
			tc_errors_send(guard->is.errors);
		if (!settled) {
			want_settling(guard); /* of the next to come */
			break;
		}
		if (!is_settling_wanted(guard) || pthread_mutex_trylock(&guard->mutex))
			break;
		set_owner(guard, tc_python.PyThread_get_thread_ident());
	} while (true);
}

/* -- guards ----------------------------------------------------------------------------------- */

static void before_fork(void)
{
	pthread_mutex_lock(&lock);
}

static void after_fork_in_parent(void)
{
	pthread_mutex_unlock(&lock);
}

/*
 * Other threads are not here, and an operation that one of them was in is not over: the guard is
 * free, and torn. What this thread was in, when a signal handler has called fork(2), goes on.
 */
static void after_fork_in_child(void)
{
	uint64_t self = tc_python.PyThread_get_thread_ident();
	struct tc_guard *guard;

	for (guard = guards; guard; guard = guard->next) {
		if (__atomic_load_n(&guard->owner, __ATOMIC_RELAXED) == self)
			continue;
		set_owner(guard, 0);
		pthread_mutex_init(&guard->mutex, NULL);
	}
	pthread_mutex_unlock(&lock);
}

static int handlers_are_installed;

static void install_handlers(void)
{
	handlers_are_installed = !pthread_atfork(before_fork, after_fork_in_parent,
						 after_fork_in_child);
}

static void delete(struct tc_guard *guard)
{
	struct lease *lease = guard->ended;

	while (lease) {
		struct lease *next = lease->next;

		tc_python.Py_DecRef(lease->value);
		let_go_of(lease);
		lease = next;
	}
	pthread_mutex_lock(&lock);
	*guard->link = guard->next;
	if (guard->next)
		guard->next->link = guard->link;
	pthread_mutex_unlock(&lock);
	pthread_mutex_destroy(&guard->mutex);
	free(guard);
}

static void free_guard(void *capsule)
{
	delete(tc_python.PyCapsule_GetPointer(capsule, guard_name));
}

/* A guard, which lives as long as the capsule that is returned. */
void *tc_guard_new(const struct tc_guarded *guarded)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;
	struct tc_guard *guard;
	void *capsule;

	pthread_once(&once, install_handlers);
	guard = handlers_are_installed ? calloc(1, sizeof(*guard)) : NULL;
	if (!guard)
		return tc_python.PyErr_NoMemory();
	guard->is = *guarded;
	pthread_mutex_init(&guard->mutex, NULL);
	pthread_mutex_lock(&lock);
	guard->link = &guards;
	guard->next = guards;
	if (guards)
		guards->link = &guard->next;
	guards = guard;
	pthread_mutex_unlock(&lock);
	capsule = tc_python.PyCapsule_New(guard, guard_name, free_guard);
	if (!capsule)
		delete(guard);
	return capsule;
}

/*
 * Call an operation: its answer, or NULL with its exception pending, in which case nothing has
 * changed. If this thread is in the middle of another operation, the answer is guarded->busy.
 */
void *tc_guard_run(void *capsule, void *operation, void *arguments)
{
	struct tc_guard *guard = tc_python.PyCapsule_GetPointer(capsule, guard_name);
	void *answer, *type, *value, *traceback;

	if (is_mine(guard)) {
		tc_python.Py_IncRef(guard->is.busy);
		return guard->is.busy;
	}
	take(guard);
	answer = perform(guard, operation, arguments, true);
	tc_python.PyErr_Fetch(&type, &value, &traceback);
	leave(guard);
	tc_python.PyErr_Restore(type, value, traceback);
	return answer;
}

/* Settle what there is, unless the guard is taken: it is done then when that is over. */
static void settle_soon(struct tc_guard *guard)
{
	want_settling(guard);
	if (is_mine(guard) || pthread_mutex_trylock(&guard->mutex))
		return;
	set_owner(guard, tc_python.PyThread_get_thread_ident());
	leave(guard);
}

void tc_guard_settle(void *capsule)
{
	settle_soon(tc_python.PyCapsule_GetPointer(capsule, guard_name));
}

/* -- leases ----------------------------------------------------------------------------------- */

static struct lease *lease_in(void *capsule)
{
	return tc_python.PyCapsule_GetPointer(capsule, lease_name);
}

/* A new reference to a lease's value; None if it is over. */
void *tc_lease_value(void *capsule)
{
	const struct lease *lease = lease_in(capsule);
	void *value = lease->over ? lease->guard->is.none : lease->value;

	tc_python.Py_IncRef(value);
	return value;
}

/* The value, which is the caller's from now on: the lease is over, and nothing is released. */
void *tc_lease_take(void *capsule)
{
	struct lease *lease = lease_in(capsule);

	lease->over = true;
	return lease->value;
}

bool tc_lease_is(void *object)
{
	return tc_python.PyCapsule_IsValid(object, lease_name);
}

/* End a lease now. Doing it again is nothing. Whatever exception is pending stays so. */
void tc_lease_end(void *capsule)
{
	struct lease *lease = lease_in(capsule);
	void *type, *value, *traceback;

	if (__atomic_load_n(&closed, __ATOMIC_RELAXED) ||
	    __atomic_exchange_n(&lease->over, true, __ATOMIC_RELAXED))
		return;
	__atomic_add_fetch(&lease->owners, 1, __ATOMIC_RELAXED);
	add_ended(lease->guard, lease);
	tc_python.PyErr_Fetch(&type, &value, &traceback);
	settle_soon(lease->guard);
	tc_python.PyErr_Restore(type, value, traceback);
}

static void free_lease(void *capsule)
{
	struct lease *lease = lease_in(capsule);
	void *keeper = lease->keeper;

	tc_lease_end(capsule);
	let_go_of(lease);
	if (!__atomic_load_n(&closed, __ATOMIC_RELAXED))
		tc_python.Py_DecRef(keeper);
}

/*
 * Call an operation, as tc_guard_run() does: a lease of what it answers, which keeps an object for
 * as long as it lives. None, and guarded->busy, are returned as they are.
 */
void *tc_guard_lease(void *capsule, void *keeper, void *operation, void *arguments)
{
	struct tc_guard *guard = tc_python.PyCapsule_GetPointer(capsule, guard_name);
	struct lease *lease = calloc(1, sizeof(*lease));
	void *made = lease ? tc_python.PyCapsule_New(lease, lease_name, free_lease) : NULL;
	void *answer;

	if (!made) {
		free(lease);
		return tc_python.PyErr_NoMemory();
	}
	*lease = (struct lease){ .guard = guard, .keeper = keeper, .owners = 1, .over = true };
	tc_python.Py_IncRef(keeper);
	answer = tc_guard_run(capsule, operation, arguments);
	if (!answer || answer == guard->is.none || answer == guard->is.busy) {
		void *type, *value, *traceback;

		tc_python.PyErr_Fetch(&type, &value, &traceback);
		tc_python.Py_DecRef(made);
		tc_python.PyErr_Restore(type, value, traceback);
		return answer;
	}
	lease->value = answer;
	lease->over = false;
	return made;
}

/* The interpreter shuts down: leases end, and nothing is settled, from now on. */
void tc_leases_close(void)
{
	__atomic_store_n(&closed, true, __ATOMIC_RELAXED);
}

#define FIELD(member) TC_FIELD(struct tc_guarded, member)

const struct tc_field tc_guarded_fields[] = {
	FIELD(settle),
	FIELD(repair),
	FIELD(journal),
	FIELD(released),
	FIELD(none),
	FIELD(busy),
	FIELD(errors),
	TC_END(struct tc_guarded),
};
