/* SPDX-License-Identifier: Apache-2.0 */
#ifndef THERMOCLINE_H
#define THERMOCLINE_H

#include <stddef.h>
#include <stdint.h>

/* Changes with every function whose arguments change; thermocline/native/__init__.py has the same number. */
#define TC_ABI 2

#define TC_EXPORT __attribute__((visibility("default")))

/* abi.c */
TC_EXPORT int tc_abi(void);

/* fence.c */
#define TC_FENCE_MESSAGE 512 /* bytes at most */

TC_EXPORT int tc_fence_prepare(uintptr_t low, uintptr_t high, const char *message, size_t length);
TC_EXPORT void tc_fence_install(void);

#endif
