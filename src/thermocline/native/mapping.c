/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Mappings that do not outlive an exception: what was mapped is unmapped once, for by the time of a
 * second call another mapping may be there; and what is mapped only to ask is gone at the answer.
 */
#include <errno.h>
#include <stdint.h>
#include <sys/mman.h>

#include "thermocline.h"

#ifndef MADV_DONTNEED_LOCKED
#define MADV_DONTNEED_LOCKED 24
#endif

/* *address is 0 afterwards, and nothing is done where it is before. Returns 0 or an errno. */
int tc_unmap(uint64_t *address, uint64_t size)
{
	void *mapped = (void *)(uintptr_t)*address;

	*address = 0;
	return mapped && munmap(mapped, size) ? errno : 0;
}

/*
 * Empty the page tables of a shared mapping, poison and all, also where it is locked (mlock(2);
 * Linux 5.18). Returns 0 or an errno.
 */
int tc_discard(uint64_t address, uint64_t size)
{
	return madvise((void *)(uintptr_t)address, size, MADV_DONTNEED_LOCKED) ? errno : 0;
}

/*
 * Whether the kernel would map so many bytes of memory of this process's own now. What cannot be
 * written to is not accounted for, and what is locked (mlockall(2)) comes up when it can be: so
 * nothing is touched.
 */
bool tc_is_granted(uint64_t size)
{
	void *mapped = mmap(NULL, size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	bool granted;

	if (mapped == MAP_FAILED)
		return false;
	granted = !munlock(mapped, size) && !mprotect(mapped, size, PROT_READ | PROT_WRITE);
	munmap(mapped, size);
	return granted;
}
