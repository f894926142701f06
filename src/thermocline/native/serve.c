/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The straight line of a miss: what fault() of protocol/fault.py does where it has to wait for
 * nothing, and nothing is out of the ordinary. That generator is the reference: whatever is served
 * here leaves the columns as it would, with the same stores in the same order, and whatever is not
 * is left to it. Each function names the one that it stands for.
 *
 * What makes a page ordinary is policy, and Python's: it is in the columns (a region's advice, and
 * the row of its stream), and a page that they say more of than "a touch like any other" is
 * declined.
 */
#include <signal.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "pager.h"

#define MAX_STRIDE 64 /* readahead.py */
#define MARKED 8      /* readahead.py */
#define SLACK 8
#define ST_BLOCK 512  /* stat(2) */

/* A store that outlives the pager was made. Commits are seen in order by a successor. */
static inline void stored(struct tc_mm *mm)
{
	if (mm->kill_in && !--mm->kill_in)
		kill(getpid(), SIGKILL);
}

void tc_commit(struct tc_mm *mm, uint64_t page, enum tc_state state, uint32_t node,
		   uint64_t slot)
{
	__atomic_store_n(&mm->entry[page], tc_entry(state, node, slot), __ATOMIC_RELEASE);
	stored(mm);
}

static void release(struct tc_mm *mm, uint32_t node, uint64_t slot, uint32_t group)
{
	if (!mm->nodes[node].is_source)
		mm->released[mm->released_count++] = (struct tc_released){ slot, node, group };
}

/* -- lists (lru.py, shadows.py) -- */

static void link_first(uint32_t *next, uint32_t *previous, uint32_t head, uint32_t link)
{
	uint32_t first = next[head];

	next[head] = previous[first] = link;
	previous[link] = head;
	next[link] = first;
}

static void unlink_from(uint32_t *next, uint32_t *previous, uint32_t link)
{
	uint32_t before = previous[link], after = next[link];

	next[before] = after;
	previous[after] = before;
}

static void list_remove(struct tc_mm *mm, uint64_t page)
{
	unlink_from(mm->next, mm->previous, (uint32_t)page + 1);
	mm->counts[mm->list_of[page]]--;
	mm->list_of[page] = 0;
}

void tc_list_add(struct tc_mm *mm, uint32_t list, uint64_t page)
{
	link_first(mm->next, mm->previous, (uint32_t)mm->pages + list, (uint32_t)page + 1);
	mm->list_of[page] = (uint16_t)list;
	mm->counts[list]++;
}

static void shadow_add(struct tc_mm *mm, uint32_t node, uint64_t page)
{
	link_first(mm->shadow_next, mm->shadow_previous, (uint32_t)mm->pages + 1 + node,
		   (uint32_t)page + 1);
	mm->shadow_counts[node]++;
}

void tc_shadow_discard(struct tc_mm *mm, uint32_t node, uint64_t page)
{
	uint32_t link = (uint32_t)page + 1;

	if (!mm->shadow_next[link])
		return;
	unlink_from(mm->shadow_next, mm->shadow_previous, link);
	mm->shadow_next[link] = mm->shadow_previous[link] = 0;
	mm->shadow_counts[node]--;
}

/* -- what the columns say of a miss (readahead.py) -- */

/* _goes_on() */
static bool goes_on_at(const struct tc_reader *reader, int64_t page)
{
	int64_t distance = page - reader->last, steps;

	if (reader->window < MARKED)
		return reader->expected == page;
	if (distance % reader->stride)
		return false;
	steps = distance / reader->stride;
	return steps > 0 && steps <= (reader->behind - reader->last) / reader->stride + SLACK;
}

static bool expects(const struct tc_stream *stream, int64_t page)
{
	for (int64_t i = 0; i < stream->reader_count; i++)
		if (goes_on_at(&stream->readers[i], page))
			return true;
	return false;
}

/* Whether a miss in whole pages belongs to no stream, and is not the second of one: see window(). */
static bool misses_alone(const struct tc_stream *stream, int64_t page)
{
	if (expects(stream, page))
		return false;
	for (int64_t i = 0; i < stream->reader_count; i++) {
		int64_t stride = page - stream->readers[i].last;

		if (!stream->readers[i].window && stride && stride <= MAX_STRIDE &&
		    stride >= -MAX_STRIDE)
			return false;
	}
	return true;
}

