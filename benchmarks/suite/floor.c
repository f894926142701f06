/* The least that a userfaultfd handler can do: copy a page from its memory to where it was missed.
 *
 *     floor PAGE_SIZE PAGES SEED [CPU_OF_THE_PROGRAM CPU_OF_THE_HANDLER]
 *
 * A process touches every page of shared memory once, in random order; another one answers. Prints nanoseconds a page.
 * Status 2: it is not to be had here. Status 3: a page was wrong. See userfaultfd(2), ioctl_userfaultfd(2).
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static void fail(const char *what)
{
    fprintf(stderr, "%s: %s\n", what, strerror(errno));
    exit(2);
}

static void stay_on(int cpu)
{
    cpu_set_t set;

    CPU_ZERO(&set);
    CPU_SET(cpu, &set);
    if (sched_setaffinity(0, sizeof set, &set))
        fail("sched_setaffinity");
}

static uint64_t nanoseconds(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000000000ull + now.tv_nsec;
}

/* The store is as large as what is managed, and has been written: a copy finds its source in DRAM as ours does. */
static void handle(int uffd, char *base, const char *store, size_t page)
{
    struct pollfd ready = {.fd = uffd, .events = POLLIN};
    struct uffd_msg message;

    for (;;) {
        if (read(uffd, &message, sizeof message) != sizeof message) {
            if (errno != EAGAIN)
                fail("read");
            poll(&ready, 1, -1);
            continue;
        }
        uint64_t at = message.arg.pagefault.address & ~(uint64_t)(page - 1);
        struct uffdio_copy copy = {.dst = at, .src = (uint64_t)store + (at - (uint64_t)base), .len = page};
        if (ioctl(uffd, UFFDIO_COPY, &copy) && errno != EEXIST)
            fail("UFFDIO_COPY");
    }
}

int main(int argc, char **argv)
{
    if (argc != 4 && argc != 6)
        return 1;
    size_t page = strtoull(argv[1], 0, 0), pages = strtoull(argv[2], 0, 0), size = page * pages;
    srandom(strtoul(argv[3], 0, 0));
    int memory = memfd_create("floor", MFD_CLOEXEC);
    if (memory < 0 || ftruncate(memory, size))
        fail("memfd_create");
    /* Aligned to the page, for whoever faults is answered with all of it. */
    char *room = mmap(0, size + page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    char *base = (char *)(((uint64_t)room + page - 1) & ~(uint64_t)(page - 1));
    if (room == MAP_FAILED || mmap(base, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, memory, 0) != base)
        fail("mmap");
    madvise(base, size, MADV_NOHUGEPAGE);
    int uffd = syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
    struct uffdio_api api = {.api = UFFD_API};
    struct uffdio_register range = {.range = {(uint64_t)base, size}, .mode = UFFDIO_REGISTER_MODE_MISSING};
    if (uffd < 0 || ioctl(uffd, UFFDIO_API, &api) || ioctl(uffd, UFFDIO_REGISTER, &range))
        fail("userfaultfd");
    char *store = mmap(0, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    size_t *order = malloc(pages * sizeof *order);
    if (store == MAP_FAILED || !order)
        fail("mmap");
    for (size_t i = 0; i < pages; i++) {
        memset(store + i * page, (int)i, page);
        *(uint64_t *)(store + i * page) = i;
        order[i] = i;
    }
    for (size_t i = pages - 1; i; i--) {
        size_t other = random() % (i + 1), kept = order[i];
        order[i] = order[other];
        order[other] = kept;
    }
    /* Memory that the host has taken back is dear to touch: have all of it once, and give it back to this kernel. */
    char *warm = mmap(0, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    if (warm != MAP_FAILED)
        munmap(warm, size);

    pid_t handler = fork();
    if (handler < 0)
        fail("fork");
    if (!handler) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (argc == 6)
            stay_on(atoi(argv[5]));
        handle(uffd, base, store, page);
    }
    if (argc == 6)
        stay_on(atoi(argv[4]));
    int wrong = 0;
    uint64_t begun = nanoseconds();
    for (size_t i = 0; i < pages; i++)
        wrong |= *(volatile uint64_t *)(base + order[i] * page) != order[i];
    uint64_t taken = nanoseconds() - begun;
    kill(handler, SIGKILL);
    waitpid(handler, 0, 0);
    if (wrong) {
        fprintf(stderr, "wrong: a page is not what was copied\n");
        return 3;
    }
    printf("%.1f\n", (double)taken / pages);
    return 0;
}
