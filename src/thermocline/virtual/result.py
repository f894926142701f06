"""The results of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from thermocline.protocol.histogram import Distribution


@dataclass(frozen=True, slots=True)
class ThreadResult:
    """The results of one thread.

    Attributes
    ----------
    touches : int
        How many it made.
    stalls : Distribution
        Of those that waited for a page: from the touch to its being done.
    stall_ns : sequence of int or None
        The same one by one, if that was asked for.
    ended_ns : int
        When it ended.
    killed : bool
        Whether in SIGBUS.
    """

    touches: int
    stalls: Distribution
    stall_ns: Sequence[int] | None
    ended_ns: int
    killed: bool


@dataclass(frozen=True, slots=True)
class Result:
    """The books when the last thread had ended (without threads: when the last request had its answer).

    Attributes
    ----------
    ns : int
        That time.
    cpu_ns : int
        How much of it the pager was busy.
    vmstat : mapping of str to int
        Counters by name.
    fault, lock_wait, source_lock, allocating : Distribution
        As the stopwatch has them (:data:`thermocline.protocol.stopwatch.TIMED`).
    threads : tuple of ThreadResult
        In the order in which they were made.
    cold_requests, cold_pages : int
        Requests of :meth:`VirtualMemory.drive_cold` that had an answer, and the pages that left DRAM for them.
    digest : str or None
        Of every effect and of what befell the threads, each with its time, until everything had come to rest.
    """

    ns: int
    cpu_ns: int
    vmstat: Mapping[str, int]
    fault: Distribution
    lock_wait: Distribution
    source_lock: Distribution
    allocating: Distribution
    threads: tuple[ThreadResult, ...]
    cold_requests: int
    cold_pages: int
    digest: str | None
