/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Bins: blocks that NumPy has freed, kept with their frames for the next block of their size, as
 * malloc(3) keeps what it was given back. The filter looks here before it enters Python.
 *
 * To the books of the memory (live/regions.py) such a block is allocated still. To the pager it is
 * freed lazily (madvise(2), MADV_FREE): its row of the column lazyfree says so, and reclaim takes
 * its frames first, without writing them anywhere: its bytes are not wanted. The pager looks at
 * the row again when it has stopped the writers of the frames, so a block that is taken meanwhile
 * keeps what its next owner writes (protocol/lazyfree.py).
 *
 * A block is kept if the next owner can use it as it is: nothing of it is in a lower node, pinned,
 * poisoned or advised on, it was made from no file, and no process was forked since it was made.
 *
 * NumPy does not always hold the GIL, so there is a lock. Who finds it taken enters Python instead.
 * A forked child finds zeros here (MADV_WIPEONFORK): no bins, no lock. Its parent's blocks are
 * neither kept nor taken there. What is open stays mapped, so a look that comes late finds that
 * it is closed.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <sched.h>
#include <string.h>
#include <sys/mman.h>

#include "page.h"
#include "thermocline.h"

#define MEMORIES 64 /* with bins at once; further ones have none */

/* Entries that name no slot, and frames in DRAM if any. */
#define EMPTY tc_entry(TC_EMPTY, 0, 0)
#define PARTIAL tc_entry(TC_PARTIAL, 0, 0)
#define RESIDENT tc_entry(TC_RESIDENT, TC_DRAM, 0)

#define READ_ONCE(word) __atomic_load_n(&(word), __ATOMIC_RELAXED)

struct block {
	uint32_t first; /* page */
	uint32_t pages;
};

struct tc_bins {
	uint32_t lock;
	uint32_t open;
	uint32_t group; /* that blocks are taken for */
	uint32_t stopped; /* the memory is being closed: nothing is kept or taken */
	uint32_t refused; /* a block was not kept because others are */
	uint32_t number; /* of the block kept last */
	uint32_t count;
	uint64_t pages; /* of all kept blocks */
	struct tc_binned is;
	struct block blocks[TC_BINNED]; /* the one kept last is the last */
};

static struct tc_bins *all;

/* -- the lock --------------------------------------------------------------------------------- */

static bool try_lock(struct tc_bins *bins)
{
	return !__atomic_exchange_n(&bins->lock, 1, __ATOMIC_ACQUIRE);
}

/* It is held for a few instructions, and while no Python can run. */
static void lock(struct tc_bins *bins)
{
	while (!try_lock(bins))
		sched_yield();
}

static void unlock(struct tc_bins *bins)
{
	__atomic_store_n(&bins->lock, 0, __ATOMIC_RELEASE);
}

/* -- blocks ----------------------------------------------------------------------------------- */

static uint64_t entry_of(const struct tc_bins *bins, uint64_t page)
{
	return __atomic_load_n(&bins->is.entry[page], __ATOMIC_ACQUIRE);
}

/* Whether the next owner can use a block as it is. */
static bool is_fit(const struct tc_bins *bins, struct block block)
{
	const struct tc_binned *is = &bins->is;
	uint64_t page, entry;

	if (is->region_source[block.first] || is->region_shared[block.first] ||
	    is->region_advice[block.first] != TC_NORMAL)
		return false;
	/* A child may look at it, or is owed what would be written to it. */
	if (is->region_born[block.first] != __atomic_load_n(is->forks, __ATOMIC_ACQUIRE))
		return false;
	/* A touch of a poisoned page is a SIGBUS for ever, whatever its entry says. */
	if (READ_ONCE(*is->poisons))
		return false;
	for (page = block.first; page < (uint64_t)block.first + block.pages; page++) {
		entry = entry_of(bins, page);
		if ((entry != EMPTY && entry != PARTIAL && entry != RESIDENT) || is->pins[page])
			return false;
	}
	return true;
}

/* Write what the pager reads, and what is counted. */
static void publish(const struct tc_bins *bins, uint32_t from)
{
	uint32_t index;

	for (index = from; index < TC_BINNED; index++) {
		uint32_t number = index < bins->count ? bins->blocks[index].first + 1 : 0;

		if (!number && !bins->is.list[index])
			break;
		__atomic_store_n(&bins->is.list[index], number, __ATOMIC_RELEASE);
	}
	*bins->is.kept_blocks = bins->count;
	*bins->is.kept_bytes = bins->pages * bins->is.page_size;
}

