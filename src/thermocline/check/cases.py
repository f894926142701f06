"""Cases: the small configurations that together take every path of the protocols.

Each is kept so small that all of its schedules can be covered in seconds; what one leaves out, another has. Sizes
follow from how many pages and threads were asked for.
"""

from __future__ import annotations

from dataclasses import replace

from thermocline.check.configuration import Actor, Configuration, Placed
from thermocline.check.ingredients import (
    ages,
    all_but_one_in_dram,
    clears,
    cold,
    either,
    file,
    frees,
    in_dram,
    part_writes,
    parts,
    pins,
    promotion,
    reads,
    reclaimer,
    recycles,
    slow_memory,
    threads_of,
    writes,
    zstd,
)
from thermocline.check.layout import Extent, Layout, Limits, Place
from thermocline.check.program import Access, Script
from thermocline.check.store import PARTS
from thermocline.protocol.fault import read_ahead
from thermocline.protocol.region import Advice

LARGEST_PAGES, LARGEST_THREADS = 6, 4


def cases(pages: int = 2, threads: int = 2, *, crash: bool = False, cooperative: bool = True) -> list[Configuration]:
    """Every configuration, for machines of that many pages and programs of that many threads."""
    found = [make(pages, threads) for make in _CASES]
    return [replace(configuration, crashes=int(crash), cooperative=cooperative) for configuration in found]


def _direct_reclaim(pages: int, threads: int) -> Configuration:
    """Threads that push each other's pages out: every fault reclaims for itself."""
    return Configuration(
        "direct reclaim",
        Layout(pages, pages - 1, (file(pages + 1),)),
        threads_of(threads, lambda index: (writes(index % pages), reads((index + 1) % pages))[: 2 - index % 2]),
        placed=all_but_one_in_dram(pages),
        kswapd=False,
    )


def _kswapd(pages: int, threads: int) -> Configuration:
    """Background reclaim takes pages away as soon as they have come."""
    return Configuration(
        "kswapd",
        Layout(pages, pages - 1, (file(pages + 1),)),
        threads_of(max(threads - 1, 1), lambda index: (writes(index % pages), either((index + 1) % pages))),
        placed=in_dram(1, pages),
    )


def _second_reclaimer(pages: int, threads: int) -> Configuration:
    """Two reclaimers take the same pages in opposite orders, and writers are in their way."""
    everything = tuple(range(pages))
    return Configuration(
        "second reclaimer",
        Layout(pages, pages, (file(2 * pages),)),
        threads_of(threads - 1, lambda index: (either(index % pages),)),
        placed=in_dram(0, pages),
        requests={"cold advice": cold(*everything)},
        reclaimers={"second reclaimer": reclaimer(0)},
        kswapd=False,
    )


def _tight_target(pages: int, threads: int) -> Configuration:
    """The target is full: allocating there demotes from it first."""
    return Configuration(
        "tight target",
        Layout(pages, 1, (Place("zstd", 1, slot_bytes=72, packed=40), file(pages))),
        threads_of(max(threads - 1, 1), lambda index: (writes(index % pages), reads((index + 1) % pages))),
        placed=(*(Placed(page, 1 if page == pages - 2 else 2) for page in range(pages - 1)), Placed(pages - 1, 0)),
        reclaimers={"reclaim of zstd": reclaimer(1)},
        kswapd=False,
    )


def _full_target(pages: int, threads: int) -> Configuration:
    """Nothing can be demoted; only pages that a file has as well can leave DRAM."""
    return Configuration(
        "full target",
        Layout(pages + 1, 2, (file(1),), extents=(Extent(0, 2), Extent(2, pages - 1, source=True))),
        threads_of(threads, lambda index: (reads(2 + index % (pages - 1)), writes(1))[: 2 - index % 2]),
        placed=(Placed(0, 1), Placed(1, 0)),
        kswapd=False,
    )


def _group(pages: int, threads: int) -> Configuration:
    """A group over its limit reclaims its own pages, while DRAM is short for all."""
    return Configuration(
        "group reclaim",
        Layout(
            pages,
            pages,
            (Place("zstd", pages + 1, slot_bytes=72, packed=40), file(pages + 1)),
            extents=(Extent(0, pages, group=1),),
            groups=(Limits(1, dram=1, memory=2),),
        ),
        threads_of(max(threads - 1, 1), lambda index: (writes(index % pages), either((index + 1) % pages))),
        placed=(*(Placed(page, 1) for page in range(1, pages)), Placed(0, 0)),
        reclaimers={"global reclaim": reclaimer(0)},
        kswapd=False,
    )


