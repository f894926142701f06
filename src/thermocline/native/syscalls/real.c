/* SPDX-License-Identifier: Apache-2.0 */
/* Where the functions are that the wrappers stand before. */
#include "syscalls.h"

#include <dlfcn.h>
#include <string.h>

struct tc_real tc_real;

/* In the place of a function that this C library does not have. */
static ssize_t missing(void)
{
	errno = ENOSYS;
	return -1;
}

static void find(void *where, const char *name, void *slot)
{
	ssize_t (*none)(void) = missing;
	void *found = dlsym(where, name);

	/* A pointer to an object is no pointer to a function in ISO C; its bytes are (dlsym(3)). */
	if (found)
		memcpy(slot, &found, sizeof(found));
	else
		memcpy(slot, &none, sizeof(none));
}

/*
 * Find them all. Runs before main, or when a wrapper is called before that: then dlsym takes a lock, which
 * no signal handler holds so early. Twice at once is harmless.
 */
__attribute__((constructor)) void tc_find_real(void)
{
	int saved = errno;

	/* Not RTLD_DEFAULT: with this library preloaded, that finds the wrappers, or what calls them. */
#define TC_FIND(name) find(RTLD_NEXT, #name, &tc_real.name);
	TC_NAMES(TC_FIND)
#undef TC_FIND
	errno = saved;
}

/* Find what every other library calls, which may be a wrapper of the user's. This library was not preloaded. */
void tc_find_default(void)
{
#define TC_FIND(name) find(RTLD_DEFAULT, #name, &tc_real.name);
	TC_NAMES(TC_FIND)
#undef TC_FIND
}
