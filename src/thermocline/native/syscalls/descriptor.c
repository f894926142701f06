/* SPDX-License-Identifier: Apache-2.0 */
/* Into which pieces a call on a descriptor may be cut without anybody being able to tell. */
#include "syscalls.h"

#include <fcntl.h>
#include <netinet/in.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#define MEM_MAJOR 1 /* /dev/zero, /dev/null, /dev/urandom (Documentation/admin-guide/devices.txt) */

#ifndef IPPROTO_MPTCP
#define IPPROTO_MPTCP 262
#endif

static enum tc_kind kind_of_socket(int fd)
{
	int type = 0, protocol = 0;
	socklen_t size = sizeof(type);

	if (getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &size) || type != SOCK_STREAM)
		return TC_RECORDS;
	size = sizeof(protocol);
	if (getsockopt(fd, SOL_SOCKET, SO_PROTOCOL, &protocol, &size))
		return TC_RECORDS;
	/* SCTP keeps the bounds of messages in a SOCK_STREAM, too. */
	if (protocol && protocol != IPPROTO_TCP && protocol != IPPROTO_MPTCP)
		return TC_RECORDS;
	return TC_STREAM;
}

/* What a descriptor refers to. Changes errno. */
enum tc_kind tc_kind_of(int fd)
{
	struct stat status;
	int flags;

	if (fstat(fd, &status))
		return TC_FILE; /* the call itself will say so */
	switch (status.st_mode & S_IFMT) {
	case S_IFREG:
	case S_IFBLK:
		flags = fcntl(fd, F_GETFL);
		return flags >= 0 && flags & O_APPEND ? TC_APPEND : TC_FILE;
	case S_IFIFO:
		return TC_STREAM;
	case S_IFSOCK:
		return kind_of_socket(fd);
	case S_IFCHR:
		if (major(status.st_rdev) == MEM_MAJOR)
			return TC_FILE;
		return isatty(fd) ? TC_STREAM : TC_RECORDS;
	default:
		return TC_RECORDS;
	}
}