static void note_reader(struct tc_stream *stream, int64_t page)
{
	if (stream->reader_count < TC_READERS)
		stream->reader_count++;
	memmove(&stream->readers[1], &stream->readers[0],
		(size_t)(stream->reader_count - 1) * sizeof(stream->readers[0]));
	stream->readers[0] = (struct tc_reader){ page, 1, page + 1, 0, page + 1 };
}

/* Whether a miss is next to those that parts were brought up for: run() says how many more. */
static bool continues_run(const struct tc_stream *stream, int64_t miss)
{
	for (int64_t i = 0; i < stream->run_count; i++)
		if (stream->runs[i].end == miss || stream->runs[i].first - 1 == miss)
			return true;
	return false;
}

/* Whether another part of a page was missed soon before. */
static bool was_missed(const struct tc_stream *stream, int64_t page)
{
	for (int i = 0; i < TC_RECENT; i++)
		if (stream->missed[i] == page + 1)
			return true;
	return false;
}

static void note_part(struct tc_stream *stream, int64_t page, int64_t miss)
{
	stream->missed[stream->missed_count++ % TC_RECENT] = page + 1;
	if (stream->run_count < TC_READERS)
		stream->run_count++;
	memmove(&stream->runs[1], &stream->runs[0],
		(size_t)(stream->run_count - 1) * sizeof(stream->runs[0]));
	stream->runs[0] = (struct tc_run){ miss, miss + 1 };
}

/* -- room (node.py, group.py) -- */

/* allocate_frame(), where there is room. */
static bool has_room(const struct tc_mm *mm, const struct tc_group *group, uint64_t size)
{
	const struct tc_node *dram = &mm->nodes[TC_DRAM];

	if (group->dram_limit != TC_NO_LIMIT && group->used[TC_DRAM] + size > group->dram_limit)
		return false;
	if (group->memory_limit != TC_NO_LIMIT && group->memory + size > group->memory_limit)
		return false;
	return dram->used + size + dram->reserve <= dram->capacity && !dram->failed;
}

static void charge(struct tc_mm *mm, struct tc_group *group, uint64_t size)
{
	struct tc_node *dram = &mm->nodes[TC_DRAM];

	dram->used += size;
	if (dram->used > dram->peak)
		dram->peak = dram->used;
	group->used[TC_DRAM] += size;
	group->memory += size;
	if (group->used[TC_DRAM] > group->peak_dram)
		group->peak_dram = group->used[TC_DRAM];
}

static bool is_below_low(const struct tc_node *node)
{
	return node->used > node->capacity || node->capacity - node->used < node->low;
}

static void note_resident(struct tc_mm *mm)
{
	struct stat status;
	uint64_t resident;

	if (mm->nodes[TC_DRAM].used <= *mm->peak_resident || fstat(mm->arena, &status))
		return;
	resident = (uint64_t)status.st_blocks * ST_BLOCK;
	if (resident > *mm->peak_resident)
		*mm->peak_resident = resident;
}

/* -- a page that is there (_present()) -- */

static enum tc_outcome present(struct tc_mm *mm, uint64_t page, uint32_t group, bool write)
{
	uint64_t at = mm->address + page * mm->page_size, entry = mm->entry[page];
	enum tc_state state = tc_state_of(entry);
	uint32_t node = tc_node_of(entry);

	if (write && state == TC_SHADOWED && mm->released_count == TC_RELEASED)
		return TC_DECLINED;
	if (!write) {
		if (tc_uffd_wake(mm->uffd, at, mm->page_size))
			return TC_DECLINED;
		mm->referenced[page] = 1;
		++*mm->count.pgfault;
		return TC_SERVED;
	}
	mm->referenced[page] = 1;
	mm->transit[page] = 0;
	if (state == TC_PARTIAL) {
		mm->dirty[page] = 1;
	} else if (state == TC_SHADOWED) {
		tc_shadow_discard(mm, node, page);
		tc_commit(mm, page, TC_RESIDENT, 0, 0);
		release(mm, node, tc_slot_of(entry), group);
		++*mm->count.shadow_dropped;
	}
	mm->stopped[page] = 0;
	if (tc_uffd_unprotect(mm->uffd, at, mm->page_size))
		return TC_DECLINED; /* in several mappings: all of this can be done again */
	stored(mm);
	++*mm->count.pgfault;
	++*mm->count.pgfault_write_protect;
	return TC_SERVED;
}

