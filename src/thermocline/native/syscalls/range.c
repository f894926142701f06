/* SPDX-License-Identifier: Apache-2.0 */
/* The range of addresses that all tiered memory of this process lies in. */
#include "syscalls.h"

uintptr_t tc_low, tc_high;

TC_EXPORT int tc_syscalls_abi(void);
TC_EXPORT void tc_syscalls_cover(uintptr_t low, uintptr_t high);

int tc_syscalls_abi(void)
{
	return TC_SYSCALLS_ABI;
}

/* From now on, buffers in this range go through bounce buffers. Called once a process, or again with the same range. */
void tc_syscalls_cover(uintptr_t low, uintptr_t high)
{
	/* In this order: with high at 0, the range is empty whatever low says. */
	__atomic_store_n(&tc_low, low, __ATOMIC_RELAXED);
	__atomic_store_n(&tc_high, high, __ATOMIC_RELEASE);
}

/* Whether any buffer of a vector, or the vector itself, is in tiered memory. */
bool tc_tiered_vector(const struct iovec *vector, size_t count)
{
	size_t index;

	/* Before there is tiered memory, a vector is not looked into: it may be invalid, and that is for the kernel. */
	if (!__atomic_load_n(&tc_high, __ATOMIC_RELAXED) || !vector)
		return false;
	if (tc_tiered(vector, count * sizeof(*vector)))
		return true;
	for (index = 0; index < count; index++)
		if (tc_tiered(vector[index].iov_base, vector[index].iov_len))
			return true;
	return false;
}
