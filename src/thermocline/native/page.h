/* SPDX-License-Identifier: Apache-2.0 */
#ifndef THERMOCLINE_PAGE_H
#define THERMOCLINE_PAGE_H

/* The entries of pages, and the advice on regions, as protocol/page.py and region.py have them. */
#include <stdint.h>

/* The node in which pages come up. */
#define TC_DRAM 0

enum tc_state {
	TC_EMPTY,
	TC_SLOTTED,
	TC_PARTIAL,
	TC_RESIDENT,
	TC_SHADOWED,
	TC_POISONED,
};

#define TC_STATE_SHIFT 56
#define TC_NODE_SHIFT 48
#define TC_NODE_MASK 0xFF
#define TC_SLOT_MASK ((UINT64_C(1) << TC_NODE_SHIFT) - 1)

static inline uint64_t tc_entry(enum tc_state state, uint32_t node, uint64_t slot)
{
	return (uint64_t)state << TC_STATE_SHIFT | (uint64_t)node << TC_NODE_SHIFT | slot;
}

static inline enum tc_state tc_state_of(uint64_t entry)
{
	return (enum tc_state)(entry >> TC_STATE_SHIFT);
}

static inline uint32_t tc_node_of(uint64_t entry)
{
	return entry >> TC_NODE_SHIFT & TC_NODE_MASK;
}

static inline uint64_t tc_slot_of(uint64_t entry)
{
	return entry & TC_SLOT_MASK;
}

enum tc_advice {
	TC_NORMAL,
	TC_SEQUENTIAL,
	TC_RANDOM,
};

#endif