def _group_limit(pages: int, threads: int) -> Configuration:
    """Threads of one group allocate at once; each alone would stay within the limit."""
    return Configuration(
        "group limit",
        Layout(pages, pages, (file(pages + 1),), extents=(Extent(0, pages, group=1),), groups=(Limits(1, dram=1),)),
        threads_of(threads, lambda index: (writes(index % pages),)),
        kswapd=False,
    )


def _group_without_outlet(pages: int, threads: int) -> Configuration:
    """A group over its limit, and the only node below is full of another group's pages: no task waits for ever."""
    return Configuration(
        "group without outlet",
        Layout(
            pages + 1,
            pages,
            (file(1),),
            extents=(Extent(0, 1), Extent(1, pages, group=1)),
            groups=(Limits(1, dram=1),),
        ),
        threads_of(threads, lambda index: (writes(1 + index % pages),)),
        placed=(Placed(0, 1),),
    )


def _free(pages: int, threads: int) -> Configuration:
    """An array is freed while its pages are being moved."""
    return Configuration(
        "free",
        Layout(pages + 1, pages, (file(2 * pages),), extents=(Extent(0, pages), Extent(pages, 1))),
        threads_of(max(threads - 1, 1), lambda index: (either(pages),)),
        placed=(Placed(0, 1), *in_dram(1, pages)),
        requests={"free": frees(0)},
        reclaimers={"second reclaimer": reclaimer(0)},
        freed=tuple(range(pages)),
        kswapd=False,
    )


def _shadow(pages: int, threads: int) -> Configuration:
    """A clean page is read, written, dropped and its copy below given up, all at once."""
    return Configuration(
        "shadow",
        Layout(pages, pages, (file(pages + 1), Place("disk", pages + 1, charged_to_memory=False))),
        threads_of(threads - 1, lambda index: (either(0),)),
        placed=(Placed(0, 1, shadow=True), *in_dram(1, pages)),
        requests={"cold advice": cold(0)},
        reclaimers={"reclaim of file": reclaimer(1)},
        kswapd=False,
    )


def _readahead(pages: int, threads: int) -> Configuration:
    """Pages are read ahead in one run while they are asked for."""
    return Configuration(
        "readahead",
        Layout(pages, pages - 1, (file(pages + 1),)),
        threads_of(threads - 1, lambda index: (either(index % pages),)),
        placed=tuple(Placed(page, 1) for page in range(pages)),
        reclaimers={"readahead": lambda machine: read_ahead(machine.mm, range(pages), False)},
        kswapd=False,
    )


def _pins(pages: int, threads: int) -> Configuration:
    """Pages are pinned while they are reclaimed and written."""
    return Configuration(
        "pin",
        Layout(pages, pages, (file(pages + 1),)),
        threads_of(threads - 1, lambda index: (either(index % pages),)),
        placed=(Placed(0, 1), *in_dram(1, pages)),
        requests={"pin": pins(*range(pages))},
        pinned=tuple(range(pages)),
        reclaimers={"second reclaimer": reclaimer(0)},
        kswapd=False,
    )


def _failures(pages: int, threads: int) -> Configuration:
    """A copy or a fill fails, at any moment."""
    return Configuration(
        "failing device",
        Layout(pages, pages - 1, (file(pages + 1),)),
        threads_of(max(threads - 1, 1), lambda index: (writes(index % pages), either((index + 1) % pages))),
        placed=all_but_one_in_dram(pages),
        kswapd=False,
        failures=1,
        may_lose=True,
        may_poison=tuple(range(pages)),
    )


def _dead_device(pages: int, threads: int) -> Configuration:
    """From some write on a node's device refuses all. There is another node below, so no access may fail."""
    return Configuration(
        "dead device",
        Layout(pages, pages - 1, (file(pages + 1), Place("disk", pages + 1, charged_to_memory=False))),
        threads_of(max(threads - 1, 1), lambda index: (either(index % pages),)),
        placed=all_but_one_in_dram(pages),
        reclaimers={"second reclaimer": reclaimer(0)},
        kswapd=False,
        failures=1,
        mortal=1,
    )


