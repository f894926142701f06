/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reading from a pool of compressed pages. The layout, and what is believed of it, is said in
 * live/stores/pool.py, which writes it; that of a packed page in live/stores/blosc.py.
 */
#include <errno.h>
#include <string.h>

#include "pager.h"

#define WORD 8
#define RECORD 3 /* words of the table */
#define LENGTH_MASK ((UINT64_C(1) << 23) - 1)
#define SIDE_SHIFT 23
#define START_SHIFT 24
#define QUANTA_BITS 10
#define MARK_BITS 14
#define QUANTA_MASK ((UINT64_C(1) << QUANTA_BITS) - 1)

/* In the header of a packed page: how wide its numbers are, and how large its blocks. */
#define WIDTH_AT 3
#define BLOCK_AT 8
#define HEADER_SIZE 32

static uint64_t header(uint64_t slot, uint64_t start, uint64_t next, uint64_t quanta)
{
	uint64_t mixed = slot * UINT64_C(0x9E3779B97F4A7C15) + start * UINT64_C(0xC2B2AE3D27D4EB4F) +
			 (next << QUANTA_BITS | quanta) * UINT64_C(0x165667B19E3779F9);

	return next << START_SHIFT | mixed >> (64 - MARK_BITS) << QUANTA_BITS | quanta;
}

/*
 * The data of an item, which is in the scratch buffer if the item is in pieces; NULL if the pieces
 * do not add up to it.
 */
static const uint8_t *gather(const struct tc_pool *pool, uint64_t slot, uint64_t start,
			     uint64_t length)
{
	uint64_t left = length;

	while (start < pool->quanta) {
		uint64_t word = pool->words[start * pool->quantum / WORD];
		uint64_t quanta = word & QUANTA_MASK, next = word >> START_SHIFT;
		uint64_t least = (left + WORD + pool->quantum - 1) / pool->quantum, part;
		const uint8_t *data = (const uint8_t *)pool->words + start * pool->quantum + WORD;

		if (!quanta || word != header(slot, start, next, quanta))
			break;
		if (quanta > least || (quanta == least && next) || quanta > pool->quanta - start)
			break; /* the last one is as long as is needed, and none follows */
		part = quanta == least ? left : quanta * pool->quantum - WORD;
		if (part == length)
			return data;
		memcpy(pool->scratch + length - left, data, part);
		left -= part;
		if (!left)
			return pool->scratch;
		start = next;
	}
	return NULL;
}

/* Unpack the blocks that have these bytes. */
static int unpack_part(const struct tc_pool *pool, const uint8_t *data, uint64_t length,
		       uint8_t *page, uint32_t begin, uint32_t size)
{
	uint32_t width, first, bytes;
	int32_t block;

	if (length < HEADER_SIZE)
		return EBADMSG;
	width = data[WIDTH_AT];
	memcpy(&block, data + BLOCK_AT, sizeof(block));
	if (!width || (block != (int32_t)pool->block && block != (int32_t)pool->page_size) ||
	    block % (int32_t)width)
		return EBADMSG;
	first = begin - begin % (uint32_t)block;
	bytes = size + begin - first;
	bytes += ((uint32_t)block - bytes % (uint32_t)block) % (uint32_t)block;
	if (pool->get_items(pool->unpacker, data, (int32_t)length, (int)(first / width),
			    (int)(bytes / width), page + first, (int32_t)bytes) != (int)bytes)
		return EBADMSG;
	return 0;
}

int tc_pool_read(const struct tc_pool *pool, uint64_t slot, uint8_t *page, uint32_t begin,
		 uint32_t size)
{
	uint64_t entry, length;
	const uint64_t *record = pool->table + RECORD * slot;
	const uint8_t *data;

	if (!slot || slot > pool->slots)
		return EINVAL;
	entry = pool->ledger[slot];
	length = entry & LENGTH_MASK;
	if (!entry || entry != record[0] || !length || length > pool->page_size)
		return EBADMSG;
	data = gather(pool, slot, entry >> START_SHIFT, length);
	if (!data || tc_xxh64(data, length, slot) != record[1 + (entry >> SIDE_SHIFT & 1)])
		return EBADMSG;
	if (length == pool->page_size) {
		memcpy(page + begin, data + begin, size);
		return 0;
	}
	if (size < pool->page_size)
		return unpack_part(pool, data, length, page, begin, size);
	if (pool->decompress(pool->unpacker, data, (int32_t)length, page,
			     (int32_t)pool->page_size) != (int)pool->page_size)
		return EBADMSG;
	return 0;
}

#define FIELD(member) TC_FIELD(struct tc_pool, member)

const struct tc_field tc_pool_fields[] = {
	FIELD(words),
	FIELD(table),
	FIELD(ledger),
	FIELD(slots),
	FIELD(quanta),
	FIELD(quantum),
	FIELD(page_size),
	FIELD(block),
	FIELD(scratch),
	FIELD(unpacker),
	FIELD(decompress),
	FIELD(get_items),
	TC_END(struct tc_pool),
};
