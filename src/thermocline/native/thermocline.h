/* SPDX-License-Identifier: Apache-2.0 */
#ifndef THERMOCLINE_H
#define THERMOCLINE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

/*
 * Changes with every function whose arguments change and with every structure that Python fills;
 * ABI in __init__.py is the same number.
 */
#define TC_ABI 17

#define TC_EXPORT __attribute__((visibility("default")))

/* abi.c */
TC_EXPORT int tc_abi(void);

/*
 * The layout of a structure that Python declares as well, as a ctypes.Structure: each field by its
 * name, in order, and then NULL with the size of the whole. The tests compare the two.
 */
struct tc_field {
	const char *name;
	size_t offset;
	size_t size;
};

#define TC_FIELD(type, member) { #member, offsetof(type, member), sizeof(((type *)0)->member) }
#define TC_END(type) { NULL, sizeof(type), 0 }

/* python.c: CPython's functions; void * stands for PyObject *, intptr_t for Py_ssize_t. */
struct tc_python {
	void (*PyErr_Fetch)(void **type, void **value, void **traceback);
	void (*PyErr_Restore)(void *type, void *value, void *traceback);
	void (*PyErr_NormalizeException)(void **type, void **value, void **traceback);
	int (*PyErr_GivenExceptionMatches)(void *given, void *type);
	void *(*PyObject_GetAttrString)(void *object, const char *name);
	intptr_t (*PyUnicode_Tailmatch)(void *text, void *part, intptr_t low, intptr_t high,
					int direction);
	void *(*PyErr_NoMemory)(void);
	void *(*PyObject_CallFunction)(void *function, const char *format, ...);
	void *(*PyObject_CallObject)(void *function, void *arguments);
	void *(*Py_BuildValue)(const char *format, ...);
	intptr_t (*PyLong_AsSsize_t)(void *integer);
	int (*PyList_Append)(void *list, void *item);
	int (*PyList_SetSlice)(void *list, intptr_t low, intptr_t high, void *items);
	void *(*PyCapsule_New)(void *pointer, const char *name, void (*destructor)(void *capsule));
	int (*PyCapsule_IsValid)(void *object, const char *name);
	void *(*PyCapsule_GetPointer)(void *capsule, const char *name);
	void (*Py_IncRef)(void *object);
	void (*Py_DecRef)(void *object);
	int (*Py_AddPendingCall)(int (*function)(void *argument), void *argument);
	int (*PyObject_IsTrue)(void *object);
	unsigned long (*PyThread_get_thread_ident)(void);
	int (*PyGILState_Ensure)(void);
	void (*PyGILState_Release)(int state);
	void *(*PyEval_SaveThread)(void);
	void (*PyEval_RestoreThread)(void *thread);
};

extern struct tc_python tc_python;
TC_EXPORT extern const struct tc_field tc_python_fields[];
/* Before anything else of this library that enters Python. */
TC_EXPORT void tc_python_use(const struct tc_python *functions);

/* errors.c */
struct tc_errors {
	void *list;    /* of (thread, exception) */
	void *courier; /* its truth value raises them */
	void *unfit;   /* types of what says that a call does not fit */
	void *package; /* with what the names of our files begin */
	void *file;    /* the courier's */
	void *none;
};

TC_EXPORT extern const struct tc_field tc_errors_fields[];
void tc_errors_keep(const struct tc_errors *errors);
void tc_errors_send(const struct tc_errors *errors);

/* guard.c: operations that an exception from outside leaves done or not done. */
struct tc_guarded {    /* Python's objects, which live as long as the guard, or for ever */
	void *settle;  /* settle() takes up what was released, and whatever else can be done now */
	void *repair;  /* repair() makes good an operation that was not done; the journal says which */
	void *journal; /* list that is empty when an operation begins */
	void *released; /* list of the values of leases that have ended */
	void *none;
	void *busy; /* the answer where the thread is in the middle of another operation */
	const struct tc_errors *errors;
};