def _last_device(pages: int, threads: int) -> Configuration:
    """The only device below dies at some write: there is no room any more, but no byte is lost."""
    return Configuration(
        "last device dead",
        Layout(pages, pages - 1, (file(pages + 1),)),
        threads_of(max(threads - 1, 1), lambda index: (writes(index % pages), either((index + 1) % pages))),
        placed=all_but_one_in_dram(pages),
        reclaimers={"second reclaimer": reclaimer(0)},
        kswapd=False,
        failures=1,
        mortal=1,
        may_lose=True,
    )


def _parts(pages: int, threads: int) -> Configuration:
    """Parts of pages come up by themselves, are written, dropped, and go down with the rest of their page."""
    return Configuration(
        "parts",
        Layout(pages, pages, (zstd(2 * pages),), extents=(Extent(0, pages, advice=Advice.RANDOM),)),
        threads_of(threads, lambda index: ((Access(0, False, 1),),) if index else (part_writes(0, 0),)),
        placed=(Placed(0, 1),),
        reclaimers={"second reclaimer": reclaimer(0)},
        kswapd=False,
    )


def _last_slots(pages: int, threads: int) -> Configuration:
    """Every slot is taken, by pages that were written in part: the only way to room is to complete one of them."""
    return Configuration(
        "last slots",
        Layout(pages + 1, 3, (zstd(pages),), extents=(Extent(0, pages + 1, advice=Advice.RANDOM),)),
        threads_of(threads, lambda index: (part_writes(index % pages, 0), *((part_writes(0, 1),) if index else ()))),
        placed=(*(Placed(page, 1) for page in range(pages)), Placed(pages, 0)),
        kswapd=False,
    )


def _parts_freed(pages: int, threads: int) -> Configuration:
    """Pages that are there in part are freed, and pinned, while they are touched and reclaimed."""
    return Configuration(
        "parts freed",
        Layout(
            pages + 1,
            pages + 1,
            (zstd(2 * pages),),
            extents=(Extent(0, 2, advice=Advice.RANDOM), Extent(2, pages - 1, advice=Advice.RANDOM)),
        ),
        threads_of(max(threads - 1, 1), lambda index: (part_writes(1, index % PARTS),)),
        placed=tuple(Placed(page, 1) for page in range(pages + 1)),
        requests={"free": frees(2), "pin": pins(1)},
        reclaimers={"second reclaimer": reclaimer(0)},
        freed=tuple(range(2, pages + 1)),
        pinned=(1,),
        kswapd=False,
    )


def _parts_lost(pages: int, threads: int) -> Configuration:
    """The rest of a page that is there in part cannot be read, or no node takes the page."""
    return Configuration(
        "part lost",
        Layout(pages, pages, (zstd(2 * pages),), extents=(Extent(0, pages, advice=Advice.RANDOM),)),
        threads_of(max(threads - 1, 1), lambda index: (parts(0, index % PARTS), part_writes(0, 1))),
        placed=(Placed(0, 1),),
        reclaimers={"second reclaimer": reclaimer(0)},
        kswapd=False,
        failures=1,
        may_lose=True,
        may_poison=tuple(range(pages)),
    )


def _doomed(pages: int, threads: int) -> Configuration:
    """A killed pager's successor gives a page up, wherever it is by then, and no other."""
    return Configuration(
        "doomed page",
        Layout(pages, pages - 1, (file(pages + 1),)),
        threads_of(max(threads - 1, 1), lambda index: (either(index % pages), writes((index + 1) % pages))),
        placed=all_but_one_in_dram(pages),
        reclaimers={"second reclaimer": reclaimer(0)},
        kswapd=False,
        doomed=(0,),
        may_poison=(0,),
    )


def _full_disk(pages: int, threads: int) -> Configuration:
    """The node below refuses every page: allocations look for room, wait, look again, and have to end some time."""
    return Configuration(
        "full disk",
        Layout(pages, pages - 1, (file(pages + 1),)),
        threads_of(max(threads - 1, 1), lambda index: (writes((pages - 1 + index) % pages),)),
        placed=in_dram(0, pages - 1),
        refused=tuple(range(pages)),
        may_lose=True,
    )


