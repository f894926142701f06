/* SPDX-License-Identifier: Apache-2.0 */
/* Processes, as far as a program of ours asks about others, or about itself. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <sys/types.h>

#include "thermocline.h"

/* Whether a process exists, also where this one may not signal it: it has changed its user. */
int tc_process_exists(int pid)
{
	return !kill((pid_t)pid, 0) || errno != ESRCH;
}

/* Bytes of this process's page tables (proc(5), VmPTE), or a negative errno. */
int64_t tc_process_page_tables(void)
{
	long long kib = -1;
	char line[256];
	FILE *status = fopen("/proc/self/status", "re");

	if (!status)
		return -errno;
	while (kib < 0 && fgets(line, sizeof(line), status))
		if (sscanf(line, "VmPTE: %lld kB", &kib) != 1)
			kib = -1;
	fclose(status);
	return kib < 0 ? -ENODATA : kib << 10;
}
