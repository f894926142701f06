// SPDX-License-Identifier: Apache-2.0
/*
 * A stretch of an arena is mapped, and served from its first instant, or it is not mapped.
 *
 * One call, so that no signal handler of Python's comes between its steps. Until the last of them
 * nothing can be touched: a stretch that is mapped and not registered would show zeros of which the
 * pager does not know. It is mapped without access also for mlockall(2), which would otherwise bring up all of
 * it at once (MCL_FUTURE).
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

static int register_range(int uffd, uint64_t address, uint64_t size)
{
	struct uffdio_register request = {
		.range = { .start = address, .len = size },
		.mode = UFFDIO_REGISTER_MODE_MISSING | UFFDIO_REGISTER_MODE_WP,
	};

	return ioctl(uffd, UFFDIO_REGISTER, &request);
}

/* Returns 0, or an error number: EEXIST if anything is mapped there. Nothing is mapped then. */
int tc_arena_map(int arena, int uffd, uint64_t address, uint64_t offset, uint64_t size)
{
	void *wanted = (void *)(uintptr_t)address;
	void *got = mmap(wanted, size, PROT_NONE, MAP_SHARED | MAP_NORESERVE | MAP_FIXED_NOREPLACE,
			 arena, (off_t)offset);
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
	    madvise(wanted, size, MADV_DONTDUMP) || register_range(uffd, address, size) ||
	    mprotect(wanted, size, PROT_READ | PROT_WRITE)) {
		error = errno;
		munmap(wanted, size);
		return error;
	}
	return 0;
}

/* Returns 0, or an error number: ENOMEM if there would be more mappings than a process may have. */
int tc_arena_unmap(uint64_t address, uint64_t size)
{
	return munmap((void *)(uintptr_t)address, size) ? errno : 0;
}
