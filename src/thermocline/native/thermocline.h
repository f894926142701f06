/* SPDX-License-Identifier: Apache-2.0 */
#ifndef THERMOCLINE_H
#define THERMOCLINE_H

/* Changes with every function whose arguments change; thermocline/native/__init__.py has the same number. */
#define TC_ABI 1

#define TC_EXPORT __attribute__((visibility("default")))

TC_EXPORT int tc_abi(void);

#endif
