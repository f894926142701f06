/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A stretch of an arena is mapped, and served from its first instant, or it is not mapped.
 *
 * One call, so that no signal handler of Python's comes between its steps, nor between the last of
 * them and the note that it was done. Until then nothing can be touched: a stretch that is mapped
 * and not registered would show zeros of which the pager does not know. It is mapped without access
 * also for mlockall(2), which would otherwise bring up all of it at once (MCL_FUTURE).
 */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/userfaultfd.h>
#include <stdint.h>
#include <sys/ioctl.h>
#include <sys/mman.h>

#include "thermocline.h"

#ifndef MAP_FIXED_NOREPLACE
#define MAP_FIXED_NOREPLACE 0x100000
#endif

int tc_arena_register(int uffd, uint64_t address, uint64_t size, uint64_t mode)
{
	struct uffdio_register request = {
		.range = { .start = address, .len = size },
		.mode = UFFDIO_REGISTER_MODE_MISSING | mode,
	};

	return ioctl(uffd, UFFDIO_REGISTER, &request);
}

/*
 * Map a stretch of the arena whose addresses begin at one -> 0, and what was made is written down;
 * or an error number: EEXIST if anything is mapped there. Nothing is mapped then.
 */
int tc_arena_map(int arena, int uffd, uint64_t address, uint64_t begin, uint64_t end,
		 struct tc_stretch *made)
{
	size_t size = end - begin;
	void *wanted = (void *)(uintptr_t)(address + begin);
	void *got = mmap(wanted, size, PROT_NONE, MAP_SHARED | MAP_NORESERVE | MAP_FIXED_NOREPLACE,
			 arena, (off_t)begin);
	int error;

	if (got == MAP_FAILED)
		return errno;
	if (got != wanted) { /* before Linux 4.17 the flag was a hint */
		munmap(got, size);
		return EEXIST;
	}
	/*
	 * Locked memory does not sink, and what sinks is not locked: the locks of mlockall(2) are
	 * for the rest. A child that is forked gets nothing here: no pager would see its faults.
	 */
	if (munlock(wanted, size) || madvise(wanted, size, MADV_DONTFORK) ||
	    madvise(wanted, size, MADV_DONTDUMP) ||
	    tc_arena_register(uffd, address + begin, size, UFFDIO_REGISTER_MODE_WP) ||
	    mprotect(wanted, size, PROT_READ | PROT_WRITE)) {
		error = errno;
		munmap(wanted, size);
		return error;
	}
	*made = (struct tc_stretch){ .begin = begin, .end = end, .state = TC_STRETCH_MAPPED };
	return 0;
}

/*
 * Unmap a stretch that is mapped -> 0, and that is written down; or an error number, and nothing
 * has changed: ENOMEM if there would be more mappings than a process may have.
 */
int tc_arena_unmap(uint64_t address, struct tc_stretch *stretch)
{
	if (munmap((void *)(uintptr_t)(address + stretch->begin), stretch->end - stretch->begin))
		return errno;
	stretch->state = TC_STRETCH_UNMAPPED;
	return 0;
}

/*
 * Let the kernel free the page tables of a range in which no page is (Linux 6.14; before, it keeps
 * them). A table with a marker of write-protection or poison in it is not empty. Returns 0 or an errno.
 */
int tc_arena_empty_page_tables(int uffd, uint64_t address, uint64_t size)
{
	struct uffdio_writeprotect request = { .range = { .start = address, .len = size } };

	while (ioctl(uffd, UFFDIO_WRITEPROTECT, &request)) {
		if (errno == ENOENT) /* before Linux 6.4, if it is in more than one mapping */
			break;
		if (errno != EAGAIN) /* the address space is being changed: to be called again */
			return errno;
	}
	return tc_discard(address, size);
}

#define FIELD(member) TC_FIELD(struct tc_stretch, member)

const struct tc_field tc_stretch_fields[] = {
	FIELD(begin), FIELD(end), FIELD(state), TC_END(struct tc_stretch),
};
