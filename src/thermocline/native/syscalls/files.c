/* SPDX-License-Identifier: Apache-2.0 */
/* read(2), readv(2) and their like. */
#include "syscalls.h"

#ifndef RWF_APPEND
#define RWF_APPEND 0x10
#endif
#ifndef RWF_ATOMIC
#define RWF_ATOMIC 0x40
#endif

/* Whether the kernel accepts a vector, and a part of it is in tiered memory. */
static bool covers(const struct iovec *vector, int count)
{
	return count > 0 && count <= IOV_MAX && tc_tiered_vector(vector, (size_t)count) &&
	       tc_total(vector, (size_t)count) > 0;
}

static ssize_t step_read(const struct call *call, void *data, size_t size, size_t done)
{
	(void)done;
	return TC_REAL(read)(call->fd, data, size);
}

static ssize_t step_write(const struct call *call, void *data, size_t size, size_t done)
{
	(void)done;
	return TC_REAL(write)(call->fd, data, size);
}

static ssize_t step_pread(const struct call *call, void *data, size_t size, size_t done)
{
	return TC_REAL(pread64)(call->fd, data, size, call->offset + (off_t)done);
}

static ssize_t step_pwrite(const struct call *call, void *data, size_t size, size_t done)
{
	return TC_REAL(pwrite64)(call->fd, data, size, call->offset + (off_t)done);
}

/* An offset of -1 stands for the file's own, which moves by itself (preadv2(2)). */
static off_t after(const struct call *call, size_t done)
{
	return call->offset == -1 ? -1 : call->offset + (off_t)done;
}

static ssize_t step_preadv2(const struct call *call, void *data, size_t size, size_t done)
{
	struct iovec one = { data, size };

	return TC_REAL(preadv64v2)(call->fd, &one, 1, after(call, done), call->flags);
}

static ssize_t step_pwritev2(const struct call *call, void *data, size_t size, size_t done)
{
	struct iovec one = { data, size };

	return TC_REAL(pwritev64v2)(call->fd, &one, 1, after(call, done), call->flags);
}

TC_RARE static ssize_t take(struct call call, void *buffer, size_t size)
{
	struct iovec one = { buffer, size < TC_MOST ? size : TC_MOST };

	return tc_take(&call, &one, 1);
}

TC_RARE static ssize_t put(struct call call, const void *buffer, size_t size)
{
	struct iovec one = { (void *)buffer, size < TC_MOST ? size : TC_MOST };

	return tc_put(&call, &one, 1);
}

TC_WRAP(ssize_t, read, int fd, void *buffer, size_t size)
{
	if (!tc_tiered(buffer, size))
		return TC_REAL(read)(fd, buffer, size);
	return take((struct call){ .step = step_read, .fd = fd }, buffer, size);
}

TC_WRAP(ssize_t, __read_chk, int fd, void *buffer, size_t size, size_t room)
{
	if (!tc_tiered(buffer, size) || size > room)
		return TC_REAL(__read_chk)(fd, buffer, size, room);
	return take((struct call){ .step = step_read, .fd = fd }, buffer, size);
}

TC_WRAP(ssize_t, write, int fd, const void *buffer, size_t size)
{
	if (!tc_tiered(buffer, size))
		return TC_REAL(write)(fd, buffer, size);
	return put((struct call){ .step = step_write, .fd = fd }, buffer, size);
}

#define PREAD(name)                                                                                \
	TC_WRAP(ssize_t, name, int fd, void *buffer, size_t size, off_t offset)                    \
	{                                                                                          \
		if (!tc_tiered(buffer, size))                                                      \
			return TC_REAL(name)(fd, buffer, size, offset);                            \
		return take((struct call){ .step = step_pread, .fd = fd, .offset = offset },       \
			    buffer, size);                                                         \
	}

PREAD(pread)
PREAD(pread64)

