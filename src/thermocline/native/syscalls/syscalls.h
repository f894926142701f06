/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Wrappers of the C library's calls that hand a buffer to the kernel, for processes whose userfaultfd
 * serves user-mode faults only. There the kernel returns EFAULT, or a short count, for a page of tiered
 * memory that is not in DRAM. A wrapper copies through a bounce buffer of ordinary memory instead: the
 * copy faults in user mode, which is served, and the kernel sees the bounce buffer only.
 *
 * This is a library of its own, so that libthermocline.so does not define read(2). It is loaded by
 * LD_PRELOAD, or later, and then got.c redirects what is loaded already.
 *
 * Wrappers may run in a signal handler, in a child of vfork(2), before any constructor, and in a thread
 * that is cancelled: no malloc, no lock of our own, errno as the C library leaves it.
 */
#ifndef THERMOCLINE_SYSCALLS_H
#define THERMOCLINE_SYSCALLS_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif

#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

/* Changes with every exported function of our own; thermocline/live/system_calls.py has the same number. */
#define TC_SYSCALLS_ABI 1

#define TC_EXPORT __attribute__((visibility("default")))
/* Keeps what a bounce takes of the stack out of the way of calls that take none. */
#define TC_RARE __attribute__((noinline, cold))

/*
 * Defines the wrapper of a function of the C library. It has its name in the symbol table only: the
 * headers declare some of these with types that a definition cannot repeat, or define them inline.
 * Within this library it is tc_own_...: its public name may lead to the C library.
 */
#define TC_WRAP(type, name, ...)                                                                   \
	TC_EXPORT type tc_wrap_##name(__VA_ARGS__) __asm__(#name);                                 \
	__typeof__(tc_wrap_##name) tc_own_##name                                                   \
		__attribute__((alias(#name), visibility("hidden")));                               \
	type tc_wrap_##name(__VA_ARGS__)

/* What programs call that are compiled with _FORTIFY_SOURCE: the size of the buffer comes, too. */
ssize_t __read_chk(int fd, void *buffer, size_t size, size_t room);
ssize_t __pread_chk(int fd, void *buffer, size_t size, off_t offset, size_t room);
ssize_t __pread64_chk(int fd, void *buffer, size_t size, off64_t offset, size_t room);
ssize_t __recv_chk(int fd, void *buffer, size_t size, size_t room, int flags);
ssize_t __recvfrom_chk(int fd, void *buffer, size_t size, size_t room, int flags,
		       struct sockaddr *name, socklen_t *length);
size_t __fread_chk(void *buffer, size_t room, size_t size, size_t items, FILE *stream);
size_t __fread_unlocked_chk(void *buffer, size_t room, size_t size, size_t items, FILE *stream);

#define TC_NAMES(X)                                                                                \
	X(read) X(__read_chk) X(write)                                                             \
	X(pread) X(pread64) X(__pread_chk) X(__pread64_chk) X(pwrite) X(pwrite64)                  \
	X(readv) X(writev)                                                                         \
	X(preadv) X(preadv64) X(preadv2) X(preadv64v2)                                             \
	X(pwritev) X(pwritev64) X(pwritev2) X(pwritev64v2)                                         \
	X(recv) X(__recv_chk) X(recvfrom) X(__recvfrom_chk) X(recvmsg) X(recvmmsg)                 \
	X(send) X(sendto) X(sendmsg) X(sendmmsg)                                                   \
	X(fread) X(fread_unlocked) X(__fread_chk) X(__fread_unlocked_chk)                          \
	X(fwrite) X(fwrite_unlocked)

#pragma GCC visibility push(hidden)

/* real.c: the functions that are wrapped, as the next library in the order of search has them. */
struct tc_real {
#define TC_MEMBER(name) __typeof__(&name) name;
	TC_NAMES(TC_MEMBER)
#undef TC_MEMBER
};

extern struct tc_real tc_real;
void tc_find_real(void);
void tc_find_default(void);

#define TC_REAL(name)                                                                              \
	(__builtin_expect(!__atomic_load_n(&tc_real.name, __ATOMIC_RELAXED), 0) ?                  \
		 (tc_find_real(), tc_real.name) :                                                  \
		 tc_real.name)

/* range.c: the addresses of tiered memory, none until Python says so. */
extern uintptr_t tc_low, tc_high;

/* Whether a buffer lies in tiered memory, or overlaps it. */
static inline bool tc_tiered(const void *buffer, size_t size)
{
	uintptr_t begin = (uintptr_t)buffer, low;

	if (__builtin_expect(begin >= __atomic_load_n(&tc_high, __ATOMIC_ACQUIRE), 1))
		return false;
	low = __atomic_load_n(&tc_low, __ATOMIC_RELAXED);
	return size > (begin < low ? low - begin : 0);
}

bool tc_tiered_vector(const struct iovec *vector, size_t count);

/* bounce.c */
#define TC_SMALL 4096

struct bounce {
	char *data;
	size_t mapped; /* bytes to unmap, 0: the data are on the stack */
};

bool tc_bounce_map(struct bounce *bounce, size_t size, bool populate);
void tc_bounce_unmap(void *bounce);

/* A place in a vector. */
struct cursor {
	const struct iovec *vector;
	size_t skip;
};

void tc_gather(struct cursor *cursor, char *to, size_t size);
void tc_scatter(struct cursor *cursor, const char *from, size_t size);

/* descriptor.c */
enum tc_kind {
	TC_FILE,    /* bytes that are there: a read is short at the end only */
	TC_APPEND,  /* the same, and each write goes to the end in one piece */
	TC_STREAM,  /* bytes that come: a read takes what is there */
	TC_RECORDS, /* each call is a record */
};

enum tc_kind tc_kind_of(int fd);

/* signals.c */
void tc_signals_hold(sigset_t *before);
/* -> whether one has come meanwhile that interrupts a call. */
bool tc_signals_release(const sigset_t *before);

/* transfer.c */
#define TC_PIECE ((size_t)1 << 20)
#define TC_APPENDED ((size_t)8 << 20)
/* More than this no call moves (MAX_RW_COUNT, include/linux/fs.h). */
#define TC_MOST ((size_t)0x7ffff000)

struct call {
	/* One piece. @done: how many bytes went before it. */
	ssize_t (*step)(const struct call *call, void *data, size_t size, size_t done);
	int fd;
	int flags;
	off_t offset;
	const struct sockaddr *to;
	struct sockaddr *from;
	socklen_t *from_length;
	socklen_t to_length;
	struct msghdr *header;
	const struct msghdr *const_header;
	bool whole;   /* never more than one piece */
	bool append;  /* whatever the descriptor says */
	bool waits;   /* goes on until all is there, on a stream, too */
	bool sparing; /* may leave the buffer, or parts of it, as it was */
};

ssize_t tc_put(const struct call *call, const struct iovec *vector, size_t count);
ssize_t tc_take(const struct call *call, const struct iovec *vector, size_t count);

/* The bytes of a vector, -1 if the kernel refuses that many. */
ssize_t tc_total(const struct iovec *vector, size_t count);

#pragma GCC visibility pop

#endif