def _incompressible(pages: int, threads: int) -> Configuration:
    """A page that does not compress goes on down, through one node into the next."""
    zstd = Place("zstd", 1, slot_bytes=72, packed=40, keep_incompressible=False, incompressible=frozenset([0]))
    return Configuration(
        "incompressible",
        Layout(pages, pages, (zstd, file(pages + 1))),
        threads_of(threads - 1, lambda index: (either(0),)),
        placed=in_dram(0, pages),
        requests={"cold advice": cold(*range(pages))},
        reclaimers={"reclaim of zstd": reclaimer(1)},
        kswapd=False,
    )


def _mapped_node(pages: int, threads: int) -> Configuration:
    """Frames go down to slow memory, and from there to a file, while the program reads and writes them."""
    return Configuration(
        "mapped node",
        Layout(pages, pages - 1, (slow_memory(1), file(pages + 1))),
        threads_of(max(threads - 1, 1), lambda index: (either(index % pages),)),
        placed=(Placed(0, 1), *in_dram(1, pages)),
        requests={"cold advice": cold(*range(pages))},
        reclaimers={"reclaim of numa:1": reclaimer(1)},
        kswapd=False,
    )


def _first_touch(pages: int, threads: int) -> Configuration:
    """More is allocated than there is room for: pages are let in until that is taken, and zeros give way."""
    return Configuration(
        "first touch",
        Layout(pages + 1, pages, (file(1),), extents=(Extent(0, 1), Extent(1, pages)), slack=1),
        threads_of(threads, lambda index: ((reads, writes)[index % 2](1 + index % pages),)),
        placed=(Placed(0, 0),),
        requests={"free": frees(0)},
        freed=(0,),
        kswapd=False,
        may_lose=True,
    )


def _freed_block(pages: int, threads: int) -> Configuration:
    """A block is freed, kept, and written by its next owner, while reclaim takes its frames."""
    return _recycled("freed block", pages, threads, (writes(0), reads(0)), {"second reclaimer": reclaimer(0)})


def _cleared_block(pages: int, threads: int) -> Configuration:
    """A block that is kept is to hold zeros for its next owner, while reclaim and time take its frames."""
    reclaimers = {"second reclaimer": reclaimer(0), "ageing": ages}
    return _recycled("cleared block", pages, threads, (clears(0), reads(0)), reclaimers)


def _recycled(name: str, pages: int, threads: int, then: Script, reclaimers: dict[str, Actor]) -> Configuration:
    return Configuration(
        name,
        Layout(pages, pages, (file(pages + 1),), extents=(Extent(0, 1), Extent(1, pages - 1))),
        threads_of(max(threads - 1, 1), lambda index: (writes(pages - 1),) if index else (*recycles(0), *then)),
        placed=in_dram(0, pages),
        reclaimers=reclaimers,
        kswapd=False,
    )


def _promotion(pages: int, threads: int) -> Configuration:
    """Pages of slow memory that are used go up, while others go down."""
    return Configuration(
        "promotion",
        Layout(pages, pages + 1, (slow_memory(pages), file(pages + 1))),
        threads_of(max(threads - 1, 1), lambda index: (either(0),)),
        placed=(*(Placed(page, 1) for page in range(pages - 1)), Placed(pages - 1, 0)),
        reclaimers={"promotion": promotion(1), "reclaim of numa:1": reclaimer(1)},
        kswapd=False,
    )


def _failing_moves(pages: int, threads: int) -> Configuration:
    """The kernel refuses to move a frame: it stays, or goes past the slow memory."""
    return Configuration(
        "failing moves",
        Layout(pages, pages - 1, (slow_memory(pages), file(pages + 1))),
        threads_of(max(threads - 1, 1), lambda index: (writes(index % pages), reads((index + 1) % pages))),
        placed=(Placed(0, 2), *in_dram(1, pages)),
        kswapd=False,
        failures=1,
        may_lose=True,
        may_poison=tuple(range(pages)),
    )


_CASES = (
    _direct_reclaim,
    _kswapd,
    _second_reclaimer,
    _tight_target,
    _full_target,
    _group,
    _group_limit,
    _group_without_outlet,
    _free,
    _shadow,
    _readahead,
    _pins,
    _parts,
    _last_slots,
    _parts_freed,
    _parts_lost,
    _failures,
    _dead_device,
    _last_device,
    _doomed,
    _full_disk,
    _incompressible,
    _mapped_node,
    _first_touch,
    _freed_block,
    _cleared_block,
    _promotion,
    _failing_moves,
)
