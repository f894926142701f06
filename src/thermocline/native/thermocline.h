/* SPDX-License-Identifier: Apache-2.0 */
#ifndef THERMOCLINE_H
#define THERMOCLINE_H

#include <stdbool.h>
#include <stdint.h>

/* Changes with every function whose arguments change; thermocline/native/__init__.py has the same number. */
#define TC_ABI 1

#define TC_EXPORT __attribute__((visibility("default")))

TC_EXPORT int tc_abi(void);

/* fence.c: what a forked child is told that touches tiered memory and is not served. */
TC_EXPORT void tc_fence_install(void);

/* fork.c: children are attached to the memories of their parents. */
struct tc_memory;

struct tc_served {
	uint64_t address;
	uint64_t size;
	uint64_t features; /* of the userfaultfd */
	const char *name;  /* of the supervisor's abstract socket */
	uint64_t secret;
	uint32_t number; /* of this process, among those that the supervisor knows */
	uint32_t copies; /* whether a child sees the arrays as they were */
};

struct tc_attached {
	int32_t peer; /* to the supervisor */
	int32_t uffd;
	int32_t lifeline;
	uint32_t number;
	uint32_t is_attached;
	uint32_t serves_system_calls;
};

/* From now on children are attached to a memory. Returns NULL if there is no memory for that. */
TC_EXPORT struct tc_memory *tc_fork_serve(const struct tc_served *served);
/* The memory is closed here. */
TC_EXPORT void tc_fork_forget(struct tc_memory *memory);
/*
 * Children share a range from now on; *since becomes the first fork whose child does, and *forks is
 * how many have begun. Returns -1 if there is no memory for that.
 */
TC_EXPORT int tc_fork_share(struct tc_memory *memory, uint64_t address, uint64_t size,
			    uint32_t *since, const uint64_t *forks);
TC_EXPORT void tc_fork_unshare(struct tc_memory *memory, uint64_t address);
/* The number of the last fork of this process that is over: the parent goes on, or it has failed. */
TC_EXPORT const uint64_t *tc_fork_over(const struct tc_memory *memory);
/* In a child: what it has of a memory. */
TC_EXPORT struct tc_attached tc_fork_attached(const struct tc_memory *memory);

#endif
