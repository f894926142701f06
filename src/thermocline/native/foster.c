// SPDX-License-Identifier: Apache-2.0
/*
 * A parent for helpers, which the program's wait(2) does not meet.
 *
 * Helpers leave the program's family: what starts them ends at once, and they become children of
 * the nearest process that adopts orphans. Where that is the program itself (PID 1 of a container, or
 * PR_SET_CHILD_SUBREAPER), it would wait for them until the end of time, when it waits for all its
 * children. So there they get a foster parent: a child of the program that adopts orphans itself
 * and sends no signal when it ends. wait(2) passes over children of that sort, unless __WCLONE or
 * __WALL asks for them (kernel/exit.c, eligible_child). An exec would make it a child like any
 * other (fs/exec.c, de_thread), so it runs on in the program's image, of which it keeps next to
 * nothing.
 *
 * Between the clone and its end it may call what a signal handler may, as any child of a process
 * with threads; it runs no fork handlers, and no handler of a signal, for all are blocked.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/close_range.h>
#include <limits.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "thermocline.h"

/* A copy of this process, whose end sends this signal, or none -> its id; 0 in the copy. */
static pid_t copy_process(int signal)
{
#ifdef __s390x__
	return (pid_t)syscall(SYS_clone, 0, (long)signal, 0, 0, 0);
#else
	return (pid_t)syscall(SYS_clone, (long)signal, 0, 0, 0, 0);
#endif
}

static _Noreturn void become_starter(const struct tc_starter *starter, const sigset_t *mask)
{
	size_t index;
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);

	setsid();
	syscall(SYS_close_range, 3, UINT_MAX, CLOSE_RANGE_CLOEXEC);
	for (index = 0; index < starter->kept_count; index++)
		fcntl(starter->kept[index], F_SETFD, 0);
	/* No descriptor that is kept is a standard stream (live/descriptor.py). */
	if (null >= 0 && dup2(starter->input, 0) >= 0 && dup2(null, 1) >= 0) {
		signal(SIGPIPE, SIG_DFL);
		signal(SIGXFSZ, SIG_DFL);
		sigprocmask(SIG_SETMASK, mask, NULL);
		execve(starter->path, starter->arguments, starter->environment);
	}
	_exit(127);
}

struct reader {
	int fd;
	char text[1024];
	size_t next, end;
};

static int next_character(struct reader *reader)
{
	ssize_t got;

	if (reader->next == reader->end) {
		got = read(reader->fd, reader->text, sizeof(reader->text));
		if (got <= 0)
			return -1;
		reader->next = 0;
		reader->end = (size_t)got;
	}
	return (unsigned char)reader->text[reader->next++];
}

/* A hexadecimal number and what stands behind it. */
static uintptr_t next_address(struct reader *reader, int *behind)
{
	uintptr_t address = 0;
	int character;

	for (;;) {
		character = next_character(reader);
		if (character >= '0' && character <= '9')
			address = address << 4 | (uintptr_t)(character - '0');
		else if (character >= 'a' && character <= 'f')
			address = address << 4 | (uintptr_t)(character - 'a' + 10);
		else
			break;
	}
	*behind = character;
	return address;
}

/*
 * Let go of the program's data: until then, each page of it that the program writes would be copied
 * for this process. What is kept: files (the code), their zeroed data behind them, this stack, and
 * what the thread has for itself.
 */
static __attribute__((unused)) void forget_data(void)
{
	struct reader maps = { .fd = open("/proc/self/maps", O_RDONLY | O_CLOEXEC) };
	uintptr_t begin, end, file_end = 0, here = (uintptr_t)&maps, own = (uintptr_t)&errno;
	int character, field, behind;
	bool is_file;

	while (maps.fd >= 0) {
		begin = next_address(&maps, &behind);
		if (behind != '-')
			break;
		end = next_address(&maps, &behind);
		/* Mode, offset, device, inode, and the name of a file, which has a slash in it. */
		is_file = false;
		for (field = 0; (character = next_character(&maps)) >= 0 && character != '\n';) {
			field += character == ' ';
			is_file |= character == '/';
		}
		if (is_file)
			file_end = end;
		else if (begin != file_end && !(begin <= here && here < end) &&
			 !(begin <= own && own < end))
			munmap((void *)begin, end - begin);
	}
	close(maps.fd);
}

static _Noreturn void be_parent(const struct tc_starter *starter, const sigset_t *mask)
{
	int status = -1, ended;
	pid_t child, pid;

	setsid();
	prctl(PR_SET_NAME, "thermocline");
	prctl(PR_SET_CHILD_SUBREAPER, 1);
	child = copy_process(SIGCHLD);
	if (!child)
		become_starter(starter, mask);
	if (dup2(starter->report, 0) >= 0)
		syscall(SYS_close_range, 1, UINT_MAX, 0);
	if (chdir("/"))
		_exit(1);
	while (child > 0) {
		pid = waitpid(-1, &ended, __WALL);
		if (pid == child) {
			status = ended;
			break;
		}
		if (pid < 0 && errno != EINTR)
			break;
	}
	if (write(0, &status, sizeof(status)) != sizeof(status))
		_exit(1);
	close(0);
#ifndef __SANITIZE_ADDRESS__ /* which has data of its own, and looks at it all the time */
	forget_data();
#endif
	do {
		pid = waitpid(-1, &ended, __WALL);
	} while (pid > 0 || errno == EINTR);
	_exit(0);
}

int tc_foster(const struct tc_starter *starter)
{
	sigset_t all, mask;
	pid_t parent;
	int error;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &mask);
	parent = copy_process(0);
	if (!parent)
		be_parent(starter, &mask);
	error = errno;
	pthread_sigmask(SIG_SETMASK, &mask, NULL);
	return parent < 0 ? -error : parent;
}

#define FIELD(member) TC_FIELD(struct tc_starter, member)

const struct tc_field tc_starter_fields[] = {
	FIELD(path),
	FIELD(arguments),
	FIELD(environment),
	FIELD(kept),
	FIELD(kept_count),
	FIELD(input),
	FIELD(report),
	TC_END(struct tc_starter),
};
