/* SPDX-License-Identifier: Apache-2.0 */
/*
 * XXH64, a checksum of some ten bytes a nanosecond that misses no flipped bit. As its specification
 * has it: https://github.com/Cyan4973/xxHash/blob/dev/doc/xxhash_spec.md
 */
#include <endian.h>
#include <string.h>

#include "pager.h"

#define PRIME1 UINT64_C(0x9E3779B185EBCA87)
#define PRIME2 UINT64_C(0xC2B2AE3D27D4EB4F)
#define PRIME3 UINT64_C(0x165667B19E3779F9)
#define PRIME4 UINT64_C(0x85EBCA77C2B2AE63)
#define PRIME5 UINT64_C(0x27D4EB2F165667C5)

#define STRIPE 32 /* bytes: four lanes */

static inline uint64_t rotate(uint64_t word, int bits)
{
	return word << bits | word >> (64 - bits);
}

static inline uint64_t word_at(const uint8_t *data)
{
	uint64_t word;

	memcpy(&word, data, sizeof(word));
	return le64toh(word);
}

static inline uint64_t take(uint64_t lane, uint64_t word)
{
	return rotate(lane + word * PRIME2, 31) * PRIME1;
}

static inline uint64_t merge(uint64_t hash, uint64_t lane)
{
	return (hash ^ take(0, lane)) * PRIME1 + PRIME4;
}

uint64_t tc_xxh64(const void *data, size_t size, uint64_t seed)
{
	const uint8_t *at = data, *end = at + size;
	uint64_t hash = seed + PRIME5;
	uint32_t half;

	if (size >= STRIPE) {
		uint64_t lane[4] = { seed + PRIME1 + PRIME2, seed + PRIME2, seed, seed - PRIME1 };

		for (; end - at >= STRIPE; at += STRIPE)
			for (int i = 0; i < 4; i++)
				lane[i] = take(lane[i], word_at(at + 8 * i));
		hash = rotate(lane[0], 1) + rotate(lane[1], 7) + rotate(lane[2], 12) +
		       rotate(lane[3], 18);
		for (int i = 0; i < 4; i++)
			hash = merge(hash, lane[i]);
	}
	hash += size;
	for (; end - at >= 8; at += 8)
		hash = rotate(hash ^ take(0, word_at(at)), 27) * PRIME1 + PRIME4;
	if (end - at >= 4) {
		memcpy(&half, at, sizeof(half));
		hash = rotate(hash ^ le32toh(half) * PRIME1, 23) * PRIME2 + PRIME3;
		at += 4;
	}
	for (; at < end; at++)
		hash = rotate(hash ^ *at * PRIME5, 11) * PRIME1;
	hash = (hash ^ hash >> 33) * PRIME2;
	hash = (hash ^ hash >> 29) * PRIME3;
	return hash ^ hash >> 32;
}
