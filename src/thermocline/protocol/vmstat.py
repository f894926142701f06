"""Counters, with the kernel's names where the kernel has one (``/proc/vmstat``).

All page counters count base pages of the page table (never a batch as one), successes and failures apart.
"""

from __future__ import annotations

from thermocline.protocol.page import Column, array_column

#: Every counter, in the order in which shared memory holds them. New ones go to the end.
NAMES = (
    "pgfault",  # faults answered
    "pgmajfault",  # ... of which the page had to be read from a slot or a source file
    "pgfault_write_protect",  # ... of which were first writes to a write-protected page
    "pgalloc",  # frames handed out
    "pgfree",  # frames given back
    "allocstall",  # allocations that had to reclaim for themselves
    "allocthrottle",  # allocations that found nothing to reclaim and waited
    "pgscan_kswapd",
    "pgscan_direct",
    "pgsteal_kswapd",  # pages that reclaim took from a node, by cause
    "pgsteal_direct",
    "pgactivate",
    "pgdeactivate",
    "pgrefill",
    "pgdemote_kswapd",  # pages moved to a lower node, by cause
    "pgdemote_direct",
    "pgdemote_proactive",  # asked for by advice
    "pgpromote_success",  # pages brought to DRAM from a lower node
    "pgmigrate_success",
    "pgmigrate_fail",
    "pgmigrate_zero",  # demotions that found zeros only and stored nothing
    "pgmigrate_incompressible",  # pages that did not compress and went on down
    "pgdiscard",  # clean pages dropped because a lower node or their file has them
    "shadow_kept",
    "shadow_dropped",
    "workingset_refault",
    "workingset_activate",
    "readahead_pages",
    "readahead_windows",
    "pswpin",  # pages read from and written to a slow node
    "pswpout",
    "kswapd_wakeups",
    "pageoutrun",
    "group_reclaim",  # charges that had to reclaim their own group
    "poisoned_pages",
    "pgmigrate_abort",  # wasted copies: the page was written meanwhile (design "transactional")
    "group_over_limit",  # frames that a group got beyond its limit, because its pages had nowhere to go
    "pgpartial",  # parts of pages that came up alone, because nothing said that the rest would be wanted
    "partial_completed",  # pages that came up whole because no other room was left below than their slots
    "numa_pte_updates",  # pages of slow memory that were unmapped, to find out whether they are used
    "numa_hint_faults",  # ... of which were used until they were looked at again
    "pgpromote_candidate",  # pages found hot in slow memory
    "numa_pages_migrated",  # ... of which were moved to DRAM
    "cow_pages",  # pages of which forked children were given a copy, because the program was going to write them
    "cow_copies",  # copies that children were given; they are the children's own memory, in no node
    "fault_polls",  # times that the pager looked for another fault for a while, before it slept
    "fault_polled",  # ... of which one came meanwhile
    "pglazyfreed",  # pages of freed blocks that were kept until reclaim, or time, took their frames
)

INDEX = {name: index for index, name in enumerate(NAMES)}


class VmStat:
    """The counters, as a column of u64 that may be shared memory."""

    def __init__(self, counts: Column | None = None) -> None:
        self.counts = array_column("Q", len(NAMES)) if counts is None else counts

    def add(self, name: str, amount: int = 1) -> None:
        """Count events."""
        self.counts[INDEX[name]] += amount

    def __getitem__(self, name: str) -> int:
        return self.counts[INDEX[name]]

    def as_dict(self) -> dict[str, int]:
        """Every counter by name."""
        return {name: self.counts[index] for name, index in INDEX.items()}
