/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The fence: a SIGSEGV handler for a forked child that could not be attached to tiered memory.
 *
 * Nothing is mapped there in such a child, so a touch is a SIGSEGV. The handler writes a message
 * that says why, and then the process ends as it would have ended without the handler. Faults at
 * other addresses, and signals that were sent by kill(2), go to the handler that was installed
 * before.
 *
 * The handler enters no Python: the thread that faults may hold the GIL, or may never have had it.
 * Handler and tc_fence_install() call async-signal-safe functions only (signal-safety(7)): a child
 * of a process with threads may call nothing else between fork(2) and execve(2).
 */
#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <string.h>
#include <unistd.h>

#include "thermocline.h"

enum { UNPREPARED, PREPARING, PREPARED };

/* All but the atomics is constant once state is PREPARED. */
static struct {
	atomic_int state;
	atomic_bool passed; /* previous has had its turn since tc_fence_install() */
	uintptr_t low;
	uintptr_t high;
	size_t length;
	char message[TC_FENCE_MESSAGE];
	struct sigaction previous;
} fence;

/* Restores another disposition and returns to the instruction that faulted, which faults again. */
static void handle(int signal, siginfo_t *info, void *context)
{
	int saved = errno;
	bool faulted = info->si_code > 0; /* 0 and less: sent by a process (sigaction(2)) */
	uintptr_t address = (uintptr_t)info->si_addr;
	struct sigaction fatal = { .sa_handler = SIG_DFL };
	ssize_t written;

	(void)context;
	if (faulted && address >= fence.low && address < fence.high) {
		/* A message that is cut short or lost does not change how the process ends. */
		written = write(STDERR_FILENO, fence.message, fence.length);
		(void)written;
		sigaction(signal, &fatal, NULL);
	} else {
		/*
		 * The previous handler may in turn restore this one: faulthandler does, if it was
		 * enabled behind a fence and another fence was installed since. The second time the
		 * process ends, or the two would restore each other for ever.
		 */
		sigaction(signal, atomic_exchange(&fence.passed, true) ? &fatal : &fence.previous, NULL);
		if (!faulted)
			raise(signal); /* nothing will fault again; blocked until the handler returns */
	}
	errno = saved;
}

/*
 * Says in advance which addresses are behind the fence, [low, high), and what is written to stderr
 * when they are touched. Only the first call in a process counts; its children inherit it. Returns
 * 0, or EINVAL for a message of more than TC_FENCE_MESSAGE bytes.
 */
int tc_fence_prepare(uintptr_t low, uintptr_t high, const char *message, size_t length)
{
	int unprepared = UNPREPARED;

	if (length > sizeof(fence.message))
		return EINVAL;
	if (!atomic_compare_exchange_strong(&fence.state, &unprepared, PREPARING))
		return 0;
	fence.low = low;
	fence.high = high;
	fence.length = length;
	memcpy(fence.message, message, length);
	atomic_store(&fence.state, PREPARED);
	return 0;
}

/*
 * Puts the fence up in a forked child. Does nothing if it was not prepared, or if the handler is
 * in place already: were the fence its own previous handler, a fault elsewhere would be a loop.
 */
void tc_fence_install(void)
{
	/*
	 * SA_ONSTACK: where a thread has a stack for signals, a fault that is the overflow of its
	 * own stack still reaches the previous handler.
	 */
	struct sigaction action = { .sa_sigaction = handle, .sa_flags = SA_SIGINFO | SA_ONSTACK };
	struct sigaction current;

	if (atomic_load(&fence.state) != PREPARED || sigaction(SIGSEGV, NULL, &current))
		return;
	if ((current.sa_flags & SA_SIGINFO) && current.sa_sigaction == handle)
		return;
	fence.previous = current;
	atomic_store(&fence.passed, false);
	sigaction(SIGSEGV, &action, NULL);
}