#define PREAD_CHK(name)                                                                            \
	TC_WRAP(ssize_t, name, int fd, void *buffer, size_t size, off_t offset, size_t room)       \
	{                                                                                          \
		if (!tc_tiered(buffer, size) || size > room)                                       \
			return TC_REAL(name)(fd, buffer, size, offset, room);                      \
		return take((struct call){ .step = step_pread, .fd = fd, .offset = offset },       \
			    buffer, size);                                                         \
	}

PREAD_CHK(__pread_chk)
PREAD_CHK(__pread64_chk)

#define PWRITE(name)                                                                               \
	TC_WRAP(ssize_t, name, int fd, const void *buffer, size_t size, off_t offset)              \
	{                                                                                          \
		if (!tc_tiered(buffer, size))                                                      \
			return TC_REAL(name)(fd, buffer, size, offset);                            \
		return put((struct call){ .step = step_pwrite, .fd = fd, .offset = offset },       \
			   buffer, size);                                                          \
	}

PWRITE(pwrite)
PWRITE(pwrite64)

TC_WRAP(ssize_t, readv, int fd, const struct iovec *vector, int count)
{
	struct call call = { .step = step_read, .fd = fd };

	if (!covers(vector, count))
		return TC_REAL(readv)(fd, vector, count);
	return tc_take(&call, vector, (size_t)count);
}

TC_WRAP(ssize_t, writev, int fd, const struct iovec *vector, int count)
{
	struct call call = { .step = step_write, .fd = fd };

	if (!covers(vector, count))
		return TC_REAL(writev)(fd, vector, count);
	return tc_put(&call, vector, (size_t)count);
}

#define PREADV(name)                                                                               \
	TC_WRAP(ssize_t, name, int fd, const struct iovec *vector, int count, off_t offset)        \
	{                                                                                          \
		struct call call = { .step = step_pread, .fd = fd, .offset = offset };             \
                                                                                                   \
		if (!covers(vector, count))                                                        \
			return TC_REAL(name)(fd, vector, count, offset);                           \
		return tc_take(&call, vector, (size_t)count);                                      \
	}

PREADV(preadv)
PREADV(preadv64)

#define PWRITEV(name)                                                                              \
	TC_WRAP(ssize_t, name, int fd, const struct iovec *vector, int count, off_t offset)        \
	{                                                                                          \
		struct call call = { .step = step_pwrite, .fd = fd, .offset = offset };            \
                                                                                                   \
		if (!covers(vector, count))                                                        \
			return TC_REAL(name)(fd, vector, count, offset);                           \
		return tc_put(&call, vector, (size_t)count);                                       \
	}

PWRITEV(pwritev)
PWRITEV(pwritev64)

#define PREADV2(name)                                                                              \
	TC_WRAP(ssize_t, name, int fd, const struct iovec *vector, int count, off_t offset,        \
		int flags)                                                                         \
	{                                                                                          \
		struct call call = {                                                               \
			.step = step_preadv2, .fd = fd, .offset = offset, .flags = flags           \
		};                                                                                 \
                                                                                                   \
		if (!covers(vector, count))                                                        \
			return TC_REAL(name)(fd, vector, count, offset, flags);                    \
		return tc_take(&call, vector, (size_t)count);                                      \
	}

PREADV2(preadv2)
PREADV2(preadv64v2)

#define PWRITEV2(name)                                                                             \
	TC_WRAP(ssize_t, name, int fd, const struct iovec *vector, int count, off_t offset,        \
		int flags)                                                                         \
	{                                                                                          \
		struct call call = { .step = step_pwritev2,                                        \
				     .fd = fd,                                                     \
				     .offset = offset,                                             \
				     .flags = flags,                                               \
				     .append = flags & RWF_APPEND,                                 \
				     .whole = flags & RWF_ATOMIC };                                \
                                                                                                   \
		if (!covers(vector, count))                                                        \
			return TC_REAL(name)(fd, vector, count, offset, flags);                    \
		return tc_put(&call, vector, (size_t)count);                                       \
	}

PWRITEV2(pwritev2)
PWRITEV2(pwritev64v2)
