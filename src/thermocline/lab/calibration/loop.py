"""A pager's own work: its turns, its protocols, its workers."""

from __future__ import annotations

import contextlib
import os
import random
import socket
import threading
import time
from typing import Any

from thermocline.lab.calibration.contents import random_walk
from thermocline.lab.calibration.meter import Meter, replaced
from thermocline.lab.calibration.program import Program
from thermocline.lab.calibration.samples import Samples
from thermocline.live.config import Config
from thermocline.live.pager import Pager
from thermocline.live.ring import Bell
from thermocline.live.session import Settings
from thermocline.live.stores import STORES
from thermocline.live.tables import Tables
from thermocline.protocol.effects import Effect, Fill, Protocol, Resched
from thermocline.protocol.fault import fault
from thermocline.protocol.page import EMPTY, SLOTTED
from thermocline.protocol.scheduler import Handler, Task
from thermocline.spec import Compressed, Dram, File
from thermocline.virtual.costs import Cost

_PAGE = 64 << 10
#: Pages that are used, and those of them that are in DRAM.
_PAGES, _FRAMES = 256, 64
_COMPRESSED, _FILE = 1, 2
#: What is done to pages, and has a cost of its own.
_MOVES = ("install", "install_zeros", "protect", "unprotect", "punch", "read")
#: Faults that are timed together: some of them wake kswapd.
_FAULTS = 16

_clock = time.perf_counter_ns


class Loop:
    """A pager in this process, of the pages of a program that touches none.

    Parameters
    ----------
    directory : str
        For a file, in which nothing comes to be.
    """

    def __init__(self, program: Program, directory: str) -> None:
        nodes = Dram(_FRAMES * _PAGE), Compressed(_PAGES * _PAGE), File(directory, _PAGES * _PAGE)
        with contextlib.ExitStack() as undo:
            self._threads = set(threading.enumerate())
            tables = Tables.create(_PAGES)
            undo.callback(tables.close)
            tables.region_pages[0] = _PAGES
            for page in range(_PAGES):
                tables.page_columns["region"][page] = 1
            bells = [Bell.create(blocking=False), Bell.create(blocking=True)]
            undo.callback(os.close, bells[0])
            undo.callback(os.close, bells[1])
            self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            undo.callback(theirs.close)
            undo.callback(self._control.close)
            stores = []
            for node in nodes[1:]:
                fds = STORES[type(node)].create(node, _PAGE, _PAGES)
                stores.append(list(fds))
                for fd in fds:
                    undo.callback(os.close, fd)
            process = os.pidfd_open(program.pid)
            undo.callback(os.close, process)
            self._pager = Pager(
                Config(
                    nodes=nodes,
                    page_size=_PAGE,
                    pages=_PAGES,
                    arena_address=program.address,
                    program=process,
                    uffd=program.uffd.fd,
                    arena=program.arena,
                    tables=tables.fd,
                    request_bell=bells[0],
                    answer_bell=bells[1],
                    control=theirs.fileno(),
                    lifeline=-1,
                    stores=stores,
                    **vars(Settings(readahead_pages=0)),
                )
            )
            undo.callback(self._stop)
            self._arena = program.arena
            self._undo = undo.pop_all()

    def measure(self, rounds: int) -> dict[str, Cost]:
        """Costs by name: turn, worker, effect."""
        scheduler, stores = self._pager.scheduler, self._pager.copier.stores
        turns, here, away, alone = Samples(), Samples(), Samples(), Samples()

        def errands() -> Protocol[None]:
            yield from _reschedule(100 * rounds, turns)
            yield from self._fill(_COMPRESSED, 20 * rounds, here)
            yield from self._fill(_FILE, 20 * rounds, away)

        nothing = {"read": _nothing}
        with (
            replaced(self._pager.arena, {"install": _nothing}),
            replaced(stores[_COMPRESSED], nothing),
            replaced(stores[_FILE], nothing),
        ):
            scheduler.spawn(errands(), background=True, done=lambda _: self._control.close())
            self._pager.run()
        scheduler.spawn(_reschedule(100 * rounds, alone), background=True)
        while not scheduler.idle:
            scheduler.run_background()
        return {
            "turn": turns.cost(less=alone.median()),
            "worker": away.cost(less=here.median()),
            "effect": self._effects(5 * rounds).cost(),
        }

    def _fill(self, node: int, count: int, samples: Samples) -> Protocol[None]:
        """Fill a page from a node, again and again: the task of a slow node's page is handed to a worker and back."""
        mm = self._pager.mm
        mm.table.commit(0, SLOTTED, node, 1)
        for _ in range(count):
            begun = _clock()
            yield Fill([0], True)
            samples.add(_clock() - begun)
        mm.table.commit(0, EMPTY)

    def _effects(self, chunks: int) -> Samples:
        """Times of an effect: what faults and reclaim take, less what is done to the pages, by the number of effects.

        The pages are really moved, because what that does to the processor's caches makes a protocol slower by a third.
        """
        pager = self._pager
        moving = Meter()
        handlers = pager.scheduler.handlers
        effects = 0

        def counted(handler: Handler) -> Handler:
            def handle(effect: Effect, task: Task) -> Any:
                nonlocal effects
                effects += 1
                return handler(effect, task)

            return handle

        samples = Samples()
        pages = random.Random(0)
        for page, content in zip(range(_PAGES), random_walk(_PAGE), strict=False):
            self._fault(page, write=True)
            os.pwrite(self._arena, content, page * _PAGE)
        with contextlib.ExitStack() as stack:
            stack.enter_context(moving.on(pager.arena, *_MOVES))
            stack.enter_context(moving.on(pager.copier.stores[_COMPRESSED], "read", "write"))
            handlers.update({kind: counted(handler) for kind, handler in handlers.items()})
            for _ in range(chunks):
                moving.reset()
                effects = 0
                begun = _clock()
                for _ in range(_FAULTS):
                    self._fault(pages.randrange(_PAGES), write=pages.random() < 0.5)
                samples.add((_clock() - begun - moving.total) / effects)
        return samples

    def _fault(self, page: int, *, write: bool) -> None:
        """Answer a fault that nobody has had, and let reclaim do what it has to."""
        scheduler = self._pager.scheduler
        scheduler.spawn(fault(self._pager.mm, page, write))
        scheduler.run_foreground()
        while not scheduler.idle:
            scheduler.run_background()
            scheduler.run_foreground()

    def _stop(self) -> None:
        self._pager.close()
        for thread in set(threading.enumerate()) - self._threads:
            thread.join()

    def close(self) -> None:
        """Stop the workers, and close all that it has open."""
        self._undo.close()


def _reschedule(count: int, samples: Samples) -> Protocol[None]:
    """Let others run, though there is nobody."""
    for _ in range(count):
        begun = _clock()
        yield Resched()
        samples.add(_clock() - begun)


def _nothing(*_: object, **__: object) -> None:
    pass
