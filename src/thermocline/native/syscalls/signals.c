/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A signal that comes while the next piece is copied ends the call, as it ends one that the kernel cuts into
 * pieces itself. Otherwise its handler would run, and the next piece might wait for ever: a timeout would be
 * missed. So signals are held back meanwhile, and looked at before the piece is begun.
 *
 * What comes behind that look and before the call is missed, as it is between a handler and any call.
 */
#include "syscalls.h"

/* Those are about the copying itself. If they were blocked, the kernel would kill the process instead. */
static const int synchronous[] = { SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGTRAP, SIGSYS };

/* Whether a signal would run a handler, or end the process. A blocked one waits even if it does nothing. */
static bool does_anything(int number)
{
	struct sigaction action;

	if (sigaction(number, NULL, &action) || action.sa_handler == SIG_IGN)
		return false;
	if (action.sa_handler != SIG_DFL)
		return true;
	return number != SIGCHLD && number != SIGURG && number != SIGWINCH && number != SIGCONT;
}

void tc_signals_hold(sigset_t *before)
{
	sigset_t held;
	size_t index;

	sigfillset(&held);
	for (index = 0; index < sizeof(synchronous) / sizeof(*synchronous); index++)
		sigdelset(&held, synchronous[index]);
	pthread_sigmask(SIG_BLOCK, &held, before);
}

bool tc_signals_release(const sigset_t *before)
{
	sigset_t pending;
	bool interrupts = false;
	int number;

	if (!sigpending(&pending))
		for (number = 1; number < NSIG && !interrupts; number++)
			interrupts = sigismember(&pending, number) > 0 && !sigismember(before, number) &&
				     does_anything(number);
	pthread_sigmask(SIG_SETMASK, before, NULL);
	return interrupts;
}
