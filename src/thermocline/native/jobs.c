/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The threads of a pager that only compute and copy. They run beside its interpreter and never wait
 * for it: a thread that needs Python's lock has to be woken each time that it gets it, and on
 * another processor that takes longer than to unpack a page.
 *
 * What is done is told by an eventfd, on which the pager's loop waits.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "pager.h"

struct queue {
	struct tc_job *first;
	struct tc_job **last;
};

struct tc_jobs {
	pthread_mutex_t lock;
	pthread_cond_t news; /* there is something to do, or nothing will be any more */
	pthread_cond_t idle; /* none is to be done, nor being done */
	struct queue urgent; /* what a reader may wait for goes before what reclaim wants */
	struct queue wanted;
	struct queue done;
	size_t left;
	size_t sleeping;
	bool over;
	int bell;
	size_t count;
	pthread_t threads[];
};

static void append(struct queue *queue, struct tc_job *job)
{
	job->next = NULL;
	*queue->last = job;
	queue->last = &job->next;
}

static struct tc_job *take(struct queue *queue)
{
	struct tc_job *job = queue->first;

	if (!job)
		return NULL;
	queue->first = job->next;
	if (!queue->first)
		queue->last = &queue->first;
	return job;
}

static void *work(void *argument)
{
	struct tc_jobs *jobs = argument;
	const uint64_t one = 1;

	pthread_mutex_lock(&jobs->lock);
	while (!jobs->over) {
		struct tc_job *job = take(&jobs->urgent);
		bool is_first;

		if (!job)
			job = take(&jobs->wanted);
		if (!job) {
			jobs->sleeping++;
			pthread_cond_wait(&jobs->news, &jobs->lock);
			jobs->sleeping--;
			continue;
		}
		pthread_mutex_unlock(&jobs->lock);
		job->error = job->run(job);
		pthread_mutex_lock(&jobs->lock);
		is_first = !jobs->done.first;
		append(&jobs->done, job);
		if (!--jobs->left)
			pthread_cond_broadcast(&jobs->idle);
		/* EAGAIN: it is rung already, as often as it can count. */
		while (is_first && write(jobs->bell, &one, sizeof(one)) < 0 && errno == EINTR)
			;
	}
	pthread_mutex_unlock(&jobs->lock);
	return NULL;
}

struct tc_jobs *tc_jobs_start(int bell, size_t threads)
{
	struct tc_jobs *jobs = calloc(1, sizeof(*jobs) + threads * sizeof(jobs->threads[0]));
	sigset_t all, before;

	if (!jobs)
		return NULL;
	pthread_mutex_init(&jobs->lock, NULL);
	pthread_cond_init(&jobs->news, NULL);
	pthread_cond_init(&jobs->idle, NULL);
	jobs->urgent.last = &jobs->urgent.first;
	jobs->wanted.last = &jobs->wanted.first;
	jobs->done.last = &jobs->done.first;
	jobs->bell = bell;
	/* Signals are the pager's own thread's. */
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	while (jobs->count < threads &&
	       !pthread_create(&jobs->threads[jobs->count], NULL, work, jobs))
		jobs->count++;
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	if (!jobs->count) {
		tc_jobs_stop(jobs);
		return NULL;
	}
	return jobs;
}

void tc_jobs_submit(struct tc_jobs *jobs, struct tc_job *job)
{
	pthread_mutex_lock(&jobs->lock);
	append(job->urgent ? &jobs->urgent : &jobs->wanted, job);
	jobs->left++;
	if (jobs->sleeping)
		pthread_cond_signal(&jobs->news);
	pthread_mutex_unlock(&jobs->lock);
}

struct tc_job *tc_jobs_take(struct tc_jobs *jobs)
{
	struct tc_job *job;

	pthread_mutex_lock(&jobs->lock);
	job = take(&jobs->done);
	pthread_mutex_unlock(&jobs->lock);
	return job;
}

void tc_jobs_drain(struct tc_jobs *jobs)
{
	pthread_mutex_lock(&jobs->lock);
	while (jobs->left)
		pthread_cond_wait(&jobs->idle, &jobs->lock);
	pthread_mutex_unlock(&jobs->lock);
}

