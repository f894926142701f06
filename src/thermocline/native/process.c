/* SPDX-License-Identifier: Apache-2.0 */
/* Other processes, as far as a program of ours asks about them. */
#include <errno.h>
#include <signal.h>
#include <sys/types.h>

#include "thermocline.h"

/* Whether a process exists, also where this one may not signal it: it has changed its user. */
int tc_process_exists(int pid)
{
	return !kill((pid_t)pid, 0) || errno != ESRCH;
}
