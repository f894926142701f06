// SPDX-License-Identifier: Apache-2.0
/*
 * Forks: a child is attached to the memories of its parent before fork(2) returns in it.
 *
 * pthread_atfork(3) handlers run for every fork() of the C library, Python's and any other. In the
 * parent, before the fork, each memory's supervisor is asked for a place for the child. The child
 * maps the arena, registers it with a userfaultfd of its own and hands that to the supervisor; when
 * the supervisor answers, every touch is served.
 *
 * A child sees the arrays as they were (MAP_PRIVATE): it reads the parent's frames, and the kernel
 * copies what it writes. Ranges that are shared by name, and memories made with fork="share", are
 * mapped MAP_SHARED as in the parent.
 *
 * The connection to the supervisor is made for each fork, and is the child's behind it: the program
 * may close, or replace, every descriptor that it does not know (daemon(7)).
 *
 * No memory of the parent's is tiered for these structures, and nothing here enters Python.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/userfaultfd.h>
#include <pthread.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#include "thermocline.h"

#define PACKET TC_PACKET
#define MAX_FDS TC_PACKET_FDS
/* Descriptors of ours stay out of the low numbers, which programs expect to be given. */
#define LOWEST_FD 64

#ifndef USERFAULTFD_IOC_NEW
#define USERFAULTFD_IOC_NEW _IO(0xAA, 0x00)
#endif
#ifndef UFFD_USER_MODE_ONLY
#define UFFD_USER_MODE_ONLY 1
#endif

struct range {
	uint64_t address;
	uint64_t size;
};

struct tc_memory {
	struct tc_memory *next;
	uint64_t address;
	uint64_t features;
	/* Where its supervisor listens: an abstract name (unix(7)), and what it wants to hear. */
	char name[80];
	uint64_t secret;
	uint32_t number;
	/* Whether children see the arrays as they were, and whether this process does. */
	bool copies;
	bool is_private;
	struct range *shared;
	size_t shared_count;
	size_t shared_room;
	/* What of the arena is mapped here: a child is given the same. */
	struct range *mapped;
	size_t mapped_count;
	/* During a fork: the connection on which the child will speak, its number, and the arena. */
	int peer;
	int arena;
	uint32_t expected;
	uint64_t begun;
	/* Forks of this process that are over: what is allocated from now on is no child's of theirs. */
	uint64_t over;
	/* In a child: what it has. */
	struct tc_attached attached;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct tc_memory *memories;

/* -- descriptors ------------------------------------------------------------------------------ */

static void close_fd(int *fd)
{
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
}

/* Move a descriptor out of the low numbers, if the limit allows; it is closed on exec either way. */
static int moved_up(int fd)
{
	int moved;

	if (fd < 0 || fd >= LOWEST_FD)
		return fd;
	moved = fcntl(fd, F_DUPFD_CLOEXEC, LOWEST_FD);
	if (moved < 0)
		moved = fd > 2 ? -1 : fcntl(fd, F_DUPFD_CLOEXEC, 3);
	if (moved < 0)
		return fd;
	close(fd);
	return moved;
}

/* -- packets (thermocline/live/control.py) ---------------------------------------------------- */

static int send_packet(int peer, const char *text, const int *fds, int count)
{
	int error;

	do {
		error = tc_packet_send(peer, text, strlen(text), fds, (size_t)count);
	} while (error == EINTR);
	return error ? -1 : 0;
}

/* Wait for a packet; at most one descriptor comes with it. Returns -1 if the other end is gone. */
static int receive_packet(int peer, char text[PACKET], int *fd)
{
	struct tc_received received;
	int error;

	do {
		error = tc_packet_receive(peer, &received);
	} while (error == EINTR);
	if (error || !received.size)
		return -1;
	snprintf(text, PACKET, "%.*s", (int)received.size, received.data);
	if (received.count)
		*fd = received.fds[0];
	return 0;
}

static int connect_to(const struct tc_memory *memory)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	size_t length = strlen(memory->name);
	int peer;