TC_EXPORT extern const struct tc_field tc_guarded_fields[];
TC_EXPORT void *tc_guard_new(const struct tc_guarded *guarded);
TC_EXPORT void *tc_guard_run(void *guard, void *operation, void *arguments);
TC_EXPORT void *tc_guard_lease(void *guard, void *keeper, void *operation, void *arguments);
TC_EXPORT void tc_guard_settle(void *guard);
TC_EXPORT void *tc_lease_value(void *lease);
TC_EXPORT void tc_lease_end(void *lease);
TC_EXPORT void tc_leases_close(void);
void *tc_lease_take(void *lease);
bool tc_lease_is(void *object);

/* arena.c: a stretch of an arena that is being mapped or unmapped. */
enum tc_stretch_state {
	TC_STRETCH_NONE,
	TC_STRETCH_MAPPED,   /* it has just been mapped */
	TC_STRETCH_GOING,    /* it is mapped, and is to be unmapped */
	TC_STRETCH_UNMAPPED, /* it has just been unmapped */
};

struct tc_stretch {
	uint64_t begin; /* in bytes from the arena's address on */
	uint64_t end;
	uint32_t state;
};

TC_EXPORT extern const struct tc_field tc_stretch_fields[];
TC_EXPORT int tc_arena_map(int arena, int uffd, uint64_t address, uint64_t begin, uint64_t end,
			   struct tc_stretch *made);
TC_EXPORT int tc_arena_unmap(uint64_t address, struct tc_stretch *stretch);
/* Have faults served: those of missing pages, and of a further mode. -1 and errno if that fails. */
int tc_arena_register(int uffd, uint64_t address, uint64_t size, uint64_t mode);

/* Empty the page tables of a range in which no page is: see arena.c. Returns 0 or an errno. */
TC_EXPORT int tc_arena_empty_page_tables(int uffd, uint64_t address, uint64_t size);

/* descriptor.c */
struct tc_identity { /* of an open file: no other has it at the same time */
	uint64_t device;
	uint64_t inode;
	uint64_t cookie; /* of a socket: no other ever has it (socket(7), SO_COOKIE) */
	uint32_t type;	 /* S_IFMT */
};

TC_EXPORT extern const struct tc_field tc_identity_fields[];
TC_EXPORT int tc_descriptor_identify(int fd, struct tc_identity *identity);
TC_EXPORT int tc_descriptor_move_up(int fd, int lowest);
TC_EXPORT void tc_descriptor_close(int fd);
TC_EXPORT int tc_descriptor_connect(const char *name, size_t length);

/* fence.c */
#define TC_FENCE_MESSAGE 512 /* bytes at most */

TC_EXPORT int tc_fence_prepare(uintptr_t low, uintptr_t high, const char *message, size_t length);
TC_EXPORT void tc_fence_install(void);

/* bins.c: blocks that NumPy has freed, kept for the next of their size. */
#define TC_BINNED 128 /* blocks of one memory at most; MAX_LAZYFREE of protocol/mm.py */

struct tc_bins;
struct tc_ring;

struct tc_binned {	   /* a memory whose blocks are kept; columns are those of live/tables.py */
	uint64_t address;  /* of the arena */
	uint64_t size;
	uint64_t page_size;
	uint64_t most_pages; /* that are kept in all */
	const uint64_t *entry;
	const uint8_t *pins;
	uint32_t *lazyfree; /* by first page: a number that is not 0 while the block is kept */
	const uint32_t *region_pages;
	const uint16_t *region_source;
	const uint8_t *region_group;
	const uint8_t *region_advice;
	const uint32_t *region_born;
	const uint32_t *region_shared;
	uint32_t *list;	       /* what is kept, for the pager: first pages and 1, the oldest first; 0: the end */
	uint64_t *kept_blocks; /* what is counted */
	uint64_t *kept_bytes;
	uint64_t *reused;
	uint64_t *watched;	 /* whether the pager looks at what is kept now and then */
	const uint64_t *poisons; /* how often it has poisoned a page */
	const uint64_t *forks;	 /* tc_fork_over() */
	struct tc_ring *ring;
	uint64_t request; /* that has the pager look */
};

