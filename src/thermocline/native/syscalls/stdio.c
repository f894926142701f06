/* SPDX-License-Identifier: Apache-2.0 */
/* fread(3) and fwrite(3): the C library hands large requests to the kernel as they are, by calls of its own. */
#include "syscalls.h"

#include <pthread.h>

struct items {
	FILE *stream;
	char *buffer;
	size_t total;
	bool locked; /* one fread is one for other threads, too */
	bool writes;
	struct bounce bounce;
	size_t piece;
	int error;
};

static size_t move_pieces(struct items *items)
{
	struct iovec all = { items->buffer, items->total };
	struct cursor cursor = { &all, 0 };
	size_t done = 0, size, here;
	char *data = items->bounce.data;

	do {
		size = items->total - done < items->piece ? items->total - done : items->piece;
		if (items->writes) {
			tc_gather(&cursor, data, size);
			here = TC_REAL(fwrite_unlocked)(data, 1, size, items->stream);
			items->error = errno;
		} else {
			here = TC_REAL(fread_unlocked)(data, 1, size, items->stream);
			items->error = errno;
			tc_scatter(&cursor, data, here);
		}
		done += here;
	} while (here == size && done < items->total);
	return done;
}

static void let_go(void *argument)
{
	struct items *items = argument;

	tc_bounce_unmap(&items->bounce);
	if (items->locked)
		funlockfile(items->stream);
}

static size_t run_locked(struct items *items)
{
	size_t done;

	if (items->locked)
		flockfile(items->stream);
	pthread_cleanup_push(let_go, items);
	done = move_pieces(items);
	pthread_cleanup_pop(1);
	return done;
}

static size_t run_small(struct items *items)
{
	char small[TC_SMALL];

	items->bounce.data = small;
	items->piece = TC_SMALL;
	return run_locked(items);
}

/* -> whole items. The position of the stream is behind the bytes, as it is without us. */
static size_t run(struct items *items, size_t size)
{
	size_t done;

	items->piece = items->total < TC_PIECE ? items->total : TC_PIECE;
	/* Where there is no room, small pieces do: who calls fread may not look for errors. */
	if (items->total > TC_SMALL && tc_bounce_map(&items->bounce, items->piece, false))
		done = run_locked(items);
	else
		done = run_small(items);
	errno = items->error;
	return done / size;
}

/* Whether a buffer of items is in tiered memory. What no memory holds is for the C library to refuse. */
static bool covers(const void *buffer, size_t size, size_t items, size_t *total)
{
	return !__builtin_mul_overflow(size, items, total) && tc_tiered(buffer, *total);
}

#define FREAD(name, lock)                                                                          \
	TC_WRAP(size_t, name, void *buffer, size_t size, size_t count, FILE *stream)               \
	{                                                                                          \
		struct items items = { stream, buffer, 0, lock, false, { 0 }, 0, 0 };        \
                                                                                                   \
		if (!covers(buffer, size, count, &items.total))                                    \
			return TC_REAL(name)(buffer, size, count, stream);                         \
		return run(&items, size);                                                          \
	}

FREAD(fread, true)
FREAD(fread_unlocked, false)

#define FREAD_CHK(name, lock)                                                                      \
	TC_WRAP(size_t, name, void *buffer, size_t room, size_t size, size_t count, FILE *stream)  \
	{                                                                                          \
		struct items items = { stream, buffer, 0, lock, false, { 0 }, 0, 0 };        \
                                                                                                   \
		if (!covers(buffer, size, count, &items.total) || items.total > room)              \
			return TC_REAL(name)(buffer, room, size, count, stream);                   \
		return run(&items, size);                                                          \
	}

FREAD_CHK(__fread_chk, true)
FREAD_CHK(__fread_unlocked_chk, false)

#define FWRITE(name, lock)                                                                         \
	TC_WRAP(size_t, name, const void *buffer, size_t size, size_t count, FILE *stream)         \
	{                                                                                          \
		struct items items = { stream, (void *)buffer, 0, lock, true, { 0 }, 0, 0 }; \
                                                                                                   \
		if (!covers(buffer, size, count, &items.total))                                    \
			return TC_REAL(name)(buffer, size, count, stream);                         \
		return run(&items, size);                                                          \
	}

FWRITE(fwrite, true)
FWRITE(fwrite_unlocked, false)
