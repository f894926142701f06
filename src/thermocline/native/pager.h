/* SPDX-License-Identifier: Apache-2.0 */
#ifndef THERMOCLINE_PAGER_H
#define THERMOCLINE_PAGER_H

/*
 * What a pager does in native code: the straight line of a miss, and the loop that waits for the
 * next one. Python decides all else; live/engine.py fills these structures, and what they point to
 * are the columns of protocol/ and of the shared tables.
 *
 * All of it runs in the pager's thread, while no protocol does: between two of their steps. So
 * nothing here takes a lock, and no task sees half of it.
 */

#include "page.h"
#include "thermocline.h"

/* protocol/readahead.py: a row of a region's stream. */
#define TC_READERS 8
#define TC_RECENT 32

struct tc_stream {
	int64_t reader_count;
	int64_t run_count;
	int64_t missed_count;
	struct tc_reader {
		int64_t last;
		int64_t stride;
		int64_t expected;
		int64_t window;
		int64_t behind;
	} readers[TC_READERS];
	struct tc_run {
		int64_t first;
		int64_t end;
	} runs[TC_READERS];
	int64_t missed[TC_RECENT]; /* each a page + 1 */
};

/* live/stores/pool.py and blosc.py: compressed memory, as it is read. */
struct tc_pool {
	const uint64_t *words;	/* the pool */
	const uint64_t *table;	/* three words for each slot */
	const uint64_t *ledger; /* for each slot the table's first word, as it was written */
	uint64_t slots;		/* the largest slot */
	uint64_t quanta;	/* of the pool */
	uint32_t quantum;	/* bytes */
	uint32_t page_size;	/* the most that an item has */
	uint32_t block;		/* bytes that are packed as one, at least */
	uint8_t *scratch;	/* page_size bytes, for an item in pieces */
	void *unpacker;		/* a blosc2_context */
	int (*decompress)(void *context, const void *source, int32_t length, void *target,
			  int32_t size);
	int (*get_items)(void *context, const void *source, int32_t length, int start, int items,
			 void *target, int32_t size);
};

TC_EXPORT extern const struct tc_field tc_pool_fields[];

/*
 * Read bytes of the item of a slot to their places in a page -> 0, or an errno: EBADMSG if they are
 * not those that were written. More of the page may be written to.
 */
TC_EXPORT int tc_pool_read(const struct tc_pool *pool, uint64_t slot, uint8_t *page, uint32_t begin,
			   uint32_t size);

/* digest.c: XXH64 (https://github.com/Cyan4973/xxHash, doc/xxhash_spec.md). */
TC_EXPORT uint64_t tc_xxh64(const void *data, size_t size, uint64_t seed);

#define TC_NODES 16 /* of a machine, that of source files included */

/* protocol/node.py */
struct tc_node {
	uint64_t capacity; /* bytes, as are the others */
	uint64_t used;
	uint64_t peak;
	uint64_t reserve;
	uint64_t low; /* watermark */
	uint32_t failed;
	uint32_t reads_parts;
	uint32_t is_source; /* its slots are a file's pages, and are never given back */
	const struct tc_pool *pool; /* NULL: what is there is brought up by Python */
};

TC_EXPORT extern const struct tc_field tc_node_fields[];

/* protocol/group.py */
#define TC_NO_LIMIT UINT64_MAX

struct tc_group {
	uint64_t dram_limit; /* bytes, as are the others */
	uint64_t memory_limit;
	uint64_t used[TC_NODES];
	uint64_t memory;
	uint64_t peak_dram;
	uint16_t active[TC_NODES]; /* its lists in each node, by number; 0: there are none yet */
	uint16_t inactive[TC_NODES];
};

TC_EXPORT extern const struct tc_field tc_group_fields[];

/* A slot that is given back: Python does it, because it is what keeps the room of stores. */
struct tc_released {
	uint64_t slot;
	uint32_t node;
	uint32_t group;
};

#define TC_RELEASED 64

/* Where each counter of protocol/vmstat.py is. */
struct tc_counters {
	uint64_t *pgfault;
	uint64_t *pgmajfault;
	uint64_t *pgfault_write_protect;
	uint64_t *pgalloc;
	uint64_t *pgpartial;
	uint64_t *pgpromote_success;
	uint64_t *pgdemote_kswapd;
	uint64_t *pgdemote_direct;
	uint64_t *pgdemote_proactive;
	uint64_t *shadow_kept;
	uint64_t *shadow_dropped;
	uint64_t *workingset_refault;
	uint64_t *workingset_activate;
	uint64_t *fault_polls;
	uint64_t *fault_polled;
};