	/* sun_path begins with a zero: an abstract name. */
	memcpy(address.sun_path + 1, memory->name, length);
	peer = moved_up(socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0));
	if (peer < 0)
		return -1;
	while (connect(peer, (struct sockaddr *)&address,
		       offsetof(struct sockaddr_un, sun_path) + 1 + length)) {
		if (errno == EINTR)
			continue;
		close(peer);
		return -1;
	}
	return peer;
}

/* -- the parent ------------------------------------------------------------------------------- */

static void expect_child(struct tc_memory *memory)
{
	char text[PACKET];

	memory->arena = -1;
	memory->peer = connect_to(memory);
	if (memory->peer < 0)
		return;
	snprintf(text, sizeof(text), "fork %" PRIu64 " %" PRIu32, memory->secret, memory->number);
	if (send_packet(memory->peer, text, NULL, 0) ||
	    receive_packet(memory->peer, text, &memory->arena) ||
	    sscanf(text, "fork %" SCNu32 " %" SCNu64, &memory->expected, &memory->begun) != 2 ||
	    memory->arena < 0) {
		close_fd(&memory->peer);
		close_fd(&memory->arena);
		return;
	}
	memory->arena = moved_up(memory->arena);
}

static void before_fork(void)
{
	int error = errno;
	struct tc_memory *memory;

	pthread_mutex_lock(&lock);
	/* The same order in every process of a family: supervisors let one fork begin at a time. */
	for (memory = memories; memory; memory = memory->next)
		expect_child(memory);
	errno = error;
}

static void after_fork_in_parent(void)
{
	int error = errno;
	struct tc_memory *memory;

	/* If the fork has failed, the supervisor sees that the connection is gone. */
	for (memory = memories; memory; memory = memory->next) {
		close_fd(&memory->peer);
		close_fd(&memory->arena);
		__atomic_store_n(&memory->over, memory->begun, __ATOMIC_RELEASE);
	}
	pthread_mutex_unlock(&lock);
	errno = error;
}

/* -- the child -------------------------------------------------------------------------------- */

/* A userfaultfd in the most capable mode that this process is allowed (live/userfaultfd.py). */
static int open_userfaultfd(uint64_t features, bool *serves_system_calls)
{
	int flags = O_CLOEXEC | O_NONBLOCK;
	struct uffdio_api api = { .api = UFFD_API, .features = features };
	int uffd, device;

	*serves_system_calls = true;
	uffd = (int)syscall(SYS_userfaultfd, flags);
	if (uffd < 0) {
		device = open("/dev/userfaultfd", O_RDWR | O_CLOEXEC);
		if (device >= 0) {
			uffd = ioctl(device, USERFAULTFD_IOC_NEW, flags);
			close(device);
		}
	}
	if (uffd < 0) {
		*serves_system_calls = false;
		uffd = (int)syscall(SYS_userfaultfd, flags | UFFD_USER_MODE_ONLY);
	}
	uffd = moved_up(uffd);
	if (uffd >= 0 && ioctl(uffd, UFFDIO_API, &api))
		close_fd(&uffd);
	return uffd;
}

/* Map a range of the arena: MAP_SHARED, or MAP_PRIVATE. */
static int map(const struct tc_memory *memory, const struct range *range, int sharing)
{
	void *wanted = (void *)(uintptr_t)range->address;
	off_t offset = (off_t)(range->address - memory->address);

	if (mmap(wanted, range->size, PROT_READ | PROT_WRITE, sharing | MAP_NORESERVE | MAP_FIXED,
		 memory->arena, offset) != wanted)
		return -1;
	/* A child of this one gets nothing there until it maps it: nothing would see its faults. */
	if (sharing == MAP_SHARED && madvise(wanted, range->size, MADV_DONTFORK))
		return -1;
	return madvise(wanted, range->size, MADV_DONTDUMP);
}

static int register_range(int uffd, const struct range *range, uint64_t mode)
{
	return tc_arena_register(uffd, range->address, range->size, mode);
}

