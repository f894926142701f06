/* SPDX-License-Identifier: Apache-2.0 */
/* send(2), recv(2) and their like, but for those of many messages (messages.c). */
#include "syscalls.h"

/* A part of a stream is not the whole message: what stands for the message stands for one part of it. */
static int flags_of(const struct call *call, size_t done, bool last)
{
	int flags = call->flags;

	if (done)
		flags &= ~MSG_FASTOPEN;
	if (!last)
		flags &= ~(MSG_OOB | MSG_EOR);
	return flags;
}

struct sending {
	struct call call;
	size_t total;
};

static bool is_last(const struct call *call, size_t size, size_t done)
{
	return done + size >= ((const struct sending *)call)->total;
}

static ssize_t step_sendto(const struct call *call, void *data, size_t size, size_t done)
{
	int flags = flags_of(call, done, is_last(call, size, done));

	if (done || !call->to)
		return TC_REAL(send)(call->fd, data, size, flags);
	return TC_REAL(sendto)(call->fd, data, size, flags, call->to, call->to_length);
}

static ssize_t step_sendmsg(const struct call *call, void *data, size_t size, size_t done)
{
	struct iovec one = { data, size };
	struct msghdr header = *call->const_header;

	header.msg_iov = &one;
	header.msg_iovlen = 1;
	if (done) { /* they came with the first piece */
		header.msg_name = header.msg_control = NULL;
		header.msg_namelen = 0;
		header.msg_controllen = 0;
	}
	return TC_REAL(sendmsg)(call->fd, &header, flags_of(call, done, is_last(call, size, done)));
}

static ssize_t step_recvfrom(const struct call *call, void *data, size_t size, size_t done)
{
	if (done)
		return TC_REAL(recv)(call->fd, data, size, call->flags);
	return TC_REAL(recvfrom)(call->fd, data, size, call->flags, call->from, call->from_length);
}

static ssize_t step_recvmsg(const struct call *call, void *data, size_t size, size_t done)
{
	struct iovec one = { data, size };
	struct msghdr header = *call->header;
	ssize_t received;

	header.msg_iov = &one;
	header.msg_iovlen = 1;
	if (done)
		return TC_REAL(recv)(call->fd, data, size, call->flags);
	received = TC_REAL(recvmsg)(call->fd, &header, call->flags);
	if (received >= 0) {
		call->header->msg_namelen = header.msg_namelen;
		call->header->msg_controllen = header.msg_controllen;
		call->header->msg_flags = header.msg_flags;
	}
	return received;
}

TC_RARE static ssize_t put(struct call call, const struct iovec *vector, size_t count)
{
	struct sending sending = { .call = call, .total = (size_t)tc_total(vector, count) };

	/* The kernel tells the program of the end of each call: there may be one. */
	sending.call.whole = call.flags & MSG_ZEROCOPY;
	return tc_put(&sending.call, vector, count);
}

TC_RARE static ssize_t take(struct call call, const struct iovec *vector, size_t count, bool divisible)
{
	int once = MSG_PEEK | MSG_TRUNC | MSG_OOB | MSG_ERRQUEUE | MSG_DONTWAIT;

	call.waits = divisible && call.flags & MSG_WAITALL && !(call.flags & once);
	call.sparing = call.flags & MSG_TRUNC; /* TCP drops the bytes and says how many */
	return tc_take(&call, vector, count);
}

static struct iovec limited(const void *buffer, size_t size)
{
	return (struct iovec){ (void *)buffer, size < TC_MOST ? size : TC_MOST };
}

TC_WRAP(ssize_t, send, int fd, const void *buffer, size_t size, int flags)
{
	struct iovec one = limited(buffer, size);

	if (!tc_tiered(buffer, size))
		return TC_REAL(send)(fd, buffer, size, flags);
	return put((struct call){ .step = step_sendto, .fd = fd, .flags = flags }, &one, 1);
}

TC_WRAP(ssize_t, sendto, int fd, const void *buffer, size_t size, int flags,
	const struct sockaddr *name, socklen_t length)
{
	struct iovec one = limited(buffer, size);
	struct call call = {
		.step = step_sendto, .fd = fd, .flags = flags, .to = name, .to_length = length
	};

	if (!tc_tiered(buffer, size))
		return TC_REAL(sendto)(fd, buffer, size, flags, name, length);
	return put(call, &one, 1);
}

TC_WRAP(ssize_t, recv, int fd, void *buffer, size_t size, int flags)
{
	struct iovec one = limited(buffer, size);

	if (!tc_tiered(buffer, size))
		return TC_REAL(recv)(fd, buffer, size, flags);
	return take((struct call){ .step = step_recvfrom, .fd = fd, .flags = flags }, &one, 1, true);
}

TC_WRAP(ssize_t, __recv_chk, int fd, void *buffer, size_t size, size_t room, int flags)
{
	if (!tc_tiered(buffer, size) || size > room)
		return TC_REAL(__recv_chk)(fd, buffer, size, room, flags);
	return tc_own_recv(fd, buffer, size, flags);
}

TC_WRAP(ssize_t, recvfrom, int fd, void *buffer, size_t size, int flags, struct sockaddr *name,
	socklen_t *length)
{
	struct iovec one = limited(buffer, size);
	struct call call = {
		.step = step_recvfrom, .fd = fd, .flags = flags, .from = name, .from_length = length
	};

	if (!tc_tiered(buffer, size))
		return TC_REAL(recvfrom)(fd, buffer, size, flags, name, length);
	return take(call, &one, 1, true);
}

TC_WRAP(ssize_t, __recvfrom_chk, int fd, void *buffer, size_t size, size_t room, int flags,
	struct sockaddr *name, socklen_t *length)
{
	if (!tc_tiered(buffer, size) || size > room)
		return TC_REAL(__recvfrom_chk)(fd, buffer, size, room, flags, name, length);
	return tc_own_recvfrom(fd, buffer, size, flags, name, length);
}

/* Whether the kernel accepts the vector of a message, and a part of it, or the message's header, is tiered. */
static bool covers(const struct msghdr *header)
{
	if (!__atomic_load_n(&tc_high, __ATOMIC_RELAXED) || !header)
		return false;
	return header->msg_iovlen <= IOV_MAX &&
	       (tc_tiered(header, sizeof(*header)) ||
		tc_tiered_vector(header->msg_iov, header->msg_iovlen)) &&
	       tc_total(header->msg_iov, header->msg_iovlen) > 0;
}

TC_WRAP(ssize_t, sendmsg, int fd, const struct msghdr *header, int flags)
{
	if (!covers(header))
		return TC_REAL(sendmsg)(fd, header, flags);
	return put((struct call){ .step = step_sendmsg, .fd = fd, .flags = flags, .const_header = header },
		   header->msg_iov, header->msg_iovlen);
}

TC_WRAP(ssize_t, recvmsg, int fd, struct msghdr *header, int flags)
{
	if (!covers(header))
		return TC_REAL(recvmsg)(fd, header, flags);
	/* Where ancillary data may come, the kernel says where it ends: with them. */
	return take((struct call){ .step = step_recvmsg, .fd = fd, .flags = flags, .header = header },
		    header->msg_iov, header->msg_iovlen, !header->msg_controllen);
}
