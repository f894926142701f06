/* SPDX-License-Identifier: Apache-2.0 */
/* sendmmsg(2) and recvmmsg(2): many messages in one call, and in one bounce buffer. */
#include "syscalls.h"

#include <pthread.h>

/* Where the headers are, and the bytes behind them. */
struct batch {
	int fd;
	int flags;
	struct mmsghdr *theirs;
	struct mmsghdr *ours;
	struct iovec *vectors;
	char *data;
	unsigned int count;
	struct timespec *timeout;
	struct bounce bounce;
	int error;
};

static bool is_valid(const struct msghdr *header)
{
	return header->msg_iovlen <= IOV_MAX && tc_total(header->msg_iov, header->msg_iovlen) >= 0;
}

static size_t size_of(const struct msghdr *header)
{
	return is_valid(header) ? (size_t)tc_total(header->msg_iov, header->msg_iovlen) : 0;
}

static bool covers(const struct mmsghdr *messages, unsigned int count)
{
	unsigned int index;

	if (!__atomic_load_n(&tc_high, __ATOMIC_RELAXED) || !messages)
		return false;
	if (tc_tiered(messages, count * sizeof(*messages)))
		return true;
	for (index = 0; index < count; index++)
		if (tc_tiered_vector(messages[index].msg_hdr.msg_iov,
				     messages[index].msg_hdr.msg_iovlen))
			return true;
	return false;
}

static bool prepare(struct batch *batch)
{
	size_t headers = batch->count * sizeof(*batch->ours), size = headers, used = 0, here;
	unsigned int index;

	size += batch->count * sizeof(*batch->vectors);
	for (index = 0; index < batch->count; index++)
		size += size_of(&batch->theirs[index].msg_hdr);
	if (!tc_bounce_map(&batch->bounce, size, false))
		return false;
	batch->ours = (struct mmsghdr *)batch->bounce.data;
	batch->vectors = (struct iovec *)(batch->bounce.data + headers);
	batch->data = (char *)(batch->vectors + batch->count);
	for (index = 0; index < batch->count; index++) {
		batch->ours[index] = batch->theirs[index];
		if (!is_valid(&batch->theirs[index].msg_hdr))
			continue; /* the kernel says so when it comes to it */
		here = size_of(&batch->theirs[index].msg_hdr);
		batch->vectors[index] = (struct iovec){ batch->data + used, here };
		batch->ours[index].msg_hdr.msg_iov = &batch->vectors[index];
		batch->ours[index].msg_hdr.msg_iovlen = 1;
		used += here;
	}
	return true;
}

static void fill(struct batch *batch)
{
	struct cursor cursor;
	unsigned int index;

	for (index = 0; index < batch->count; index++) {
		if (!is_valid(&batch->theirs[index].msg_hdr))
			continue;
		cursor = (struct cursor){ batch->theirs[index].msg_hdr.msg_iov, 0 };
		tc_gather(&cursor, batch->vectors[index].iov_base, batch->vectors[index].iov_len);
	}
}

static int send_all(struct batch *batch)
{
	int sent, index;

	fill(batch);
	sent = TC_REAL(sendmmsg)(batch->fd, batch->ours, batch->count, batch->flags);
	batch->error = errno;
	for (index = 0; index < sent; index++)
		batch->theirs[index].msg_len = batch->ours[index].msg_len;
	return sent;
}

static int receive_all(struct batch *batch)
{
	struct mmsghdr *ours, *theirs;
	struct cursor cursor;
	int received, index;
	size_t size;

	if (batch->flags & MSG_TRUNC)
		fill(batch); /* TCP drops the bytes and says how many */
	received = TC_REAL(recvmmsg)(batch->fd, batch->ours, batch->count, batch->flags, batch->timeout);
	batch->error = errno;
	for (index = 0; index < received; index++) {
		ours = &batch->ours[index];
		theirs = &batch->theirs[index];
		size = batch->vectors[index].iov_len;
		cursor = (struct cursor){ theirs->msg_hdr.msg_iov, 0 };
		tc_scatter(&cursor, batch->vectors[index].iov_base, ours->msg_len < size ? ours->msg_len : size);
		theirs->msg_len = ours->msg_len;
		theirs->msg_hdr.msg_namelen = ours->msg_hdr.msg_namelen;
		theirs->msg_hdr.msg_controllen = ours->msg_hdr.msg_controllen;
		theirs->msg_hdr.msg_flags = ours->msg_hdr.msg_flags;
	}
	return received;
}

static int run_mapped(struct batch *batch, int (*all)(struct batch *))
{
	int result;

	pthread_cleanup_push(tc_bounce_unmap, &batch->bounce);
	result = all(batch);
	pthread_cleanup_pop(1);
	return result;
}

static int run(struct batch *batch, int (*all)(struct batch *))
{
	int saved = errno, result;

	if (batch->count > IOV_MAX)
		batch->count = IOV_MAX; /* as the kernel does (UIO_MAXIOV, net/socket.c) */
	if (!prepare(batch))
		return -1;
	result = run_mapped(batch, all);
	errno = result < 0 ? batch->error : saved;
	return result;
}

TC_WRAP(int, sendmmsg, int fd, struct mmsghdr *messages, unsigned int count, int flags)
{
	struct batch batch = { .fd = fd, .flags = flags, .theirs = messages, .count = count };

	if (!covers(messages, count))
		return TC_REAL(sendmmsg)(fd, messages, count, flags);
	return run(&batch, send_all);
}

TC_WRAP(int, recvmmsg, int fd, struct mmsghdr *messages, unsigned int count, int flags,
	struct timespec *timeout)
{
	struct batch batch = {
		.fd = fd, .flags = flags, .theirs = messages, .count = count, .timeout = timeout
	};

	if (!covers(messages, count))
		return TC_REAL(recvmmsg)(fd, messages, count, flags, timeout);
	return run(&batch, receive_all);
}