static int map_range(const struct tc_memory *memory, const struct range *range, int uffd)
{
	if (!memory->copies) {
		if (map(memory, range, MAP_SHARED))
			return -1;
		return register_range(uffd, range, UFFDIO_REGISTER_MODE_WP);
	}
	if (!memory->is_private && map(memory, range, MAP_PRIVATE))
		return -1;
	/*
	 * The kernel itself copies what is written to a private mapping. The zeros among the copies
	 * that were inherited vanish when a hole is punched, so touches have to be seen, if the
	 * kernel can (live/copies.py).
	 */
	if (memory->is_private && (memory->features & UFFD_FEATURE_MINOR_SHMEM) &&
	    !register_range(uffd, range, UFFDIO_REGISTER_MODE_MINOR))
		return 0;
	return register_range(uffd, range, 0);
}

/*
 * Map what the parent has mapped of the arena. A child of a child has inherited the private
 * mappings, with the copies in them; what it has not inherited are the registration and the shared
 * ranges.
 */
static int map_arena(struct tc_memory *memory, int uffd)
{
	size_t index;

	for (index = 0; index < memory->mapped_count; index++)
		if (map_range(memory, &memory->mapped[index], uffd))
			return -1;
	if (!memory->copies)
		return 0;
	for (index = 0; index < memory->shared_count; index++)
		if (map(memory, &memory->shared[index], MAP_SHARED))
			return -1;
	for (index = 0; index < memory->shared_count; index++)
		if (register_range(uffd, &memory->shared[index], UFFDIO_REGISTER_MODE_WP))
			return -1;
	return 0;
}

/* Let the kernel kill this process when the other end of the socket is closed (live/launch.py). */
static int hold_lifeline(int lifeline)
{
	int flags = fcntl(lifeline, F_GETFL);

	if (flags < 0 || fcntl(lifeline, F_SETOWN, getpid()) ||
	    fcntl(lifeline, F_SETSIG, SIGKILL))
		return -1;
	return fcntl(lifeline, F_SETFL, flags | O_ASYNC);
}

static int attach(struct tc_memory *memory)
{
	int fds[MAX_FDS] = { -1, -1, -1 }, pair[2] = { -1, -1 }, nothing = -1, failed = -1;
	bool serves = false;
	char text[PACKET];

	fds[0] = open_userfaultfd(memory->features, &serves);
	if (fds[0] < 0 || map_arena(memory, fds[0]))
		goto out;
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair))
		goto out;
	pair[0] = moved_up(pair[0]);
	fds[2] = pair[1];
	fds[1] = (int)syscall(SYS_pidfd_open, getpid(), 0);
	/* Before anything is touched: should the supervisor die from now on, so does this process. */
	if (fds[1] < 0 || hold_lifeline(pair[0]))
		goto out;
	snprintf(text, sizeof(text), "attach %" PRIu64, memory->address);
	if (send_packet(memory->peer, text, fds, MAX_FDS) ||
	    receive_packet(memory->peer, text, &nothing) || strncmp(text, "attach", 6))
		goto out;
	failed = 0;
out:
	close_fd(&fds[1]);
	close_fd(&nothing);
	if (failed) {
		/* Before the other end, for whose closing the kernel would kill this process. */
		close_fd(&pair[0]);
		close_fd(&fds[0]);
	}
	close_fd(&fds[2]);
	memory->attached = (struct tc_attached){
		.peer = memory->peer,
		.uffd = fds[0],
		.lifeline = pair[0],
		.number = memory->expected,
		.is_attached = !failed,
		.serves_system_calls = serves,
	};
	return failed;
}

/* It is not served, so a touch must not go by unseen. */
static void unmap(const struct tc_memory *memory)
{
	size_t index;

	for (index = 0; index < memory->mapped_count; index++)
		munmap((void *)(uintptr_t)memory->mapped[index].address, memory->mapped[index].size);
}

static void after_fork_in_child(void)
{
	int error = errno;
	bool fenced = false;
	struct tc_memory **link = &memories;

	while (*link) {
		struct tc_memory *memory = *link;

		if (memory->peer >= 0 && !attach(memory)) {
			memory->is_private = memory->copies;
			memory->number = memory->expected;
			link = &memory->next;
		} else {
			unmap(memory);
			memory->attached.is_attached = 0;
			close_fd(&memory->peer);
			*link = memory->next;
			fenced = true;
		}
		memory->peer = -1;
		close_fd(&memory->arena);
	}
	if (fenced)
		tc_fence_install();
	pthread_mutex_unlock(&lock);
	errno = error;
}

