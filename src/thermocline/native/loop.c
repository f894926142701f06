/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The pager's wait: it sleeps until there is news on one of its descriptors, and answers the faults
 * that take the straight line without coming back to Python.
 *
 * Before it sleeps it looks again for a while, because to be woken takes longer than a miss. As
 * KVM's halt polling does (Documentation/virt/kvm/halt-polling.rst), it looks the longer the more
 * often that pays, and not at all where faults are rare.
 */
#include <errno.h>
#include <sys/epoll.h>
#include <time.h>
#include <unistd.h>

#include "pager.h"

#define SECOND UINT64_C(1000000000)
#define FIRST_POLL UINT64_C(5000) /* ns */
#define SHORT_SLEEP 4		  /* times the longest poll */

/* A message of a userfaultfd (ioctl_userfaultfd(2)). */
struct message {
	uint8_t event;
	uint8_t reserved[7];
	uint64_t flags;
	uint64_t address;
	uint64_t thread;
};

#define EVENT_PAGEFAULT 0x12
#define FLAG_WRITE 1

static uint64_t now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return (uint64_t)time.tv_sec * SECOND + (uint64_t)time.tv_nsec;
}

/* class_of() of protocol/histogram.py. */
#define SUB 8
#define CLASSES (SUB * 40)

static void note_time(uint64_t *histogram, uint64_t nanoseconds)
{
	uint64_t octave = nanoseconds < 16 ? 3 : 63 - (uint64_t)__builtin_clzll(nanoseconds);
	uint64_t index = (octave - 3) * SUB + (nanoseconds >> (octave - 3) & 7);

	histogram[index < CLASSES ? index : CLASSES - 1]++;
	histogram[CLASSES] += nanoseconds;
	if (nanoseconds > histogram[CLASSES + 1])
		histogram[CLASSES + 1] = nanoseconds;
}

/* Answer the faults that wait, and write down those that are Python's -> whether there were any. */
static bool take_faults(struct tc_loop *loop)
{
	struct tc_mm *mm = loop->mm;
	struct message messages[TC_DECLINES];
	ssize_t size = read(mm->uffd, messages,
			    (TC_DECLINES - loop->declined_count) * sizeof(messages[0]));
	uint64_t since;

	if (size <= 0)
		return false;
	since = now();
	for (size_t i = 0; i < (size_t)size / sizeof(messages[0]); i++) {
		const struct message *message = &messages[i];
		uint64_t at = message->address - mm->address;
		bool write = message->flags & FLAG_WRITE;
		uint32_t part, parts = 0;

		if (message->event != EVENT_PAGEFAULT)
			continue;
		part = (uint32_t)(at % mm->page_size / (mm->page_size / mm->parts));
		/* What follows the last one goes first: it may say more of this one. */
		if (!mm->follows &&
		    tc_serve(mm, at / mm->page_size, part, write, &parts) == TC_SERVED)
			note_time(mm->fault_times, now() - since);
		else
			loop->declined[loop->declined_count++] =
				(struct tc_declined){ message->address, since, write, parts };
	}
	return true;
}

/* Look once -> the number of events, or -1 and errno. */
static int look(struct tc_loop *loop, int timeout)
{
	struct epoll_event events[TC_READY];
	int count = epoll_wait(loop->epoll, events, TC_READY, timeout);

	for (int i = 0; i < count; i++) {
		bool is_ours = loop->serves && events[i].data.fd == loop->mm->uffd;

		if (!is_ours || !take_faults(loop))
			loop->ready[loop->ready_count++] = events[i].data.fd;
	}
	return count;
}

/* Whether Python is wanted at once. */
static bool has_news(const struct tc_loop *loop)
{
	return loop->ready_count || loop->declined_count || loop->mm->dram_is_low || loop->mm->follows ||
	       loop->mm->released_count >= TC_RELEASED / 2;
}

static void grow(struct tc_loop *loop)
{
	loop->poll = loop->poll ? 2 * loop->poll : FIRST_POLL;
	if (loop->poll > loop->longest_poll)
		loop->poll = loop->longest_poll;
}

static void shrink(struct tc_loop *loop)
{
	loop->poll = loop->poll > FIRST_POLL ? loop->poll / 2 : 0;
}

/* Look again and again for a while -> as look(). */
static int poll(struct tc_loop *loop, uint64_t deadline)
{
	uint64_t until = now() + loop->poll;
	int count;

	if (!loop->poll)
		return 0;
	if (until > deadline)
		until = deadline;
	++*loop->mm->count.fault_polls;
	do {
		count = look(loop, 0);
		if (count) {
			++*loop->mm->count.fault_polled;
			grow(loop);
			return count;
		}
	} while (now() < until);
	shrink(loop);
	return 0;
}

static int sleep_until(struct tc_loop *loop, uint64_t deadline)
{
	uint64_t begun = now();
	int timeout = -1, count;

	if (deadline != UINT64_MAX) /* rounded up: a deadline that is near would be polled for */
		timeout = deadline > begun ? (int)((deadline - begun + 999999) / 1000000) : 0;
	count = look(loop, timeout);
	/* To be woken takes a part of that, which a fault that is polled for does not wait for. */
	if (count > 0 && now() - begun < SHORT_SLEEP * loop->longest_poll)
		grow(loop);
	return count;
}

int tc_loop_run(struct tc_loop *loop, int64_t nanoseconds)
{
	uint64_t deadline = nanoseconds < 0 ? UINT64_MAX : now() + (uint64_t)nanoseconds;
	int count;

	loop->ready_count = loop->declined_count = 0;
	count = look(loop, 0);
	while (count >= 0 && !has_news(loop) && now() < deadline) {
		count = poll(loop, deadline);
		if (count)
			continue;
		if (loop->mm->released_count)
			return 0; /* before it sleeps, slots are given back */
		count = sleep_until(loop, deadline);
	}
	return count < 0 && errno != EINTR ? errno : 0;
}

#define FIELD(type, member) TC_FIELD(struct type, member)

const struct tc_field tc_loop_fields[] = {
	FIELD(tc_loop, mm),
	FIELD(tc_loop, epoll),
	FIELD(tc_loop, serves),
	FIELD(tc_loop, longest_poll),
	FIELD(tc_loop, poll),
	FIELD(tc_loop, ready_count),
	FIELD(tc_loop, declined_count),
	FIELD(tc_loop, ready),
	FIELD(tc_loop, declined),
	TC_END(struct tc_loop),
};
