/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Dropping clean pages as a list: what shrink_node() of protocol/reclaim.py does to each page of it
 * that verdict_on() finds clean. What is anything else is left to it.
 *
 * The frames are punched between the two halves, by any thread: meanwhile the pages are locked, and
 * a fault on one of them waits.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>

#include "pager.h"

#define AGES UINT64_C(0xFFFFFFFF) /* lru.py */

/* verdict_on(): Verdict.CLEAN, of a page that its array's file has no part in. */
static bool is_clean(const struct tc_mm *mm, uint32_t page)
{
	uint64_t entry = mm->entry[page];
	enum tc_state state = tc_state_of(entry);
	uint32_t node = tc_node_of(entry);

	if (state != TC_SHADOWED && (state != TC_PARTIAL || !node || mm->dirty[page]))
		return false;
	return !mm->locked[page] && !mm->list_of[page] && !mm->pins[page] && !mm->referenced[page] &&
	       !mm->nodes[node].failed && !mm->nodes[node].is_source;
}

size_t tc_drop_begin(struct tc_mm *mm, uint64_t *counter, uint32_t *pages, uint32_t *left,
		     size_t count)
{
	size_t dropped = 0, others = 0;

	for (size_t i = 0; i < count; i++) {
		uint32_t page = pages[i];
		uint64_t entry = mm->entry[page], *age;
		uint32_t node = tc_node_of(entry);
		struct tc_group *group = &mm->groups[tc_group_of(mm, page)];

		if (!is_clean(mm, page) || !group->inactive[node]) {
			left[others++] = page;
			continue;
		}
		mm->locked[page] = 1;
		tc_shadow_discard(mm, node, page);
		tc_commit(mm, page, TC_SLOTTED, node, tc_slot_of(entry));
		age = &mm->ages[group->inactive[TC_DRAM]];
		mm->evicted_at[page] = (uint32_t)(*age % AGES + 1);
		++*age;
		++*counter;
		pages[dropped++] = page;
	}
	return dropped;
}

size_t tc_drop_end(struct tc_mm *mm, uint32_t *pages, size_t count)
{
	uint64_t part_size = mm->page_size / mm->parts;
	size_t waited_for = 0;

	for (size_t i = 0; i < count; i++) {
		uint32_t page = pages[i], node = tc_node_of(mm->entry[page]);
		struct tc_group *group = &mm->groups[tc_group_of(mm, page)];
		uint64_t size = (uint64_t)__builtin_popcount(mm->present[page]) * part_size;

		mm->nodes[TC_DRAM].used -= size;
		group->used[TC_DRAM] -= size;
		group->memory -= size;
		mm->present[page] = 0;
		mm->dirty[page] = 0;
		tc_list_add(mm, group->inactive[node], page);
		if (!tc_unlock(mm, page))
			pages[waited_for++] = page;
	}
	return waited_for;
}

int tc_punch(int arena, uint64_t page_size, const uint32_t *pages, size_t count)
{
	for (size_t first = 0, end; first < count; first = end) {
		for (end = first + 1; end < count && pages[end] == pages[end - 1] + 1;)
			end++;
		while (fallocate(arena, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
				 (off_t)(pages[first] * page_size),
				 (off_t)((end - first) * page_size)))
			if (errno != EINTR)
				return errno;
	}
	return 0;
}