/* -- for Python ------------------------------------------------------------------------------- */

static int handlers_are_installed;

static void install_handlers(void)
{
	handlers_are_installed = !pthread_atfork(before_fork, after_fork_in_parent,
						 after_fork_in_child);
}

struct tc_memory *tc_fork_serve(const struct tc_served *served)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;
	struct tc_memory *memory, **link;

	pthread_once(&once, install_handlers);
	memory = handlers_are_installed ? calloc(1, sizeof(*memory)) : NULL;
	if (!memory)
		return NULL;
	memory->address = served->address;
	memory->features = served->features;
	memory->secret = served->secret;
	memory->number = served->number;
	memory->copies = served->copies;
	memory->peer = memory->arena = -1;
	snprintf(memory->name, sizeof(memory->name), "%s", served->name);
	pthread_mutex_lock(&lock);
	for (link = &memories; *link; link = &(*link)->next)
		;
	*link = memory;
	pthread_mutex_unlock(&lock);
	return memory;
}

void tc_fork_forget(struct tc_memory **forgotten)
{
	struct tc_memory *memory = *forgotten, **link;

	if (!memory)
		return;
	*forgotten = NULL;
	pthread_mutex_lock(&lock);
	for (link = &memories; *link; link = &(*link)->next) {
		if (*link == memory) {
			*link = memory->next;
			break;
		}
	}
	pthread_mutex_unlock(&lock);
	free(memory->shared);
	free(memory->mapped);
	free(memory);
}

int tc_fork_map(struct tc_memory *memory, const uint64_t *bounds, size_t count)
{
	struct range *mapped = malloc((count ? count : 1) * sizeof(*mapped)), *before;
	size_t index;

	if (!mapped)
		return -1;
	for (index = 0; index < count; index++) {
		mapped[index].address = memory->address + bounds[2 * index];
		mapped[index].size = bounds[2 * index + 1] - bounds[2 * index];
	}
	pthread_mutex_lock(&lock);
	before = memory->mapped;
	memory->mapped = mapped;
	memory->mapped_count = count;
	pthread_mutex_unlock(&lock);
	free(before);
	return 0;
}

size_t tc_fork_mapped(const struct tc_memory *memory, uint64_t *bounds, size_t room)
{
	size_t index;

	for (index = 0; index < memory->mapped_count && index < room; index++) {
		bounds[2 * index] = memory->mapped[index].address - memory->address;
		bounds[2 * index + 1] = bounds[2 * index] + memory->mapped[index].size;
	}
	return memory->mapped_count;
}

int tc_fork_share(struct tc_memory *memory, uint64_t address, uint64_t size, uint32_t *since,
		  const uint64_t *forks)
{
	int failed = 0;

	pthread_mutex_lock(&lock);
	if (memory->shared_count == memory->shared_room) {
		size_t room = memory->shared_room ? 2 * memory->shared_room : 16;
		struct range *more = realloc(memory->shared, room * sizeof(*more));

		if (more) {
			memory->shared = more;
			memory->shared_room = room;
		} else {
			failed = -1;
		}
	}
	if (!failed) {
		memory->shared[memory->shared_count++] = (struct range){ address, size };
		/* Under the lock, so that a fork comes before both this and the range, or behind. */
		*since = (uint32_t)(*forks + 1);
	}
	pthread_mutex_unlock(&lock);
	return failed;
}

void tc_fork_unshare(struct tc_memory *memory, uint64_t address)
{
	size_t index;

	pthread_mutex_lock(&lock);
	for (index = 0; index < memory->shared_count; index++) {
		if (memory->shared[index].address == address) {
			memory->shared[index] = memory->shared[--memory->shared_count];
			break;
		}
	}
	pthread_mutex_unlock(&lock);
}

const uint64_t *tc_fork_over(const struct tc_memory *memory)
{
	return &memory->over;
}

struct tc_attached tc_fork_attached(const struct tc_memory *memory)
{
	return memory->attached;
}
