"""The search itself: its reductions lose nothing, its bounds hold, and what it counts is so."""

from __future__ import annotations

from dataclasses import replace

import pytest

from thermocline.check.cases import cases
from thermocline.check.configuration import Configuration, Placed
from thermocline.check.digest import Describer
from thermocline.check.footprint import Footprint, conflict
from thermocline.check.ingredients import cold, file, reads, writes
from thermocline.check.layout import Layout
from thermocline.check.machine import Machine
from thermocline.check.program import Program
from thermocline.check.search import Search
from thermocline.check.system import Step, System
from thermocline.protocol.effects import Lock, Protocol, Resched, Reserve, Throttle, Unlock
from thermocline.protocol.migrate import DESIGNS
from thermocline.protocol.mm import Policy

BATCH = DESIGNS["batch"]
NAMED = {configuration.name: configuration for configuration in cases()}


@pytest.mark.parametrize("name", ["tight target", "full target", "group reclaim", "shadow", "incompressible", "kswapd"])
def test_sleep_sets_leave_out_steps_and_no_state(name: str) -> None:
    """Also the check of all footprints: one that is too small loses a state here."""
    some = Search(NAMED[name], BATCH)
    every = Search(NAMED[name], BATCH, livelocks=True)
    assert some.run().states == every.run().states
    assert some.seen == every.seen
    assert some.result.steps < every.result.steps


def test_turns_at_every_effect_cover_more() -> None:
    cooperative = Search(NAMED["readahead"], BATCH).run()
    every_effect = Search(replace(NAMED["readahead"], cooperative=False), BATCH).run()
    assert cooperative.states < every_effect.states


def test_a_bound_on_states_ends_the_search_with_an_honest_word() -> None:
    result = Search(NAMED["kswapd"], BATCH, max_states=500).run()
    assert (result.states, result.exhaustive, result.stopped) == (500, False, "stopped at 500 states")


def test_a_bound_on_memory_ends_the_search_with_an_honest_word() -> None:
    result = Search(NAMED["kswapd"], BATCH, max_memory=1 << 20).run()
    assert not result.exhaustive
    assert result.stopped == "stopped at 1 MiB of memory"


def test_a_search_of_one_thread_that_never_faults_is_counted_by_hand() -> None:
    """Two accesses of two parts each: five states in a row."""
    configuration = Configuration(
        "counted", Layout(1, 1, (file(1),)), {"thread A": (writes(0), reads(0))}, placed=(Placed(0, 0),), kswapd=False
    )
    result = Search(configuration, BATCH).run()
    assert (result.states, result.steps, result.schedules, result.longest) == (5, 4, 1, 4)


def test_two_threads_that_never_meet_are_counted_by_hand() -> None:
    """Three states each, in all pairs; of six schedules of two steps each, one stands for all."""
    configuration = Configuration(
        "counted",
        Layout(2, 2, (file(1),)),
        {"thread A": (writes(0),), "thread B": (writes(1),)},
        placed=(Placed(0, 0), Placed(1, 0)),
        kswapd=False,
    )
    some, every = Search(configuration, BATCH).run(), Search(configuration, BATCH, livelocks=True).run()
    assert (some.states, every.states) == (9, 9)
    assert (some.steps, every.steps) == (8, 12)


def test_the_same_search_twice_is_the_same() -> None:
    one, other = Search(NAMED["shadow"], BATCH), Search(NAMED["shadow"], BATCH)
    assert (one.run().steps, one.seen) == (other.run().steps, other.seen)


def machine_with(protocol: Protocol[None]) -> tuple[Machine, Describer]:
    machine = Machine(Layout(2, 2), Policy(BATCH, False, 0))
    machine.spawn("task", protocol)
    return machine, Describer(machine, Program(machine, {}))


def test_a_digest_tells_apart_where_a_protocol_is() -> None:
    def protocol() -> Protocol[None]:
        for _ in [1, 1]:
            for _ in [2, 2]:
                yield Resched()

    machine, describer = machine_with(protocol())
    seen = set()
    for _ in range(5):
        seen.add(describer.state())
        machine.step(machine.tasks["task"])
    assert len(seen) == 5, "two loops over equal values differ only in the iterators on the stack"


def test_a_digest_tells_apart_who_is_about_to_wait_and_who_was_woken() -> None:
    def protocol() -> Protocol[None]:
        yield Throttle(0)
        yield Resched()

    machine, describer = machine_with(protocol())
    task = machine.tasks["task"]
    machine.step(task)
    before = describer.state()
    machine.nodes[0].used = 128
    machine.step(task)
    machine.nodes[0].used = 0
    machine.throttled.clear()
    task.resume(None)
    assert describer.state() != before


def test_a_digest_is_the_same_whether_or_not_it_was_looked_at_before() -> None:
    def protocol() -> Protocol[None]:
        yield Resched()
        zebra = yield Reserve(0, 0)
        apple = yield Reserve(0, 0)
        yield Resched()
        assert (zebra, apple) == (0, 0)

    looked, unlooked = machine_with(protocol()), machine_with(protocol())
    for _ in range(4):
        looked[1].state()
        for machine, _ in (looked, unlooked):
            machine.step(machine.tasks["task"])
    assert looked[1].state() == unlooked[1].state()


def test_footprints_conflict_when_one_writes_what_the_other_touches() -> None:
    footprint = Footprint()

    def touched(reads_: str, writes_: str) -> tuple[int, int]:
        footprint.clear()
        for name in reads_:
            footprint.read(name)
        for name in writes_:
            footprint.write(name)
        return footprint.reads, footprint.writes

    assert not conflict(touched("ab", ""), touched("ab", ""))
    assert not conflict(touched("a", "b"), touched("c", "d"))
    assert conflict(touched("a", ""), touched("", "a"))
    assert conflict(touched("", "a"), touched("a", ""))
    assert conflict(touched("", "a"), touched("", "a"))


def test_locks_are_handed_on_in_the_order_of_asking() -> None:
    order: list[str] = []

    def protocol(name: str) -> Protocol[None]:
        yield Lock(0)
        order.append(name)
        yield Resched()
        yield Unlock(0)

    machine = Machine(Layout(1, 1), Policy(BATCH, False, 0))
    for name in "abc":
        machine.spawn(name, protocol(name))
    for name in "acb":
        machine.step(machine.tasks[name])
        machine.step(machine.tasks[name])
    assert machine.tasks["b"].waits_for == "the lock of page 0"
    machine.settle()
    assert order == ["a", "c", "b"]


def test_a_schedule_can_be_followed_step_by_step() -> None:
    configuration = Configuration(
        "followed", Layout(1, 1, (file(1),)), placed=(Placed(0, 0),), requests={"cold": cold(0)}, kswapd=False
    )
    system = System(configuration, DESIGNS["deferred"], Footprint())
    system.verbose = True
    did = []
    while not system.finished:
        (step,) = system.steps()
        assert step == Step("cold")
        did.append(system.take(step))
        system.check()
    assert did == [
        "goes on",
        "tries to lock page 0: done",
        "asks for a slot of file: slot 1",
        "wakes kswapd of file",
        "write-protects page 0",
        "begins to copy page 0 to file",
        "ends what it began",
        "ends what it began",
        "commits page 0 as SLOTTED, slot 1 of file",
        "punches the hole of page 0",
        "unlocks page 0",
        "lets others run, and has ended",
    ]
