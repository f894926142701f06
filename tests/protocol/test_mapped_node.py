"""Slow memory that the program addresses: frames go down to it and on, and up again when they are used."""

from __future__ import annotations

import pytest
from machines import FILE, at_rest, counts, held, machine, nodes, read, states, write

from thermocline.check.layout import Extent, Place
from thermocline.check.machine import Machine
from thermocline.protocol.migrate import DESIGNS
from thermocline.protocol.page import RESIDENT
from thermocline.protocol.pin import bring_up_pinned
from thermocline.protocol.promote import NumaScan, promote_pages
from thermocline.protocol.reclaim import reclaim_pages, shrink_node
from thermocline.protocol.recovery import recover, slots_in_use
from thermocline.protocol.region import free_region
from thermocline.protocol.scan_control import Cause

SLOW = Place("numa:1", 8, mapped=True)
#: Nodes of these machines: DRAM, slow memory, a file.
DRAM, NUMA, BELOW = range(3)


def tiered(pages: int = 8, dram: int = 8, *, slow: int = 8, design: str = "batch") -> Machine:
    return machine(pages, dram, Place("numa:1", slow, mapped=True), FILE, design=design)


def demoted(*pages: int, design: str = "batch") -> Machine:
    """A machine in which pages were written, and went down to slow memory."""
    made = tiered(design=design)
    write(made, *pages)
    assert made.run(reclaim_pages(made.mm, pages)) == len(pages)
    at_rest(made)
    return made


def kill_and_recover(made: Machine, *doomed: int) -> None:
    made.kill()
    pages = range(made.layout.pages)
    slots = slots_in_use(made.mm, pages)
    for node, store in made.stores.items():
        store.recover(slots.get(node, ()))
    made.run(recover(made.mm, pages, made.presence, made.slot_size, doomed, made.arena.whereabouts))


@pytest.mark.parametrize("design", [design for design in DESIGNS if design != "discard"])
def test_pages_go_down_to_slow_memory_and_are_used_there_without_a_fault(design: str) -> None:
    made = demoted(0, 1, design=design)
    assert (states(made)[:2], nodes(made)[:2]) == (["RESIDENT", "RESIDENT"], [NUMA, NUMA])
    assert made.arena.nodes[:2] == [[NUMA, NUMA]] * 2
    faults = counts(made)["pgfault"]
    read(made, 0, 1)
    write(made, 0, 1)
    assert counts(made)["pgfault"] == faults
    assert made.nodes[NUMA].used == 2 * made.mm.page_size
    assert made.nodes[DRAM].used == 0


def test_discard_goes_past_slow_memory() -> None:
    made = demoted(0, design="discard")
    assert (states(made)[0], nodes(made)[0]) == ("SLOTTED", BELOW)


@pytest.mark.parametrize("design", DESIGNS)
def test_pages_of_slow_memory_go_on_down(design: str) -> None:
    made = tiered(design=design)
    made.place(0, NUMA)
    made.place(1, NUMA)
    while made.run(shrink_node(made.mm, made.nodes[NUMA], Cause.DIRECT)):
        at_rest(made)
    assert (states(made)[:2], held(made, BELOW)) == (["SLOTTED", "SLOTTED"], [0, 1])
    assert made.nodes[NUMA].used == 0
    read(made, 0, 1)


def test_a_full_slow_node_makes_room_below_it() -> None:
    made = tiered(6, 2, slow=2)
    write(made, *range(6))
    read(made, *range(6))
    assert made.nodes[NUMA].peak == 2 * made.mm.page_size
    assert "SLOTTED" in states(made)


def test_a_frame_that_the_kernel_refuses_to_move_stays_and_nothing_of_it_is_charged_below() -> None:
    made = tiered()
    write(made, 0, 1)
    made.failing_copies = {0}
    assert made.run(reclaim_pages(made.mm, [0, 1])) == 1
    at_rest(made)
    assert (nodes(made)[:2], made.nodes[NUMA].used) == ([DRAM, NUMA], made.mm.page_size)
    read(made, 0, 1)


@pytest.mark.parametrize("design", DESIGNS)
def test_frames_that_the_kernel_never_moves_go_past_slow_memory_when_dram_is_short(design: str) -> None:
    made = tiered(4, 2, design=design)
    made.unmovable = {0, 1, 2, 3}
    write(made, 0, 1, 2, 3)
    assert made.nodes[NUMA].used == 0
    assert len(held(made, BELOW)) >= 2
    read(made, 0, 1, 2, 3)


def test_a_clean_page_of_a_file_goes_down_and_can_be_written_there() -> None:
    made = machine(4, 4, SLOW, FILE, extents=(Extent(0, 2, source=True), Extent(2, 2)))
    read(made, 0)
    assert states(made)[0] == "SHADOWED"
    made.run(reclaim_pages(made.mm, [0]))
    assert (states(made)[0], nodes(made)[0]) == ("RESIDENT", NUMA)
    write(made, 0)
    read(made, 0)


def test_freeing_gives_the_frames_of_both_nodes_back() -> None:
    made = demoted(0, 1)
    write(made, 2)
    made.dying.update(range(8))
    made.run(free_region(made.mm, made.regions[1]))
    at_rest(made)
    assert [node.used for node in made.nodes] == [0, 0, 0, 0]
    assert made.arena.resident_parts(NUMA) == 0