/* -- a page that is in compressed memory -- */

/* Make the missing parts of a page appear, or one of them, from the buffer -> 0 or an errno. */
static int install(struct tc_mm *mm, uint64_t page, uint32_t parts, bool protect)
{
	uint64_t part_size = mm->page_size / mm->parts, at = mm->address + page * mm->page_size;

	if (!protect)
		mm->stopped[page] = 0;
	for (uint32_t first = 0, end; first < mm->parts; first = end) {
		bool is_wanted = parts >> first & 1;
		int error;

		for (end = first + 1; end < mm->parts && (parts >> end & 1) == is_wanted;)
			end++;
		if (!is_wanted)
			continue;
		error = tc_uffd_copy(mm->uffd, at + first * part_size, mm->buffer + first * part_size,
				     (end - first) * part_size, protect);
		stored(mm);
		if (error)
			return error;
	}
	return 0;
}

/* _complete(): all of a page is in DRAM now. */
static void complete(struct tc_mm *mm, uint64_t page, uint32_t node, uint64_t slot, uint32_t group)
{
	const struct tc_node *below = &mm->nodes[node];

	if (!mm->dirty[page] && !is_below_low(below) && !below->failed) {
		tc_commit(mm, page, TC_SHADOWED, node, slot);
		shadow_add(mm, node, page);
		++*mm->count.shadow_kept;
	} else {
		tc_commit(mm, page, TC_RESIDENT, 0, 0);
		release(mm, node, slot, group);
	}
	mm->dirty[page] = 0;
}

/* _arrive(), of a page that was in compressed memory as a whole, as to the lists. */
static void join_lists(struct tc_mm *mm, uint64_t page, struct tc_group *group)
{
	uint32_t evicted = mm->evicted_at[page];
	uint64_t *age = &mm->ages[group->inactive[TC_DRAM]];
	bool hot = false;

	++*mm->count.pgpromote_success;
	if (evicted) {
		/* The ages wrap at 2^32 - 1, of which Python's remainder is never negative. */
		uint64_t distance = (*age % UINT32_MAX + UINT32_MAX - (evicted - 1)) % UINT32_MAX;

		++*mm->count.workingset_refault;
		hot = distance <= mm->counts[group->active[TC_DRAM]];
	}
	if (hot) {
		++*mm->count.workingset_activate;
		++*age;
	}
	if (mm->list_of[page])
		list_remove(mm, page);
	tc_list_add(mm, hot ? group->active[TC_DRAM] : group->inactive[TC_DRAM], page);
}

size_t tc_arrive(struct tc_mm *mm, const uint32_t *pages, const uint8_t *before, size_t count,
		 uint32_t *waited_for, size_t *waited_count)
{
	uint16_t all = (uint16_t)((1u << mm->parts) - 1);
	size_t done;

	*waited_count = 0;
	for (done = 0; done < count; done++) {
		uint32_t page = pages[done], group = tc_group_of(mm, page);
		uint64_t entry = mm->entry[page];
		uint32_t node = tc_node_of(entry);

		if (mm->nodes[node].is_source || mm->released_count == TC_RELEASED ||
		    !mm->groups[group].inactive[TC_DRAM])
			break;
		mm->present[page] = all;
		if (node) {
			complete(mm, page, node, tc_slot_of(entry), group);
		} else {
			tc_commit(mm, page, TC_RESIDENT, 0, 0);
			mm->dirty[page] = 0;
		}
		if (before[done] == TC_SLOTTED)
			join_lists(mm, page, &mm->groups[group]);
		else if (before[done] == TC_EMPTY)
			tc_list_add(mm, mm->groups[group].inactive[TC_DRAM], page);
		if (!tc_unlock(mm, page))
			waited_for[(*waited_count)++] = page;
	}
	return done;
}

