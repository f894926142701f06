/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Descriptors of ours in a program's process (thermocline/live/descriptor.py). What cannot be done
 * is an error number here, and no exception: see thermocline/live/guard.py.
 */
#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "thermocline.h"

#ifndef SO_COOKIE
#define SO_COOKIE 57
#endif

/* Returns 0 or an errno. */
int tc_descriptor_identify(int fd, struct tc_identity *identity)
{
	socklen_t size = sizeof(identity->cookie);
	struct stat status;

	if (fstat(fd, &status))
		return errno;
	*identity = (struct tc_identity){
		.device = status.st_dev,
		.inode = status.st_ino,
		.type = status.st_mode & S_IFMT,
	};
	if (S_ISSOCK(status.st_mode) &&
	    getsockopt(fd, SOL_SOCKET, SO_COOKIE, &identity->cookie, &size))
		return errno;
	return 0;
}

/* The number, from one on, that an open file has afterwards, and no other; or a negative errno. */
int tc_descriptor_move_up(int fd, int lowest)
{
	int moved = fcntl(fd, F_DUPFD_CLOEXEC, lowest);

	if (moved < 0)
		return -errno;
	close(fd);
	return moved;
}

/* Close it if it is open. Its errors tell of the file, which is another process's. */
void tc_descriptor_close(int fd)
{
	close(fd);
}

/* A connection to a socket with an abstract name (unix(7)): its number, or a negative errno. */
int tc_descriptor_connect(const char *name, size_t length)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int fd, error;

	if (length >= sizeof(address.sun_path))
		return -ENAMETOOLONG;
	memcpy(address.sun_path + 1, name, length);
	fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	if (connect(fd, (struct sockaddr *)&address,
		    (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + length))) {
		error = errno;
		close(fd);
		return -error;
	}
	return fd;
}

#define FIELD(member) TC_FIELD(struct tc_identity, member)

const struct tc_field tc_identity_fields[] = {
	FIELD(device), FIELD(inode), FIELD(cookie), FIELD(type), TC_END(struct tc_identity),
};