struct tc_mm {
	/* By page. */
	uint64_t *entry;
	uint32_t *region; /* number: its first page + 1 */
	uint8_t *pins;
	/* By first page of a region. */
	uint8_t *advice;
	uint8_t *group_of;

	uint64_t *fault_times; /* a histogram (protocol/histogram.py) */
	/* By page; and the links of the lists. */
	uint16_t *present;
	uint8_t *dirty;
	uint8_t *referenced;
	uint32_t *evicted_at;
	uint64_t *transit;
	uint16_t *list_of;
	uint32_t *next;
	uint32_t *previous;
	uint32_t *counts;
	uint64_t *ages;
	uint32_t *shadow_next;
	uint32_t *shadow_previous;
	uint32_t *shadow_counts;
	uint8_t *locked;
	uint8_t *stopped;
	uint16_t *stream_of; /* by first page of a region: the number of its row in streams, from 1 on */
	struct tc_stream *streams;

	struct tc_node *nodes;
	struct tc_group *groups;
	uint64_t *note;		 /* what is worked on (live/suspicion.py) */
	uint64_t *peak_resident; /* bytes */
	struct tc_counters count;

	uint64_t pages;
	uint64_t page_size;
	uint64_t address;	/* of the arena, in the program */
	uint64_t kill_in;	/* for tests: stores after which the process is killed; 0: never */
	uint32_t parts;		/* of a page */
	uint32_t readahead;	/* pages, at most */
	int32_t arena;
	int32_t uffd;

	uint8_t *buffer; /* page_size bytes */
	struct tc_released released[TC_RELEASED];
	uint32_t released_count;
	uint32_t dram_is_low; /* kswapd is to be woken */
	uint32_t follows;     /* pages are to be read ahead of the fault that was served last (readahead.py) */
	uint32_t followed_write;
	uint64_t followed; /* its page */
};

TC_EXPORT extern const struct tc_field tc_mm_fields[];

/* The group that a page is charged to (mm.py, group_of()). */
static inline uint32_t tc_group_of(const struct tc_mm *mm, uint64_t page)
{
	uint32_t region = mm->region[page];

	return region ? mm->group_of[region - 1] : 0;
}

/* Give up the lock of a page, unless tasks wait for it: those are Python's (scheduler.py). */
static inline bool tc_unlock(struct tc_mm *mm, uint64_t page)
{
	if (mm->locked[page] != 1)
		return false;
	mm->locked[page] = 0;
	return true;
}

enum tc_outcome {
	TC_DECLINED, /* the protocol is to answer the fault: nothing was changed that it would not */
	TC_SERVED,
	TC_STUCK, /* the page is locked and its frames are charged, and the rest is to be done */
};

/*
 * serve.c: answer a fault if it takes the straight line of protocol/fault.py. Of a page that is
 * stuck, *parts are what is to come up, as bits.
 */
TC_EXPORT enum tc_outcome tc_serve(struct tc_mm *mm, uint64_t page, uint32_t part, bool write,
				  uint32_t *parts);

/*
 * serve.c: _arrive() of protocol/fill.py, of pages that have come up whole, and Unlock. Returns how
 * many, from the first; those whose locks tasks wait for are in waited_for.
 */
TC_EXPORT size_t tc_arrive(struct tc_mm *mm, const uint32_t *pages, const uint8_t *before,
			   size_t count, uint32_t *waited_for, size_t *waited_count);

/*
 * drop.c: _drop_clean() of protocol/reclaim.py, for as many of some isolated pages as are clean and
 * not in use. They are locked, and their entries committed; *counter counts them. Returns how
 * many, which come first in pages then; the others are in left.
 */
TC_EXPORT size_t tc_drop_begin(struct tc_mm *mm, uint64_t *counter, uint32_t *pages,
			       uint32_t *left, size_t count);
/*
 * Their frames are punched: uncharge them, put the pages on the lists of their nodes, and unlock
 * them. Returns how many have locks that tasks wait for, which come first in pages then.
 */
TC_EXPORT size_t tc_drop_end(struct tc_mm *mm, uint32_t *pages, size_t count);
/* Punch pages of an arena, ascending -> 0 or an errno. In any thread. */
TC_EXPORT int tc_punch(int arena, uint64_t page_size, const uint32_t *pages, size_t count);

/* jobs.c: what threads of the pager do beside it, without Python. */
struct tc_job {
	struct tc_job *next;
	int (*run)(struct tc_job *job); /* -> 0 or an errno */
	int32_t error;			/* what it returned */
	uint32_t urgent;		/* whether it goes before those that are not */
};

/* A run of pages comes up from compressed memory: locked, committed and charged by Python. */
struct tc_gap {
	uint64_t at; /* in the arena */
	uint64_t size;
};

