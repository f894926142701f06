/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Making a request to the pager (thermocline/live/ring.py): its entry, its number and the bell, in
 * one step, so that no exception comes between them. The number is written where the program looks
 * for it: a request that was made has one, and its block, or whatever it is about, is known by it.
 */
#include "thermocline.h"

#include <sched.h>

/* Words of an entry. */
#define WHAT 0
#define FIRST 1
#define SECOND 2
#define ANSWER 3

#define PENDING 0

/* The lower half of the head, which the kernel compares (futex(2)). */
static uint32_t *bell(const struct tc_ring *ring)
{
	uint32_t *halves = (uint32_t *)ring->head;

	return __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__ ? halves + 1 : halves;
}

/* Returns false, and changes nothing, if the entry that is next has no answer yet. */
bool tc_ring_submit(struct tc_ring *ring, uint64_t what, uint64_t first, uint64_t second,
		    uint64_t *number)
{
	uint64_t head, *entry;
	bool is_free;

	/* Threads that hold no GIL in common, for a few instructions. */
	while (__atomic_exchange_n(&ring->lock, 1, __ATOMIC_ACQUIRE))
		sched_yield();
	head = *ring->head;
	entry = ring->words + head % ring->entries * ring->entry_words;
	is_free = head < ring->entries || __atomic_load_n(&entry[ANSWER], __ATOMIC_ACQUIRE) != PENDING;
	if (is_free) {
		entry[WHAT] = what;
		entry[FIRST] = first;
		entry[SECOND] = second;
		entry[ANSWER] = PENDING;
		*number = head;
		__atomic_store_n(ring->head, head + 1, __ATOMIC_RELEASE);
	}
	__atomic_store_n(&ring->lock, 0, __ATOMIC_RELEASE);
	if (is_free)
		tc_futex_wake(bell(ring));
	return is_free;
}

#define FIELD(member) TC_FIELD(struct tc_ring, member)

const struct tc_field tc_ring_fields[] = {
	FIELD(words), FIELD(head), FIELD(entries), FIELD(entry_words), FIELD(lock), TC_END(struct tc_ring),
};