/* From now on the pager takes no frame of it, once it has looked again. */
static struct block remove_at(struct tc_bins *bins, uint32_t index)
{
	struct block block = bins->blocks[index];

	bins->count--;
	bins->pages -= block.pages;
	memmove(&bins->blocks[index], &bins->blocks[index + 1],
		(bins->count - index) * sizeof(block));
	__atomic_exchange_n(&bins->is.lazyfree[block.first], 0, __ATOMIC_SEQ_CST);
	publish(bins, index);
	return block;
}

/* Have the pager look now and then whether what is kept is of use. */
static void have_watched(struct tc_bins *bins)
{
	int error = errno;
	uint64_t number;

	if (!__atomic_exchange_n(bins->is.watched, 1, __ATOMIC_SEQ_CST) &&
	    !tc_ring_submit(bins->is.ring, bins->is.request, 0, 0, &number))
		__atomic_store_n(bins->is.watched, 0, __ATOMIC_SEQ_CST);
	errno = error;
}

static bool keep(struct tc_bins *bins, uint64_t first)
{
	struct block block = { .first = (uint32_t)first, .pages = bins->is.region_pages[first] };

	if (bins->stopped || !block.pages || block.pages > bins->is.most_pages ||
	    !is_fit(bins, block))
		return false;
	if (bins->count == TC_BINNED || bins->pages + block.pages > bins->is.most_pages) {
		bins->refused = 1;
		return false;
	}
	if (!++bins->number)
		bins->number = 1;
	bins->blocks[bins->count++] = block;
	bins->pages += block.pages;
	__atomic_store_n(&bins->is.lazyfree[first], bins->number, __ATOMIC_SEQ_CST);
	publish(bins, bins->count - 1);
	have_watched(bins);
	return true;
}

/*
 * The youngest block of a size, if it can be used; one that has frames, or has none, is preferred
 * as it begins. Returns its index, or -1.
 */
static int find(const struct tc_bins *bins, uint64_t pages, bool with_frames)
{
	int index, found = -1;

	for (index = (int)bins->count - 1; index >= 0; index--) {
		struct block block = bins->blocks[index];

		if (block.pages != pages || bins->is.region_group[block.first] != bins->group ||
		    !is_fit(bins, block))
			continue;
		if ((entry_of(bins, block.first) != EMPTY) == with_frames)
			return index;
		if (found < 0)
			found = index;
	}
	return found;
}

/* -- what the filter asks --------------------------------------------------------------------- */

/* Keep the block at an address, which NumPy has freed. Returns false, and it is as it was, if not. */
bool tc_bins_keep(const void *address)
{
	struct tc_bins *bins = __atomic_load_n(&all, __ATOMIC_ACQUIRE);
	uint64_t offset = 0;
	bool kept;
	int index;

	for (index = 0; bins && index < MEMORIES; index++, bins++) {
		offset = (uint64_t)(uintptr_t)address - READ_ONCE(bins->is.address);
		if (READ_ONCE(bins->open) && offset < READ_ONCE(bins->is.size))
			break;
	}
	if (!bins || index == MEMORIES || !try_lock(bins))
		return false;
	offset = (uint64_t)(uintptr_t)address - bins->is.address;
	kept = bins->open && offset < bins->is.size && keep(bins, offset / bins->is.page_size);
	unlock(bins);
	return kept;
}

/*
 * A kept block for so many bytes, or NULL. If it is to be cleared it holds zeros: of a page whose
 * entry is EMPTY there is nothing in memory, so it comes up as zeros. (The pager punches the hole
 * first, and then writes the entry.)
 */
void *tc_bins_take(struct tc_bins *bins, size_t bytes, bool clear)
{
	struct block block = { .pages = 0 };
	uint64_t size = 0, page;
	char *address = NULL;
	int index = -1;

	if (!bins || !READ_ONCE(bins->count) || !try_lock(bins))
		return NULL;
	if (bins->open && !bins->stopped && bytes <= bins->pages * bins->is.page_size) {
		size = bins->is.page_size;
		index = find(bins, bytes ? (bytes + size - 1) / size : 1, !clear);
	}
	if (index >= 0) {
		block = remove_at(bins, (uint32_t)index);
		address = (char *)(uintptr_t)(bins->is.address + block.first * size);
		++*bins->is.reused;
	}
	/* The tables outlive the lock: the memory is not closed while one of its blocks is used. */
	unlock(bins);
	for (page = 0; clear && page < block.pages; page++)
		if (entry_of(bins, block.first + page) != EMPTY)
			memset(address + page * size, 0, size);
	return address;
}

