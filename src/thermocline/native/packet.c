/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Packets between the processes of a memory (thermocline/live/control.py), on sockets that this
 * process may lose: Python's socket object would close its number when it is collected, which an
 * exception may bring about at any instruction.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>

#include "thermocline.h"

#define MOST_FDS 253 /* of one packet, for the kernel (unix(7), SCM_RIGHTS) */

union control {
	struct cmsghdr header;
	char room[CMSG_SPACE(TC_PACKET_FDS * sizeof(int))];
};

/* Returns 0 or an errno. */
int tc_packet_send(int peer, const void *data, size_t size, const int *fds, size_t count)
{
	union {
		struct cmsghdr header;
		char room[CMSG_SPACE(MOST_FDS * sizeof(int))];
	} control = { .room = { 0 } };
	struct iovec vector = { .iov_base = (void *)data, .iov_len = size };
	struct msghdr message = { .msg_iov = &vector, .msg_iovlen = 1 };

	if (count > MOST_FDS)
		return EINVAL;
	if (count) {
		struct cmsghdr *header;

		message.msg_control = control.room;
		message.msg_controllen = CMSG_SPACE(count * sizeof(int));
		header = CMSG_FIRSTHDR(&message);
		header->cmsg_level = SOL_SOCKET;
		header->cmsg_type = SCM_RIGHTS;
		header->cmsg_len = CMSG_LEN(count * sizeof(int));
		memcpy(CMSG_DATA(header), fds, count * sizeof(int));
	}
	return sendmsg(peer, &message, MSG_NOSIGNAL) < 0 ? errno : 0;
}

/* Whether the other end is closed. What it said before may still wait to be received. */
static bool has_hung_up(int peer)
{
	struct pollfd poll_of = { .fd = peer, .events = POLLRDHUP };

	return poll(&poll_of, 1, 0) > 0;
}

/* Wait for a packet. Returns 0 or an errno. */
int tc_packet_receive(int peer, struct tc_received *received)
{
	union control control;
	struct iovec vector = { .iov_base = received->data, .iov_len = sizeof(received->data) };
	struct msghdr message = {
		.msg_iov = &vector,
		.msg_iovlen = 1,
		.msg_control = control.room,
		.msg_controllen = sizeof(control.room),
	};
	struct cmsghdr *header;
	ssize_t got = recvmsg(peer, &message, MSG_CMSG_CLOEXEC);

	if (got < 0 && errno != ECONNRESET)
		return errno;
	received->size = got < 0 ? 0 : (uint32_t)got;
	received->is_cut = (message.msg_flags & MSG_TRUNC) != 0;
	received->is_over = got < 0 || (!got && has_hung_up(peer));
	received->count = 0;
	if (got < 0)
		return 0;
	for (header = CMSG_FIRSTHDR(&message); header; header = CMSG_NXTHDR(&message, header)) {
		if (header->cmsg_level != SOL_SOCKET || header->cmsg_type != SCM_RIGHTS)
			continue;
		received->count = (uint32_t)((header->cmsg_len - CMSG_LEN(0)) / sizeof(int));
		memcpy(received->fds, CMSG_DATA(header), received->count * sizeof(int));
	}
	return 0;
}

#define FIELD(member) TC_FIELD(struct tc_received, member)

const struct tc_field tc_received_fields[] = {
	FIELD(data), FIELD(size), FIELD(is_cut), FIELD(is_over), FIELD(count), FIELD(fds),
	TC_END(struct tc_received),
};