void tc_jobs_stop(struct tc_jobs *jobs)
{
	pthread_mutex_lock(&jobs->lock);
	jobs->over = true;
	pthread_cond_broadcast(&jobs->news);
	pthread_mutex_unlock(&jobs->lock);
	for (size_t i = 0; i < jobs->count; i++)
		pthread_join(jobs->threads[i], NULL);
	pthread_cond_destroy(&jobs->idle);
	pthread_cond_destroy(&jobs->news);
	pthread_mutex_destroy(&jobs->lock);
	free(jobs);
}

/* -- what they do ------------------------------------------------------------------------------ */

int tc_fill_run(struct tc_job *job)
{
	struct tc_fill *fill = (struct tc_fill *)job;
	uint64_t page_size = fill->pool->page_size;

	for (uint64_t i = 0; i < fill->count; i++)
		if (tc_pool_read(fill->pool, fill->slots[i], fill->buffer + i * page_size, 0,
				 (uint32_t)page_size))
			return EBADMSG;
	fill->was_read = true;
	for (uint64_t i = 0; i < fill->gap_count; i++) {
		const struct tc_gap *gap = &fill->gaps[i];
		int error = tc_uffd_copy(fill->uffd, fill->address + gap->at,
					 fill->buffer + (gap->at - fill->begin), gap->size,
					 fill->protect);

		if (error)
			return error;
	}
	return 0;
}

static bool read_page(const struct tc_pack *pack, uint64_t at, uint8_t *target)
{
	uint64_t done = 0;

	while (done < pack->page_size) {
		ssize_t size = pread(pack->arena, target + done, pack->page_size - done,
				     (off_t)(at + done));

		if (size > 0)
			done += (uint64_t)size;
		else if (!size || errno != EINTR)
			return false;
	}
	return true;
}

static bool is_zero(const uint8_t *page, uint64_t size)
{
	return !page[0] && !memcmp(page, page + 1, size - 1);
}

int tc_pack_run(struct tc_job *job)
{
	struct tc_pack *pack = (struct tc_pack *)job;

	for (uint64_t i = 0; i < pack->count; i++) {
		struct tc_packing *page = &pack->pages[i];
		uint8_t *source = pack->buffer + i * pack->page_size;

		if (!page->there && !read_page(pack, page->at, source)) {
			page->length = TC_UNREADABLE;
			continue;
		}
		if (is_zero(source, pack->page_size)) {
			page->length = TC_PACKED_ZEROS;
			continue;
		}
		if (!page->packer)
			continue;
		page->length = pack->compress(page->packer, source, (int32_t)pack->page_size,
					      pack->packed + i * pack->page_size,
					      (int32_t)pack->most);
		if (page->length < 0) /* an error means that the page is kept as it is */
			page->length = 0;
	}
	return 0;
}

int tc_punch_run(struct tc_job *job)
{
	struct tc_punch *punch = (struct tc_punch *)job;

	return tc_punch(punch->arena, punch->page_size, punch->pages, punch->count);
}

#define FILL(member) TC_FIELD(struct tc_fill, member)
#define PACKING(member) TC_FIELD(struct tc_packing, member)
#define PACK(member) TC_FIELD(struct tc_pack, member)
#define PUNCH(member) TC_FIELD(struct tc_punch, member)

const struct tc_field tc_fill_fields[] = {
	FILL(job.next),
	FILL(job.run),
	FILL(job.error),
	FILL(job.urgent),
	FILL(pool),
	FILL(slots),
	FILL(gaps),
	FILL(buffer),
	FILL(count),
	FILL(gap_count),
	FILL(address),
	FILL(begin),
	FILL(uffd),
	FILL(protect),
	FILL(was_read),
	TC_END(struct tc_fill),
};

const struct tc_field tc_packing_fields[] = {
	PACKING(at), PACKING(there), PACKING(packer), PACKING(length), TC_END(struct tc_packing),
};

const struct tc_field tc_pack_fields[] = {
	PACK(job.next),
	PACK(job.run),
	PACK(job.error),
	PACK(job.urgent),
	PACK(pages),
	PACK(buffer),
	PACK(packed),
	PACK(compress),
	PACK(count),
	PACK(page_size),
	PACK(most),
	PACK(arena),
	TC_END(struct tc_pack),
};

const struct tc_field tc_punch_fields[] = {
	PUNCH(job.next),
	PUNCH(job.run),
	PUNCH(job.error),
	PUNCH(job.urgent),
	PUNCH(pages),
	PUNCH(count),
	PUNCH(page_size),
	PUNCH(arena),
	TC_END(struct tc_punch),
};