TC_EXPORT extern const struct tc_field tc_binned_fields[];
bool tc_bins_keep(const void *address);
void *tc_bins_take(struct tc_bins *bins, size_t bytes, bool clear);
TC_EXPORT void tc_bins_open(const struct tc_binned *binned, struct tc_bins **opened);
TC_EXPORT void tc_bins_charge(struct tc_bins *bins, uint32_t group);
TC_EXPORT void tc_bins_stop(struct tc_bins *bins);
TC_EXPORT void tc_bins_close(struct tc_bins *bins);
TC_EXPORT uint32_t tc_bins_give_up(struct tc_bins *bins, void *list, uint32_t everything);

/* filter.c */
struct tc_filter {
	size_t threshold; /* blocks of at least so many bytes are tiered; SIZE_MAX: none */
	size_t low;	  /* the arena's first address */
	size_t span;	  /* its length in bytes */
	size_t open;	  /* 0: nothing is made or freed (a forked child; the interpreter shuts down) */
	struct tc_bins *bins; /* where blocks come from first, NULL: nowhere */
	struct {	  /* NumPy's own functions, and the context they were called with */
		void *context;
		void *(*malloc)(void *context, size_t bytes);
		void *(*calloc)(void *context, size_t items, size_t size);
		void *(*realloc)(void *context, void *block, size_t bytes);
		void (*free)(void *context, void *block, size_t bytes);
	} original;
	struct {	       /* Python's objects, all of which live for ever */
		/* serve(pointer, nbytes) -> address | lease of one | 0 (exhausted) | -1 (not tiered) */
		void *serve;
		void *drain;   /* drain() frees the blocks in the backlog */
		void *backlog; /* list of addresses to free */
		const struct tc_errors *errors; /* what serve and drain could not raise */
	} object;
};

TC_EXPORT extern const struct tc_field tc_filter_fields[];
TC_EXPORT void *tc_filter_malloc(struct tc_filter *filter, size_t bytes);
TC_EXPORT void *tc_filter_calloc(struct tc_filter *filter, size_t items, size_t size);
TC_EXPORT void *tc_filter_realloc(struct tc_filter *filter, void *old, size_t bytes);
TC_EXPORT void tc_filter_free(struct tc_filter *filter, void *block, size_t bytes);

/* probe.c */
struct tc_probe {
	char *words;		   /* the thread's own word of 8 bytes in page 0 */
	uint64_t page_shift;	   /* the next page's is 1 << page_shift bytes on */
	const uint32_t *accesses;  /* one for each touch: page << 1 | write */
	uint64_t count;		   /* how many */
	uint64_t *shadow;	   /* for each page, what the thread wrote last there */
	uint32_t *nanoseconds;	   /* for each touch, how long it took; UINT32_MAX: that or longer */
	uint64_t think;		   /* nanoseconds to sleep before each touch */
	int (*get_time)(clockid_t clock, struct timespec *time); /* clock_gettime(2) */
	int (*sleep)(clockid_t clock, int flags, const struct timespec *pause,
		     struct timespec *left);			 /* clock_nanosleep(2) */
	uint64_t stop;		   /* others write here: if not 0, no more touches */
	uint64_t done;		   /* touches so far */
	uint64_t mismatches;	   /* reads so far that did not find what was written last */
};

TC_EXPORT extern const struct tc_field tc_probe_fields[];
TC_EXPORT void tc_probe(struct tc_probe *probe);

/* fork.c: children are attached to the memories of their parents. */
struct tc_memory;

struct tc_served {
	uint64_t address;
	uint64_t features; /* of the userfaultfd */
	const char *name;  /* of the supervisor's abstract socket */
	uint64_t secret;
	uint32_t number; /* of this process, among those that the supervisor knows */
	uint32_t copies; /* whether a child sees the arrays as they were */
};

struct tc_attached {
	int32_t peer; /* to the supervisor */
	int32_t uffd;
	int32_t lifeline;
	uint32_t number;
	uint32_t is_attached;
	uint32_t serves_system_calls;
};