static enum tc_outcome bring_up(struct tc_mm *mm, uint64_t page, uint32_t part, bool write,
			       uint32_t number, uint32_t *stuck)
{
	uint64_t entry = mm->entry[page], slot = tc_slot_of(entry);
	enum tc_state state = tc_state_of(entry);
	uint32_t node = tc_node_of(entry);
	uint32_t start = mm->region[page] - 1, all = (1u << mm->parts) - 1;
	uint32_t missing = all & ~(uint32_t)mm->present[page], parts = missing;
	uint64_t part_size = mm->page_size / mm->parts, size;
	int64_t miss = (int64_t)(page * mm->parts + part);
	struct tc_group *group = &mm->groups[number];
	struct tc_stream *stream = mm->streams + mm->stream_of[start] - 1;
	enum tc_advice advice = (enum tc_advice)mm->advice[start];
	bool in_parts = mm->parts > 1 && mm->nodes[node].reads_parts && advice != TC_SEQUENTIAL;
	bool in_stream, follows, writable, protect;

	/* What _wanted() and _windows() say of it. */
	if (in_parts && advice == TC_NORMAL) {
		if ((page == start && !part) || expects(stream, (int64_t)page))
			in_parts = false;
		else if (continues_run(stream, miss))
			return TC_DECLINED;
		else if (was_missed(stream, (int64_t)page))
			in_parts = false;
	}
	in_stream = !in_parts && advice != TC_RANDOM && (mm->readahead || advice == TC_NORMAL) &&
		    (mm->readahead || mm->parts > 1);
	follows = in_stream && (advice == TC_SEQUENTIAL || !misses_alone(stream, (int64_t)page));
	if (in_parts)
		parts = 1u << part;
	size = (uint64_t)__builtin_popcount(parts) * part_size;
	if (!has_room(mm, group, size) || mm->released_count == TC_RELEASED)
		return TC_DECLINED;

	*mm->note = (page + 1) << 1;
	if (tc_pool_read(mm->nodes[node].pool, slot, mm->buffer,
			 in_parts ? (uint32_t)(part * part_size) : 0,
			 (uint32_t)(in_parts ? part_size : mm->page_size))) {
		*mm->note = 0;
		return TC_DECLINED;
	}

	if (in_parts && advice == TC_NORMAL)
		note_part(stream, (int64_t)page, miss);
	if (follows) {
		mm->follows = true;
		mm->followed = page;
		mm->followed_write = write;
	} else if (in_stream) {
		note_reader(stream, (int64_t)page);
	}
	++*mm->count.pgfault;
	if (in_parts)
		++*mm->count.pgpartial;
	charge(mm, group, size);
	++*mm->count.pgalloc;
	if (is_below_low(&mm->nodes[TC_DRAM]))
		mm->dram_is_low = 1;
	++*mm->count.pgmajfault;

	/* fill() */
	writable = write || mm->dirty[page];
	protect = !writable;
	if (writable)
		mm->dirty[page] = 1;
	if (state == TC_PARTIAL)
		mm->transit[page] = 0;
	else
		tc_commit(mm, page, TC_PARTIAL, node, slot);
	if (install(mm, page, parts, protect)) {
		mm->locked[page] = 1;
		*stuck = parts;
		return TC_STUCK;
	}
	note_resident(mm);
	mm->present[page] |= (uint16_t)parts;
	if (mm->present[page] == all)
		complete(mm, page, node, slot, number);
	if (state == TC_SLOTTED)
		join_lists(mm, page, group);
	*mm->note = 0;
	return TC_SERVED;
}

enum tc_outcome tc_serve(struct tc_mm *mm, uint64_t page, uint32_t part, bool write, uint32_t *parts)
{
	uint64_t entry;
	uint32_t region, start, group, node;

