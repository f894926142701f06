"""What the requests of the program begin, in the pager (see :mod:`thermocline.live.ring`)."""

from __future__ import annotations

from thermocline.live import statistics
from thermocline.live.doorbell import Doorbell
from thermocline.live.interpreter import LiveInterpreter
from thermocline.live.known_regions import KnownRegions
from thermocline.live.ring import DONE, REFUSED, Request, Ring, What
from thermocline.live.tables import Tables
from thermocline.protocol.fault import read_ahead
from thermocline.protocol.lazyfree import age_lazyfree, holds_lazyfree
from thermocline.protocol.pin import bring_up_pinned
from thermocline.protocol.reclaim import reclaim_pages
from thermocline.protocol.region import free_region


class Service:
    """Serves the requests of one memory's program."""

    def __init__(self, interpreter: LiveInterpreter, tables: Tables, regions: KnownRegions) -> None:
        self._interpreter = interpreter
        self._mm = interpreter.mm
        self._spawn = interpreter.scheduler.spawn
        self._tables = tables
        self._regions = regions
        self._ring = Ring(tables)
        self._answers = Doorbell(tables, Tables.HEADER_ANSWERS)
        self._watches_lazyfree = False

    def take_over(self) -> None:
        """Do again what a killed predecessor had begun."""
        if self._tables.header[Tables.HEADER_LAZYFREE_WATCHED]:
            self._watch_lazyfree()
        for request in self._ring.unanswered():
            self._serve(request)
        self._answers.change()  # it may have been killed between an answer and its ring

    def serve(self) -> None:
        """Begin what was asked for since the last call."""
        for request in self._ring.take():
            self._serve(request)

    def _serve(self, request: Request) -> None:
        """Begin what a request asks for; ``answer`` ends it."""

        def answer(result: object) -> None:
            self._ring.answer(request.number, REFUSED if result is False else DONE)
            self._answers.change()

        pages = range(request.first, request.first + request.second)
        mm, spawn = self._mm, self._spawn
        if request.what == What.FREE:
            region = self._regions.find(request.first)
            if region is None:
                answer(None)
                return

            self._regions.mark_freed(region)

            def freed(_: None, number: int = request.first) -> None:
                self._regions.forget(number)
                self._interpreter.forget(range(region.start, region.end))
                answer(None)

            spawn(free_region(mm, region), done=freed)
        elif request.what == What.PIN:
            spawn(bring_up_pinned(mm, request.first, request.second), done=answer)
        elif request.what == What.COLD:
            spawn(reclaim_pages(mm, pages), background=True, done=answer)
        elif request.what == What.WILLNEED:
            spawn(read_ahead(mm, pages, False), background=True)
            answer(None)
        elif request.what == What.ADVICE:
            self._regions.read_advice(request.first)
            answer(None)
        elif request.what == What.GROUP:
            self._regions.read_group(request.first)
            answer(None)
        elif request.what == What.LAZYFREE:
            self._watch_lazyfree()
            answer(None)
        else:
            statistics.publish(mm, self._tables)
            answer(None)

    def _watch_lazyfree(self) -> None:
        """Look now and then at what the program keeps of freed blocks, until there is nothing of them in memory."""
        if not self._watches_lazyfree:
            self._watches_lazyfree = True
            self._spawn(age_lazyfree(self._mm), background=True, done=self._rest_from_lazyfree)

    def _rest_from_lazyfree(self, _: None) -> None:
        # In this order: the program asks for it when it keeps a block and finds this word clear.
        self._watches_lazyfree = False
        self._tables.header[Tables.HEADER_LAZYFREE_WATCHED] = 0
        if holds_lazyfree(self._mm):
            self._tables.header[Tables.HEADER_LAZYFREE_WATCHED] = 1
            self._watch_lazyfree()
