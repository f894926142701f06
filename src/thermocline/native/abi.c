/* SPDX-License-Identifier: Apache-2.0 */
/* Which version of this library was built. */
#include "thermocline.h"

int tc_abi(void)
{
	return TC_ABI;
}
