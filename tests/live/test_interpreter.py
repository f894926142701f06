"""What the interpreter does on a kernel that cannot poison (before Linux 6.6), as this one may not be."""

from __future__ import annotations

import errno
import os
import time

import pytest

from conftest import ARENA_PAGES as PAGES
from conftest import PAGE
from thermocline.live.arena import Arena
from thermocline.live.copier import Copier
from thermocline.live.copies import Copies
from thermocline.live.interpreter import LiveInterpreter
from thermocline.live.mapping import Mapping
from thermocline.live.placement import Placement
from thermocline.live.ring import Bell
from thermocline.live.sampling import Sampler
from thermocline.live.userfaultfd import UserFaultFd
from thermocline.live.workers import Workers
from thermocline.protocol.demotion import DemotionPath
from thermocline.protocol.effects import Poison
from thermocline.protocol.migrate import DESIGNS
from thermocline.protocol.mm import Mm, Policy
from thermocline.protocol.node import Kind, Node
from thermocline.protocol.page import PageTable, array_column
from thermocline.protocol.scheduler import Scheduler, Task
from thermocline.protocol.stopwatch import Stopwatch


def test_the_touch_of_a_process_that_has_gone_since_is_nobody_s(arena: Arena, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its descriptors are closed by then: there is nobody to signal, and what has their numbers may be another."""

    def refuse(*_: object) -> None:
        raise OSError(errno.EINVAL, "no such ioctl")

    monkeypatch.setattr(UserFaultFd, "poison", refuse)
    mm = Mm(
        PAGE,
        [Node(0, "dram", Kind.MAPPED, PAGES * PAGE, PAGE)],
        DemotionPath(),
        PageTable(PAGES),
        Policy(DESIGNS["batch"]),
        lambda _: None,
    )
    bell = Bell(Bell.create(blocking=True))
    scheduler = Scheduler(Stopwatch(time.perf_counter_ns), array_column("B", PAGES))
    workers, placement = Workers(["dram"], scheduler, bell), Placement(arena, PAGE, {})
    copier = Copier(mm, arena, scheduler, {}, lambda number: {}[number], workers, placement)
    interpreter = LiveInterpreter(
        mm, arena, scheduler, {}, copier, workers, Sampler(arena, placement, PAGE), Copies(-1, arena)
    )
    task = Task((_ for _ in ()), background=False)
    (own,) = arena.mappings
    gone = Mapping(1, own.uffd, own.address, PAGE, os.pidfd_open(os.getpid()))
    arena.attach(gone)
    interpreter.poison(Poison(0), task)
    interpreter.unpoisoned[0].append(gone)
    arena.detach(gone)
    os.close(gone.process)
    interpreter.poison(Poison(0), task)
    assert interpreter.unpoisoned == {0: []}
    workers.close()
    os.close(bell.fd)
