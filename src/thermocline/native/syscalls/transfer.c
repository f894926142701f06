/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A call, piece by piece, with the result that it would have had in one.
 *
 * The kernel itself cuts every transfer of bytes into pieces, and goes on for as long as each is complete.
 * One that is not (the end of a file, a full disk, a signal, a descriptor that does not block) ends the
 * call with what has been moved so far; an error ends it with -1 if that is nothing. So do the loops here.
 * What may not be cut (records, and what comes in its own time) is one piece, however large.
 */
#include "syscalls.h"

#include <pthread.h>

ssize_t tc_total(const struct iovec *vector, size_t count)
{
	size_t total = 0, index;

	for (index = 0; index < count; index++) {
		if (vector[index].iov_len > (size_t)SSIZE_MAX - total)
			return -1;
		total += vector[index].iov_len;
	}
	return total < TC_MOST ? (ssize_t)total : (ssize_t)TC_MOST;
}

struct transfer {
	const struct call *call;
	struct cursor cursor;
	struct bounce bounce;
	size_t total;
	size_t piece;
	bool goes_on; /* reading, after a complete piece */
	bool waits;   /* for the other end: a signal between two pieces ends it */
	int error;
};

static size_t least(size_t one, size_t other)
{
	return one < other ? one : other;
}

static ssize_t put_pieces(struct transfer *transfer)
{
	const struct call *call = transfer->call;
	size_t done = 0, size;
	ssize_t moved;
	sigset_t signals;
	bool between;

	do {
		size = least(transfer->total - done, transfer->piece);
		between = transfer->waits && done;
		if (between)
			tc_signals_hold(&signals);
		tc_gather(&transfer->cursor, transfer->bounce.data, size);
		if (between && tc_signals_release(&signals))
			break;
		moved = call->step(call, transfer->bounce.data, size, done);
		if (moved < 0) {
			transfer->error = errno;
			return done ? (ssize_t)done : -1;
		}
		done += (size_t)moved;
	} while ((size_t)moved == size && done < transfer->total);
	return (ssize_t)done;
}

static ssize_t take_pieces(struct transfer *transfer)
{
	const struct call *call = transfer->call;
	struct cursor before;
	size_t done = 0, size;
	ssize_t moved;
	sigset_t signals;
	bool goes_on, between;

	do {
		size = least(transfer->total - done, transfer->piece);
		if (call->sparing) {
			before = transfer->cursor;
			tc_gather(&before, transfer->bounce.data, size);
		}
		moved = call->step(call, transfer->bounce.data, size, done);
		if (moved < 0) {
			transfer->error = errno;
			return done ? (ssize_t)done : -1;
		}
		goes_on = transfer->goes_on && (size_t)moved == size && done + size < transfer->total;
		between = transfer->waits && goes_on;
		if (between)
			tc_signals_hold(&signals);
		/* A datagram's length may be more than what there was room for (MSG_TRUNC). */
		tc_scatter(&transfer->cursor, transfer->bounce.data, least((size_t)moved, size));
		if (between && tc_signals_release(&signals))
			goes_on = false;
		done += (size_t)moved;
	} while (goes_on);
	return (ssize_t)done;
}

/* In a function of its own: pthread_cleanup_push saves registers, which the compiler must not keep loops in. */
static ssize_t run(struct transfer *transfer, ssize_t (*pieces)(struct transfer *))
{
	ssize_t result;

	pthread_cleanup_push(tc_bounce_unmap, &transfer->bounce);
	result = pieces(transfer);
	pthread_cleanup_pop(1);
	return result;
}

static ssize_t run_small(struct transfer *transfer, ssize_t (*pieces)(struct transfer *))
{
	_Alignas(TC_SMALL) char small[TC_SMALL]; /* at a page, as O_DIRECT wants it */

	transfer->bounce.data = small;
	return pieces(transfer);
}

/*
 * There is no address space for a bounce buffer (RLIMIT_AS): in small pieces, where pieces may be. A stream
 * may return less than there is.
 */
static ssize_t run_without_room(struct transfer *transfer, ssize_t (*pieces)(struct transfer *))
{
	enum tc_kind kind = transfer->call->whole ? TC_RECORDS : tc_kind_of(transfer->call->fd);

	if (kind == TC_RECORDS) {
		transfer->error = ENOMEM;
		return -1;
	}
	transfer->waits = kind == TC_STREAM;
	if (kind != TC_STREAM)
		transfer->goes_on = true;
	transfer->piece = TC_SMALL;
	return run_small(transfer, pieces);
}

/* Write what a vector has. The caller has seen that it is not empty. */
ssize_t tc_put(const struct call *call, const struct iovec *vector, size_t count)
{
	struct transfer transfer = { .call = call, .cursor = { vector, 0 } };
	enum tc_kind kind = TC_RECORDS;
	int saved = errno;
	ssize_t result;

	transfer.total = transfer.piece = (size_t)tc_total(vector, count);
	if (transfer.total > TC_PIECE && !call->whole) {
		kind = call->append ? TC_APPEND : tc_kind_of(call->fd);
		transfer.waits = kind == TC_STREAM;
		if (kind == TC_APPEND)
			transfer.piece = least(transfer.total, TC_APPENDED);
		else if (kind != TC_RECORDS)
			transfer.piece = TC_PIECE;
	}
	/* The kernel may read the pages after the call has returned (MSG_ZEROCOPY): not off the stack. */
	if (transfer.total <= TC_SMALL && !call->whole)
		result = run_small(&transfer, put_pieces);
	else if (tc_bounce_map(&transfer.bounce, transfer.piece, true))
		result = run(&transfer, put_pieces);
	else
		result = run_without_room(&transfer, put_pieces);
	errno = result < 0 ? transfer.error : saved;
	return result;
}

/* Read into a vector. The caller has seen that it is not empty. */
ssize_t tc_take(const struct call *call, const struct iovec *vector, size_t count)
{
	struct transfer transfer = { .call = call, .cursor = { vector, 0 } };
	enum tc_kind kind;
	int saved = errno;
	ssize_t result;

	transfer.total = transfer.piece = (size_t)tc_total(vector, count);
	if (transfer.total > TC_PIECE && !call->whole) {
		kind = tc_kind_of(call->fd);
		transfer.waits = kind == TC_STREAM && call->waits;
		transfer.goes_on = kind == TC_FILE || kind == TC_APPEND || transfer.waits;
		/* As large as the request, if it is one call: pages that nothing comes into cost nothing. */
		if (transfer.goes_on)
			transfer.piece = TC_PIECE;
	}
	if (transfer.total <= TC_SMALL)
		result = run_small(&transfer, take_pieces);
	else if (tc_bounce_map(&transfer.bounce, transfer.piece, false))
		result = run(&transfer, take_pieces);
	else
		result = run_without_room(&transfer, take_pieces);
	errno = result < 0 ? transfer.error : saved;
	return result;
}
