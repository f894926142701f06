/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is asked of a userfaultfd (ioctl_userfaultfd(2)) in the miss path; live/userfaultfd.py has
 * the rest. The numbers are the kernel's own, for a header may be older than the kernel.
 */
#include <errno.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "pager.h"

#define IOCTL_READ 2u
#define IOCTL_READ_WRITE 3u
#define NUMBER(direction, number, type) \
	((unsigned long)(direction) << 30 | sizeof(type) << 16 | 0xAAul << 8 | (number))

struct range {
	uint64_t start;
	uint64_t size;
};

struct copy {
	uint64_t target;
	uint64_t source;
	uint64_t size;
	uint64_t mode;
	int64_t copied; /* bytes, or a negative errno */
};

struct protect {
	struct range range;
	uint64_t mode;
};

#define COPY_MODE_WP 2

#define UFFD_WAKE NUMBER(IOCTL_READ, 0x02, struct range)
#define UFFD_COPY NUMBER(IOCTL_READ_WRITE, 0x03, struct copy)
#define UFFD_WRITEPROTECT NUMBER(IOCTL_READ_WRITE, 0x06, struct protect)

int tc_uffd_wake(int uffd, uint64_t address, uint64_t size)
{
	struct range range = { address, size };

	return ioctl(uffd, UFFD_WAKE, &range) ? errno : 0;
}

/*
 * The kernel stops at the first base page that it cannot install. EAGAIN asks to be called again;
 * EEXIST says that this one is there, and who waits for it has to be woken by us.
 */
int tc_uffd_copy(int uffd, uint64_t target, const void *source, uint64_t size, bool protect)
{
	uint64_t done = 0;

	while (done < size) {
		struct copy copy = { target + done, (uint64_t)(uintptr_t)source + done, size - done,
				     protect ? COPY_MODE_WP : 0, 0 };

		if (!ioctl(uffd, UFFD_COPY, &copy))
			return 0;
		if (errno != EAGAIN && errno != EEXIST)
			return errno;
		if (copy.copied > 0)
			done += (uint64_t)copy.copied;
		if (errno == EEXIST) {
			uint64_t base = (uint64_t)sysconf(_SC_PAGESIZE);
			int error = tc_uffd_wake(uffd, target + done, base);

			if (error)
				return error;
			done += base;
		}
	}
	return 0;
}

/* Let the writers of a range go on, and wake them. */
int tc_uffd_unprotect(int uffd, uint64_t address, uint64_t size)
{
	struct protect protect = { { address, size }, 0 };

	while (ioctl(uffd, UFFD_WRITEPROTECT, &protect))
		if (errno != EAGAIN)
			return errno;
	return 0;
}