def test_a_pinned_page_of_slow_memory_comes_to_dram() -> None:
    made = demoted(0)
    made.table.pins[0] = 1
    assert made.run(bring_up_pinned(made.mm, 0, 1))
    at_rest(made)
    assert nodes(made)[0] == DRAM


class TestPromotion:
    def scan(self, made: Machine, *used: int) -> int:
        """Look at slow memory once; the program uses these pages meanwhile."""
        node = made.nodes[NUMA]
        scan = NumaScan(node)
        hinted = made.run(scan.hint(made.mm))
        assert hinted is not None
        read(made, *used)
        hot = made.run(scan.judge(made.mm, hinted))
        promoted: int = made.run(promote_pages(made.mm, hot, node))
        at_rest(made)
        return promoted

    def test_what_is_used_goes_up_and_what_is_not_stays(self) -> None:
        made = demoted(0, 1, 2)
        assert self.scan(made, 1) == 1
        assert nodes(made)[:3] == [NUMA, DRAM, NUMA]
        assert made.arena.nodes[1] == [DRAM, DRAM]
        read(made, 0, 1, 2)

    def test_it_is_counted_as_the_kernel_does(self) -> None:
        made = demoted(0, 1, 2)
        self.scan(made, 1)
        found = counts(made)
        assert (found["numa_pte_updates"], found["numa_hint_faults"]) == (3, 1)
        assert found["pgpromote_candidate"] == found["numa_pages_migrated"] == found["pgpromote_success"] == 1

    def test_no_fault_reaches_the_pager(self) -> None:
        made = demoted(0, 1)
        faults = counts(made)["pgfault"]
        self.scan(made, 0, 1)
        assert counts(made)["pgfault"] == faults

    def test_without_a_frame_to_spare_a_used_page_stays_and_is_remembered(self) -> None:
        made = tiered(6, 2)
        made.place(0, NUMA)
        made.place(4, DRAM)
        made.place(5, DRAM)
        assert self.scan(made, 0) == 0
        assert (nodes(made)[0], made.unwatched("referenced")[0]) == (NUMA, 1)

    def test_a_page_that_is_pinned_stays(self) -> None:
        made = demoted(0)
        made.table.pins[0] = 1
        assert self.scan(made, 0) == 0

    def test_a_refused_move_gives_the_frame_back(self) -> None:
        made = demoted(0)
        made.failing_copies = {0}
        assert self.scan(made, 0) == 0
        assert made.nodes[DRAM].used == 0

    def test_the_hand_goes_around(self, monkeypatch: pytest.MonkeyPatch) -> None:
        made = demoted(0, 1, 2, 3)
        monkeypatch.setattr("thermocline.protocol.promote.SCAN_SIZE", 2 * made.mm.page_size)
        scan = NumaScan(made.nodes[NUMA])
        slices = [made.run(scan.hint(made.mm)) for _ in range(4)]
        assert sorted(slices[0] + slices[1]) == [0, 1, 2, 3]
        assert slices[2] == []  # it has come around
        assert slices[3] == slices[0]


class TestRecovery:
    """A pager was killed, and where the kernel has a frame is not what the page table says."""

    @pytest.mark.parametrize(
        ("says", "kernel", "then"),
        [
            (DRAM, [NUMA, NUMA], NUMA),  # behind the move, before the commit
            (NUMA, [DRAM, DRAM], DRAM),  # ... of a promotion
            (DRAM, [NUMA, DRAM], DRAM),  # in the middle of the move
            (NUMA, [NUMA, DRAM], NUMA),
        ],
    )
    def test_the_entry_and_the_kernel_agree_again(self, says: int, kernel: list[int], then: int) -> None:
        made = tiered()
        write(made, 0)
        made.table.commit(0, RESIDENT, says)
        made.arena.nodes[0] = kernel
        kill_and_recover(made)
        at_rest(made)
        assert nodes(made)[0] == then
        assert made.nodes[then].used == made.mm.page_size
        read(made, 0)

    def test_a_page_that_the_kernel_moved_to_a_full_node_is_moved_back(self) -> None:
        made = tiered(slow=1)
        made.place(0, NUMA)
        made.place(1, DRAM)
        made.arena.nodes[1] = [NUMA, NUMA]
        kill_and_recover(made)
        at_rest(made)
        assert nodes(made)[:2] == [NUMA, DRAM]

    def test_a_clean_page_is_moved_back_to_dram(self) -> None:
        made = tiered()
        made.place(0, BELOW, shadow=True)
        made.arena.nodes[0] = [NUMA, NUMA]
        kill_and_recover(made)
        at_rest(made)
        assert (states(made)[0], made.arena.nodes[0]) == ("SHADOWED", [DRAM, DRAM])

    def test_a_hole_that_was_not_punched_yet_is_given_back_where_it_is(self) -> None:
        made = tiered(slow=1)
        made.place(0, NUMA)
        frame = made.arena.versions[0]
        made.run(shrink_node(made.mm, made.nodes[NUMA], Cause.DIRECT))
        made.arena.versions[0], made.arena.nodes[0] = frame, [NUMA, NUMA]
        made.arena.protected[0] = [True, True]
        kill_and_recover(made)
        at_rest(made)
        assert states(made)[0] == "SLOTTED"
        read(made, 0)

    def test_a_doomed_page_of_slow_memory_gives_its_frame_back(self) -> None:
        made = demoted(0, 1)
        kill_and_recover(made, 0)
        assert states(made)[:2] == ["POISONED", "RESIDENT"]
        assert made.nodes[NUMA].used == made.mm.page_size
