/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Waiting for a word of memory that processes share (futex(2)), and a thread that turns it into an
 * eventfd. The program rings the pager by changing a word of the shared tables: it has no
 * descriptor that it could write to by mistake, should the number be another file's by then.
 */
#define _GNU_SOURCE
#include "thermocline.h"

#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

/*
 * Sleep while *word is expected, for nanoseconds at most (negative: without end). Not private:
 * the mapping is shared. Returns 0 or an errno: EAGAIN when it is not expected, ETIMEDOUT, EINTR.
 */
int tc_futex_wait(uint32_t *word, uint32_t expected, int64_t nanoseconds)
{
	struct timespec limit = { nanoseconds / 1000000000, nanoseconds % 1000000000 };

	if (syscall(SYS_futex, word, FUTEX_WAIT, expected, nanoseconds < 0 ? NULL : &limit, NULL, 0))
		return errno;
	return 0;
}

/* Wake all that sleep on a word. */
void tc_futex_wake(uint32_t *word)
{
	syscall(SYS_futex, word, FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
}

struct relay {
	uint32_t *word;
	uint32_t seen;
	int eventfd;
};

/* A change between the look and the sleep is no loss: futex(2) compares again. */
static void *relay(void *argument)
{
	struct relay *to = argument;
	const uint64_t one = 1;

	for (;;) {
		uint32_t now = __atomic_load_n(to->word, __ATOMIC_ACQUIRE);

		if (now != to->seen) {
			to->seen = now;
			/* EAGAIN: it is rung already, as often as it can count. */
			if (write(to->eventfd, &one, sizeof(one)) < 0 && errno != EAGAIN && errno != EINTR)
				break;
		} else {
			tc_futex_wait(to->word, now, -1);
		}
	}
	free(to);
	return NULL;
}

/*
 * Write to an eventfd whenever a word changes from seen, in a thread that takes no signals and
 * lives as long as the process. Returns 0 or an errno.
 */
int tc_futex_relay(uint32_t *word, uint32_t seen, int eventfd)
{
	struct relay *to = malloc(sizeof(*to));
	sigset_t all, before;
	pthread_attr_t attributes;
	pthread_t thread;
	int error;

	if (!to)
		return ENOMEM;
	*to = (struct relay){ word, seen, eventfd };
	error = pthread_attr_init(&attributes);
	if (error)
		goto out;
	pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	error = pthread_create(&thread, &attributes, relay, to);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	pthread_attr_destroy(&attributes);
out:
	if (error)
		free(to);
	return error;
}