	if (page >= mm->pages || mm->locked[page])
		return TC_DECLINED;
	region = mm->region[page];
	if (!region)
		return TC_DECLINED;
	start = region - 1;
	group = mm->group_of[start];
	if (mm->advice[start] > TC_RANDOM || !mm->stream_of[start] || !mm->groups[group].inactive[TC_DRAM])
		return TC_DECLINED;
	entry = mm->entry[page];
	node = tc_node_of(entry);
	switch (tc_state_of(entry)) {
	case TC_RESIDENT:
		return node == TC_DRAM ? present(mm, page, group, write) : TC_DECLINED;
	case TC_SHADOWED:
		return present(mm, page, group, write);
	case TC_PARTIAL:
		if (mm->present[page] >> part & 1)
			return present(mm, page, group, write);
		break;
	case TC_SLOTTED:
		break;
	default:
		return TC_DECLINED;
	}
	if (!node || !mm->nodes[node].pool)
		return TC_DECLINED;
	return bring_up(mm, page, part, write, group, parts);
}

#define FIELD(type, member) TC_FIELD(struct type, member)

const struct tc_field tc_node_fields[] = {
	FIELD(tc_node, capacity),
	FIELD(tc_node, used),
	FIELD(tc_node, peak),
	FIELD(tc_node, reserve),
	FIELD(tc_node, low),
	FIELD(tc_node, failed),
	FIELD(tc_node, reads_parts),
	FIELD(tc_node, is_source),
	FIELD(tc_node, pool),
	TC_END(struct tc_node),
};

const struct tc_field tc_group_fields[] = {
	FIELD(tc_group, dram_limit),
	FIELD(tc_group, memory_limit),
	FIELD(tc_group, used),
	FIELD(tc_group, memory),
	FIELD(tc_group, peak_dram),
	FIELD(tc_group, active),
	FIELD(tc_group, inactive),
	TC_END(struct tc_group),
};

const struct tc_field tc_mm_fields[] = {
	FIELD(tc_mm, entry),
	FIELD(tc_mm, region),
	FIELD(tc_mm, pins),
	FIELD(tc_mm, advice),
	FIELD(tc_mm, group_of),
	FIELD(tc_mm, fault_times),
	FIELD(tc_mm, present),
	FIELD(tc_mm, dirty),
	FIELD(tc_mm, referenced),
	FIELD(tc_mm, evicted_at),
	FIELD(tc_mm, transit),
	FIELD(tc_mm, list_of),
	FIELD(tc_mm, next),
	FIELD(tc_mm, previous),
	FIELD(tc_mm, counts),
	FIELD(tc_mm, ages),
	FIELD(tc_mm, shadow_next),
	FIELD(tc_mm, shadow_previous),
	FIELD(tc_mm, shadow_counts),
	FIELD(tc_mm, locked),
	FIELD(tc_mm, stopped),
	FIELD(tc_mm, stream_of),
	FIELD(tc_mm, streams),
	FIELD(tc_mm, nodes),
	FIELD(tc_mm, groups),
	FIELD(tc_mm, note),
	FIELD(tc_mm, peak_resident),
	FIELD(tc_mm, count.pgfault),
	FIELD(tc_mm, count.pgmajfault),
	FIELD(tc_mm, count.pgfault_write_protect),
	FIELD(tc_mm, count.pgalloc),
	FIELD(tc_mm, count.pgpartial),
	FIELD(tc_mm, count.pgpromote_success),
	FIELD(tc_mm, count.pgdemote_kswapd),
	FIELD(tc_mm, count.pgdemote_direct),
	FIELD(tc_mm, count.pgdemote_proactive),
	FIELD(tc_mm, count.shadow_kept),
	FIELD(tc_mm, count.shadow_dropped),
	FIELD(tc_mm, count.workingset_refault),
	FIELD(tc_mm, count.workingset_activate),
	FIELD(tc_mm, count.fault_polls),
	FIELD(tc_mm, count.fault_polled),
	FIELD(tc_mm, pages),
	FIELD(tc_mm, page_size),
	FIELD(tc_mm, address),
	FIELD(tc_mm, kill_in),
	FIELD(tc_mm, parts),
	FIELD(tc_mm, readahead),
	FIELD(tc_mm, arena),
	FIELD(tc_mm, uffd),
	FIELD(tc_mm, buffer),
	FIELD(tc_mm, released),
	FIELD(tc_mm, released_count),
	FIELD(tc_mm, dram_is_low),
	FIELD(tc_mm, follows),
	FIELD(tc_mm, followed_write),
	FIELD(tc_mm, followed),
	TC_END(struct tc_mm),
};
