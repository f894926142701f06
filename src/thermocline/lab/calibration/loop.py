"""A pager's own work: its turns, its protocols, its workers."""

from __future__ import annotations

import contextlib
import os
import random
import socket
import threading
import time
from collections.abc import Callable
from contextlib import closing
from functools import partial
from typing import Any

from thermocline.lab.calibration.contents import buffer_of, random_walk
from thermocline.lab.calibration.meter import Meter, replaced
from thermocline.lab.calibration.program import Program
from thermocline.lab.calibration.samples import Samples
from thermocline.live import control, libc
from thermocline.live.channel import Channel
from thermocline.live.config import Config
from thermocline.live.control import Packet
from thermocline.live.pager import Pager
from thermocline.live.session import Settings
from thermocline.live.stores import STORES
from thermocline.live.tables import Tables
from thermocline.protocol.effects import CopyList, Effect, Fill, Protocol, Resched
from thermocline.protocol.fault import fault
from thermocline.protocol.page import EMPTY, RESIDENT, SLOTTED
from thermocline.protocol.scheduler import Handler, Task
from thermocline.spec import Compressed, Dram, File
from thermocline.virtual.costs import Cost

PAGE = 64 << 10
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
        nodes = Dram(_FRAMES * PAGE), Compressed(_PAGES * PAGE), File(directory, _PAGES * PAGE)
        with contextlib.ExitStack() as undo:
            self._threads = set(threading.enumerate())
            tables = Tables.create(_PAGES)
            undo.callback(tables.close)
            tables.region_pages[0] = _PAGES
            for page in range(_PAGES):
                tables.page_columns["region"][page] = 1
            self._control, theirs = Channel.pair(socket.SOCK_SEQPACKET)
            undo.callback(theirs.close)
            undo.callback(self._control.close)
            stores = []
            for node in nodes[1:]:
                fds = STORES[type(node)].create(node, PAGE, _PAGES)
                stores.append(list(fds))
                for fd in fds:
                    undo.callback(os.close, fd)
            process = os.pidfd_open(program.pid)
            undo.callback(os.close, process)
            self._pager = Pager(
                Config(
                    nodes=nodes,
                    page_size=PAGE,
                    pages=_PAGES,
                    arena_address=program.address,
                    program=process,
                    uffd=program.uffd.fd,
                    arena=program.arena,
                    tables=tables.fd,
                    control=theirs.fileno(),
                    lifeline=-1,
                    door=-1,
                    secret=0,
                    saved=-1,
                    stores=stores,
                    **vars(Settings(readahead_pages=0)),
                ),
                theirs,
                [Packet("attach", (0, program.address, 0), (program.uffd.fd, process))],
            )
            undo.callback(self._stop)
            self._arena = program.arena
            self._undo = undo.pop_all()

    def crowded(self, rounds: int) -> tuple[float, float, dict[str, Cost]]:
        """What workers of a busy pager take.

        Two workers read while one writes, and the pager computes: they share the disk, and the interpreter, which each
        of them has to wait for after every system call.

        Returns
        -------
        reading, writing : float
            Nanoseconds that a page takes to come from a file, and to go there, its way out of the arena included.
        costs : dict
            Costs by name: submit, worker.
        """
        pager = self._pager
        copier, workers, scheduler = pager.copier, pager.workers, pager.scheduler
        reading, writing, submitting, beginning = Samples(), Samples(), Samples(), Samples()
        run_in_worker = workers.run
        left = 3

        def timed(node: int, writes: bool, run: Callable[..., Any], *rest: Any, **named: Any) -> Any:
            submitted = _clock()

            def run_timed(*noted: Any) -> Any:
                begun = _clock()
                beginning.add(max(begun - submitted, 0))
                result = run(*noted)
                (writing if writes else reading).add(_clock() - begun)
                return result

            asked = _clock()
            parked = run_in_worker(node, writes, run_timed, *rest, **named)
            submitted = _clock()
            submitting.add(submitted - asked)
            return parked

        def again_and_again(effect: Effect) -> Protocol[None]:
            nonlocal left
            for _ in range(10 * rounds):
                yield effect
            left -= 1

        def compute() -> Protocol[None]:
            while left:
                yield Fill([3], True)
                yield Resched()

        with closing(buffer_of(1, PAGE)) as page:
            for number, node in ((0, _FILE), (1, _FILE), (2, _FILE), (3, _COMPRESSED)):
                slot = copier.stores[node].reserve()
                copier.stores[node].write(slot, page, 0)
                pager.mm.table.commit(number, SLOTTED, node, slot)
            os.pwrite(self._arena, page.view, 2 * PAGE)
        slot = pager.mm.table.place(2)[1]
        pager.mm.table.commit(2, RESIDENT)
        with replaced(pager.arena, {"install": _nothing}), replaced(workers, {"run": timed}):
            for number in (0, 1):
                scheduler.spawn(again_and_again(Fill([number], True)), background=True)
            scheduler.spawn(again_and_again(CopyList([2], _FILE, [slot], 0)), background=True)
            scheduler.spawn(compute(), background=True)
            while left:
                workers.resume_finished()
                scheduler.run_background()
        libc.punch_hole(self._arena, 2 * PAGE, PAGE)
        for number, node in ((0, _FILE), (1, _FILE), (3, _COMPRESSED)):
            copier.stores[node].release(pager.mm.table.place(number)[1])
            pager.mm.table.commit(number, EMPTY)
        copier.stores[_FILE].release(slot)
        pager.mm.table.commit(2, EMPTY)
        return reading.median(), writing.median(), {"submit": submitting.cost(), "worker": beginning.cost()}

    def measure(self, rounds: int) -> dict[str, Cost]:
        """Costs by name: turn, effect."""
        scheduler = self._pager.scheduler
        turns, alone = Samples(), Samples()
        done = partial(control.send, self._control, "close")
        scheduler.spawn(_reschedule(100 * rounds, turns), background=True, done=lambda _: done())
        self._pager.run()
        scheduler.spawn(_reschedule(100 * rounds, alone), background=True)
        while not scheduler.idle:
            scheduler.run_background()
        return {
            "turn": turns.cost(less=alone.median()),
            "effect": self._effects(5 * rounds).cost(),
        }

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
        for page, content in zip(range(_PAGES), random_walk(PAGE), strict=False):
            self._fault(page, write=True)
            os.pwrite(self._arena, content, page * PAGE)
        with contextlib.ExitStack() as stack:
            stack.enter_context(moving.on(pager.arena, *_MOVES))
            stack.enter_context(moving.on(pager.copier.stores[_COMPRESSED], "read", "write"))
            handlers.update({kind: counted(handler) for kind, handler in handlers.items()})
            for _ in range(chunks):
                moving.reset()
                effects = waited = 0
                begun = _clock()
                for _ in range(_FAULTS):
                    waited += self._fault(pages.randrange(_PAGES), write=pages.random() < 0.5)
                samples.add((_clock() - begun - moving.total - waited) / effects)
        return samples

    def _fault(self, page: int, *, write: bool) -> int:
        """Answer a made-up fault, and let reclaim do what it has to -> nanoseconds in which threads alone worked."""
        scheduler = self._pager.scheduler
        scheduler.spawn(fault(self._pager.mm, page, write))
        scheduler.run_foreground()
        waited = 0
        while not scheduler.idle or self._pager.workers.working:
            begun = _clock()
            while scheduler.idle and self._pager.workers.working:
                self._pager.workers.resume_finished()
            waited += _clock() - begun
            scheduler.run_background()
            scheduler.run_foreground()
        return waited

    def _stop(self) -> None:
        self._pager.close()
        for thread in set(threading.enumerate()) - self._threads:
            thread.join()
        os.close(self._pager.bell.fd)

    def close(self) -> None:
        """Stop the workers, and close all that it has open."""
        self._undo.close()


def _reschedule(count: int, samples: Samples) -> Protocol[None]:
    """Yield the processor to other tasks, though there are none."""
    for _ in range(count):
        begun = _clock()
        yield Resched()
        samples.add(_clock() - begun)


def _nothing(*_: object, **__: object) -> None:
    pass
