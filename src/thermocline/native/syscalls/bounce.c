/* SPDX-License-Identifier: Apache-2.0 */
/* Ordinary memory for the kernel to look at, and the copies between it and the caller's. */
#include "syscalls.h"

#include <string.h>
#include <sys/mman.h>

#define HUGE_PAGE ((size_t)2 << 20)

/*
 * Map a bounce buffer, which begins at a page (O_DIRECT wants that). False, with errno ENOMEM, where there
 * is no room. @populate: all of it will be written now.
 */
bool tc_bounce_map(struct bounce *bounce, size_t size, bool populate)
{
	int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | (populate ? MAP_POPULATE : 0);
	void *data = mmap(NULL, size, PROT_READ | PROT_WRITE, flags, -1, 0);

	if (data == MAP_FAILED) {
		errno = ENOMEM;
		return false;
	}
	/* A record is small more often than not: its first byte should not clear 2 MiB. */
	if (size >= HUGE_PAGE && !populate)
		madvise(data, size, MADV_NOHUGEPAGE);
	bounce->data = data;
	bounce->mapped = size;
	return true;
}

/* Give it back, if it was mapped. A handler of pthread_cleanup_push(3). */
void tc_bounce_unmap(void *argument)
{
	struct bounce *bounce = argument;

	if (bounce->mapped)
		munmap(bounce->data, bounce->mapped);
}

static size_t step(struct cursor *cursor, char **at, size_t size)
{
	size_t here;

	while (cursor->skip == cursor->vector->iov_len) {
		cursor->vector++;
		cursor->skip = 0;
	}
	here = cursor->vector->iov_len - cursor->skip;
	if (here > size)
		here = size;
	*at = (char *)cursor->vector->iov_base + cursor->skip;
	cursor->skip += here;
	return here;
}

/* Copy the next bytes of a vector. It has as many. */
void tc_gather(struct cursor *cursor, char *to, size_t size)
{
	char *at;
	size_t here;

	for (; size; size -= here, to += here) {
		here = step(cursor, &at, size);
		memcpy(to, at, here);
	}
}

/* Write the next bytes of a vector. It has room for as many. */
void tc_scatter(struct cursor *cursor, const char *from, size_t size)
{
	char *at;
	size_t here;

	for (; size; size -= here, from += here) {
		here = step(cursor, &at, size);
		memcpy(at, from, here);
	}
}