struct tc_fill {
	struct tc_job job;
	const struct tc_pool *pool; /* no other thread's meanwhile */
	const uint64_t *slots;
	const struct tc_gap *gaps; /* what of them is missing */
	uint8_t *buffer;	   /* a page_size for each */
	uint64_t count;
	uint64_t gap_count; /* 0: it is only read here, and Python brings it up */
	uint64_t address; /* of the arena, in the program */
	uint64_t begin;	  /* of the run in the arena */
	int32_t uffd;
	uint32_t protect;
	uint32_t was_read; /* whether all were unpacked */
};

/* Pages go down to compressed memory: they are packed here, and put into the pool by Python. */
struct tc_packing {
	uint64_t at;	/* where it is in the arena */
	uint64_t there; /* whether it is in the buffer already */
	void *packer;	/* a blosc2_context; NULL: it is only read */
	int64_t length; /* bytes that it packs into; 0: it does not; or one of the below */
};

#define TC_PACKED_ZEROS (-1)
#define TC_UNREADABLE (-2)

struct tc_pack {
	struct tc_job job;
	struct tc_packing *pages;
	uint8_t *buffer;  /* a page_size for each: what is in it */
	uint8_t *packed;  /* the same: what it packs into */
	int (*compress)(void *context, const void *source, int32_t size, void *target,
			int32_t most);
	uint64_t count;
	uint64_t page_size;
	uint32_t most; /* bytes that a packed page may have */
	int32_t arena;
};

/* Frames are freed. */
struct tc_punch {
	struct tc_job job;
	const uint32_t *pages; /* ascending */
	uint64_t count;
	uint64_t page_size;
	int32_t arena;
};

TC_EXPORT extern const struct tc_field tc_fill_fields[];
TC_EXPORT extern const struct tc_field tc_packing_fields[];
TC_EXPORT extern const struct tc_field tc_pack_fields[];
TC_EXPORT extern const struct tc_field tc_punch_fields[];
TC_EXPORT int tc_fill_run(struct tc_job *job);
TC_EXPORT int tc_pack_run(struct tc_job *job);
TC_EXPORT int tc_punch_run(struct tc_job *job);

/* Start threads, at least one, or NULL. They ring an eventfd when there is a job to take back. */
TC_EXPORT struct tc_jobs *tc_jobs_start(int bell, size_t threads);
/* Let a job be done. It is the threads' until it is taken back. */
TC_EXPORT void tc_jobs_submit(struct tc_jobs *jobs, struct tc_job *job);
/* A job that is done, or NULL. */
TC_EXPORT struct tc_job *tc_jobs_take(struct tc_jobs *jobs);
/* Wait until all that were submitted are done. */
TC_EXPORT void tc_jobs_drain(struct tc_jobs *jobs);
/* End the threads, each behind the job that it is at. */
TC_EXPORT void tc_jobs_stop(struct tc_jobs *jobs);

/* What serve.c and drop.c have in common. */
void tc_commit(struct tc_mm *mm, uint64_t page, enum tc_state state, uint32_t node, uint64_t slot);
void tc_list_add(struct tc_mm *mm, uint32_t list, uint64_t page);
void tc_shadow_discard(struct tc_mm *mm, uint32_t node, uint64_t page);

/* uffd.c: ioctl_userfaultfd(2) -> 0 or an errno. What was there is left alone, and woken. */
int tc_uffd_copy(int uffd, uint64_t target, const void *source, uint64_t size, bool protect);
int tc_uffd_unprotect(int uffd, uint64_t address, uint64_t size);
int tc_uffd_wake(int uffd, uint64_t address, uint64_t size);

/* loop.c */
#define TC_DECLINES 64
#define TC_READY 64

struct tc_declined {
	uint64_t address;
	uint64_t since; /* CLOCK_MONOTONIC, in ns */
	uint32_t write;
	uint32_t parts; /* what is to come up of a page that is stuck, as bits; 0: it is not stuck */
};

struct tc_loop {
	struct tc_mm *mm;
	int32_t epoll;
	uint32_t serves;     /* whether faults may be answered here, this time */
	uint64_t longest_poll; /* ns for which to look again before it sleeps, at most; 0: not at all */
	uint64_t poll;	     /* ns for which to look now */
	uint32_t ready_count;
	uint32_t declined_count;
	int32_t ready[TC_READY]; /* descriptors on which there is news */
	struct tc_declined declined[TC_DECLINES];
};

TC_EXPORT extern const struct tc_field tc_loop_fields[];

/*
 * Wait for news, and answer faults meanwhile, until there is something for Python to do, or the
 * time is over (-1: never). Returns 0 or an errno.
 */
TC_EXPORT int tc_loop_run(struct tc_loop *loop, int64_t nanoseconds);

#endif
