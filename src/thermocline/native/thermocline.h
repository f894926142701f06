/* SPDX-License-Identifier: Apache-2.0 */
#ifndef THERMOCLINE_H
#define THERMOCLINE_H

#include <stdint.h>

/* Changes with every function whose arguments change; thermocline/native/__init__.py has the same number. */
#define TC_ABI 1

#define TC_EXPORT __attribute__((visibility("default")))

TC_EXPORT int tc_abi(void);

/* futex.c */
TC_EXPORT int tc_futex_wait(uint32_t *word, uint32_t expected, int64_t nanoseconds);
TC_EXPORT void tc_futex_wake(uint32_t *word);
TC_EXPORT int tc_futex_relay(uint32_t *word, uint32_t seen, int eventfd);

#endif
