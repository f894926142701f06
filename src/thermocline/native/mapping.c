/* SPDX-License-Identifier: Apache-2.0 */
/* Unmapping what was mapped, once: by the time of a second call, another mapping may be there. */
#include <errno.h>
#include <sys/mman.h>

#include "thermocline.h"

/* *address is 0 afterwards, and nothing is done where it is before. Returns 0 or an errno. */
int tc_unmap(uint64_t *address, uint64_t size)
{
	void *mapped = (void *)(uintptr_t)*address;

	*address = 0;
	return mapped && munmap(mapped, size) ? errno : 0;
}