/* -- what the memory asks --------------------------------------------------------------------- */

static struct tc_bins *map_all(void)
{
	size_t size = sizeof(*all) * MEMORIES;
	struct tc_bins *mapped, *expected = NULL;

	mapped = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (mapped == MAP_FAILED)
		return NULL;
	if (madvise(mapped, size, MADV_WIPEONFORK) ||
	    !__atomic_compare_exchange_n(&all, &expected, mapped, false, __ATOMIC_ACQ_REL,
					 __ATOMIC_ACQUIRE)) {
		munmap(mapped, size);
		return expected;
	}
	return mapped;
}

/*
 * Bins for a memory. *opened is written before they can be found open: so the caller has what is to
 * be closed. It stays as it is if there is no room for them.
 */
void tc_bins_open(const struct tc_binned *binned, struct tc_bins **opened)
{
	struct tc_bins *bins = __atomic_load_n(&all, __ATOMIC_ACQUIRE);
	int index;

	if (!bins)
		bins = map_all();
	for (index = 0; bins && index < MEMORIES; index++, bins++) {
		if (!try_lock(bins))
			continue;
		if (!bins->open) {
			memset(&bins->group, 0, sizeof(*bins) - offsetof(struct tc_bins, group));
			bins->is = *binned;
			*opened = bins;
			__atomic_store_n(&bins->open, 1, __ATOMIC_RELEASE);
			unlock(bins);
			return;
		}
		unlock(bins);
	}
}

/* From now on blocks are taken for this group. */
void tc_bins_charge(struct tc_bins *bins, uint32_t group)
{
	lock(bins);
	bins->group = group;
	unlock(bins);
}

/* Nothing is kept or taken any more; what is kept can be given up. */
void tc_bins_stop(struct tc_bins *bins)
{
	lock(bins);
	bins->stopped = 1;
	unlock(bins);
}

/* Nothing is kept or taken any more, and the tables are not looked at. Doing it again is nothing. */
void tc_bins_close(struct tc_bins *bins)
{
	lock(bins);
	__atomic_store_n(&bins->open, 0, __ATOMIC_RELEASE);
	bins->count = 0;
	unlock(bins);
}

/* Python's integer for the address of a block is added to a list. False, with an exception, if not. */
static bool add_to(void *list, uint64_t address)
{
	void *integer = tc_python.Py_BuildValue("K", (unsigned long long)address);
	bool added;

	if (!integer)
		return false;
	added = !tc_python.PyList_Append(list, integer);
	tc_python.Py_DecRef(integer);
	return added;
}

/*
 * Add the addresses of blocks to a list, from which they are freed: of all that are kept, or of
 * those that cannot be used any more, and if there was no room for a block, of the older half. No
 * exception of Python's comes between, and a block is in one place or in the other. The caller has
 * the GIL. Returns how many; an exception is pending if memory has run out.
 */
uint32_t tc_bins_give_up(struct tc_bins *bins, void *list, uint32_t everything)
{
	uint32_t index = 0, given = 0;
	uint64_t spare;

	lock(bins);
	if (!bins->open) {
		unlock(bins);
		return 0;
	}
	spare = bins->refused ? bins->pages / 2 : bins->pages;
	bins->refused = 0;
	while (index < bins->count) {
		struct block block = bins->blocks[index];

		if (!everything && bins->pages <= spare && is_fit(bins, block)) {
			index++;
			continue;
		}
		if (!add_to(list, bins->is.address + block.first * bins->is.page_size))
			break;
		remove_at(bins, index);
		given++;
	}
	unlock(bins);
	return given;
}

#define FIELD(member) TC_FIELD(struct tc_binned, member)

const struct tc_field tc_binned_fields[] = {
	FIELD(address),	    FIELD(size),	 FIELD(page_size),     FIELD(most_pages),
	FIELD(entry),	    FIELD(pins),	 FIELD(lazyfree),      FIELD(region_pages),
	FIELD(region_source), FIELD(region_group), FIELD(region_advice), FIELD(region_born),
	FIELD(region_shared), FIELD(list),	 FIELD(kept_blocks),   FIELD(kept_bytes),
	FIELD(reused),	    FIELD(watched),	 FIELD(poisons),       FIELD(forks),
	FIELD(ring),	    FIELD(request),	 TC_END(struct tc_binned),
};