/* From now on children are attached to a memory. Returns NULL if there is no memory for that. */
TC_EXPORT struct tc_memory *tc_fork_serve(const struct tc_served *served);
/* The memory is closed here. *memory is NULL afterwards, and nothing is done where it is before. */
TC_EXPORT void tc_fork_forget(struct tc_memory **memory);
/*
 * What of the arena a child is given: ranges, each by where it begins and ends, in bytes from the
 * arena's address on. Returns -1 if there is no memory for that.
 */
TC_EXPORT int tc_fork_map(struct tc_memory *memory, const uint64_t *bounds, size_t count);
/* In a child: those that it was given, as many as there is room for -> how many there are. */
TC_EXPORT size_t tc_fork_mapped(const struct tc_memory *memory, uint64_t *bounds, size_t room);
/*
 * Children share a range from now on; *since becomes the first fork whose child does, and *forks is
 * how many have begun. Returns -1 if there is no memory for that.
 */
TC_EXPORT int tc_fork_share(struct tc_memory *memory, uint64_t address, uint64_t size,
			    uint32_t *since, const uint64_t *forks);
TC_EXPORT void tc_fork_unshare(struct tc_memory *memory, uint64_t address);
/* The number of the last fork of this process that is over: the parent goes on, or it has failed. */
TC_EXPORT const uint64_t *tc_fork_over(const struct tc_memory *memory);
/* In a child: what it has of a memory. */
TC_EXPORT struct tc_attached tc_fork_attached(const struct tc_memory *memory);
/* foster.c: a parent for helpers of a program that adopts orphans. */
struct tc_starter {
	const char *path;
	char *const *arguments;
	char *const *environment;
	const int *kept;   /* descriptors, above the standard streams, that it has open */
	size_t kept_count;
	int32_t input;	   /* becomes its standard input */
	int32_t report;	   /* its wait status is written here, an int */
};

TC_EXPORT extern const struct tc_field tc_starter_fields[];
/* Run a program that starts helpers -> the id of their parent, or a negative errno. */
TC_EXPORT int tc_foster(const struct tc_starter *starter);
/* futex.c */
TC_EXPORT int tc_futex_wait(uint32_t *word, uint32_t expected, int64_t nanoseconds);
TC_EXPORT void tc_futex_wake(uint32_t *word);
TC_EXPORT int tc_futex_relay(uint32_t *word, uint32_t seen, int eventfd);

/* packet.c */
#define TC_PACKET 256 /* bytes at most */
#define TC_PACKET_FDS 3

struct tc_received {
	char data[TC_PACKET];
	uint32_t size;
	uint32_t is_cut; /* there was more */
	uint32_t is_over; /* nothing comes any more: the other end has hung up */
	uint32_t count; /* of descriptors */
	int32_t fds[TC_PACKET_FDS];
};

TC_EXPORT extern const struct tc_field tc_received_fields[];
TC_EXPORT int tc_packet_send(int peer, const void *data, size_t size, const int *fds, size_t count);
TC_EXPORT int tc_packet_receive(int peer, struct tc_received *received);

/* mapping.c */
TC_EXPORT int tc_unmap(uint64_t *address, uint64_t size);
TC_EXPORT int tc_discard(uint64_t address, uint64_t size);
TC_EXPORT bool tc_is_granted(uint64_t size);

/* process.c */
TC_EXPORT int tc_process_exists(int pid);
TC_EXPORT int64_t tc_process_page_tables(void);

/* ring.c: a request to the pager (live/ring.py). */
struct tc_ring {
	uint64_t *words; /* the entries */
	uint64_t *head;	 /* requests ever made: a doorbell */
	uint32_t entries;
	uint32_t entry_words;
	uint32_t lock;
};

TC_EXPORT extern const struct tc_field tc_ring_fields[];
TC_EXPORT bool tc_ring_submit(struct tc_ring *ring, uint64_t what, uint64_t first, uint64_t second,
			      uint64_t *number);

#endif
