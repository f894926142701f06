/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A thread that touches pages and times every touch. It needs no GIL while it runs, so a touch that
 * waits for its page delays no other thread, and no other thread lengthens a touch.
 */
#include <errno.h>
#include <stdbool.h>
#include <time.h>

#include "thermocline.h"

#define NSEC_PER_SEC 1000000000

static void sleep_for(const struct tc_probe *probe, uint64_t nanoseconds)
{
	struct timespec pause = { nanoseconds / NSEC_PER_SEC, nanoseconds % NSEC_PER_SEC };

	/* A signal ends the sleep early, and what is left of it takes the place of pause. */
	while (probe->sleep(CLOCK_MONOTONIC, 0, &pause, &pause) == EINTR)
		;
}

static uint32_t between(const struct timespec *before, const struct timespec *after)
{
	int64_t took = (int64_t)(after->tv_sec - before->tv_sec) * NSEC_PER_SEC +
		       (after->tv_nsec - before->tv_nsec);

	return (uint64_t)took > UINT32_MAX ? UINT32_MAX : took;
}

/*
 * Makes the touches in order, until they are done or probe->stop is set.
 *
 * Between the two looks at the clock there is the touch and nothing else: what it takes is fetched
 * before, and what comes of it is stored afterwards.
 */
void tc_probe(struct tc_probe *probe)
{
	int (*const get_time)(clockid_t, struct timespec *) = probe->get_time;

	for (uint64_t touch = 0; touch < probe->count; touch++) {
		struct timespec before, after;
		uint64_t last, found, expected;
		volatile uint64_t *word;
		uint32_t access;
		bool writes;
		size_t page;

		if (probe->think)
			sleep_for(probe, probe->think);
		if (__atomic_load_n(&probe->stop, __ATOMIC_RELAXED))
			return;

		access = probe->accesses[touch];
		writes = access & 1;
		page = access >> 1;
		word = (volatile uint64_t *)(probe->words + (page << probe->page_shift));
		last = probe->shadow[page];
		expected = last + writes;

		get_time(CLOCK_MONOTONIC, &before);
		if (writes) {
			*word = expected;
			found = expected;
		} else {
			found = *word;
		}
		get_time(CLOCK_MONOTONIC, &after);

		probe->shadow[page] = expected;
		probe->mismatches += found != expected;
		probe->nanoseconds[touch] = between(&before, &after);
		probe->done = touch + 1;
	}
}

#define FIELD(member) TC_FIELD(struct tc_probe, member)

const struct tc_field tc_probe_fields[] = {
	FIELD(words),
	FIELD(page_shift),
	FIELD(accesses),
	FIELD(count),
	FIELD(shadow),
	FIELD(nanoseconds),
	FIELD(think),
	FIELD(get_time),
	FIELD(sleep),
	FIELD(stop),
	FIELD(done),
	FIELD(mismatches),
	TC_END(struct tc_probe),
};
