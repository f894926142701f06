"""The threads of a pager, which wait for what may take its time.

Each node has threads of its own, and those that read are others than those that write: so a read never queues behind
the writes of reclaim, nor behind a device that hangs and is not its own.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from thermocline.live.jobs import Job, Jobs
from thermocline.live.ring import Bell
from thermocline.protocol.page import Column, array_column
from thermocline.protocol.scheduler import PARKED, Scheduler, Task

#: Threads that read from, and that write to, each node.
_READERS, _WRITERS = 4, 2


class Workers:
    """Runs jobs in threads, and resumes the tasks that wait for them, in the pager's.

    Parameters
    ----------
    nodes : sequence of str
        What the nodes are called, by index.
    bell : Bell
        Rung when a job is done, to wake the pager.
    native : Jobs or None
        For what only computes and copies.

    Attributes
    ----------
    working : int
        Jobs that the threads have, or have done and whose tasks are not resumed yet.
    """

    def __init__(self, nodes: Sequence[str], scheduler: Scheduler, bell: Bell, native: Jobs | None = None) -> None:
        self._nodes = nodes
        self._native = native
        self._scheduler = scheduler
        self._bell = bell
        self._threads: dict[tuple[int, bool], ThreadPoolExecutor] = {}
        self._finished: deque[tuple[Task, Callable[[], Any]]] = deque()
        self.working = 0

    def run(
        self,
        node: int,
        writes: bool,
        job: Callable[[Column], Any],
        task: Task,
        then: Callable[[Any], Any] = lambda value: value,
    ) -> Any:
        """Run a job in a thread of a node, and ``then`` resume the task with its result, in the pager's thread.

        It gets the place in which it notes what it is at.
        """
        threads = self._threads.get((node, writes))
        if threads is None:
            name = f"{self._nodes[node]} {'write' if writes else 'read'}"
            threads = ThreadPoolExecutor(_WRITERS if writes else _READERS, thread_name_prefix=name)
            self._threads[node, writes] = threads
        noted = array_column("Q", 1)

        def result(future: Future[Any]) -> Any:
            if future.exception() is not None:
                self._scheduler.noted[0] = noted[0]  # for the supervisor: this is what the pager is going to die at
            return then(future.result())

        def finished(future: Future[Any]) -> None:
            self._finished.append((task, lambda: result(future)))
            self._bell.ring()

        self.working += 1
        threads.submit(job, noted).add_done_callback(finished)
        return PARKED

    @property
    def native_threads(self) -> int:
        """How many jobs :meth:`run_native` does at once."""
        return 0 if self._native is None else self._native.threads

    def run_native(self, jobs: Sequence[Job], task: Task, then: Callable[[], Any]) -> Any:
        """Run jobs in native threads, and ``then`` resume the task with its result, in the pager's thread."""
        assert self._native is not None
        self.working += 1
        left = len(jobs)

        def done() -> None:
            nonlocal left
            left -= 1
            if not left:
                self._finished.append((task, then))

        for job in jobs:
            self._native.run(job, done)
        return PARKED

    def ask_kernel(self, node: int, ask: Callable[[], Any], task: Task) -> Any:
        """Ask the kernel what may take it long, in a thread of a node, and resume the task with the answer."""
        return self.run(node, False, lambda _: ask(), task)

    def resume_finished(self) -> None:
        """Resume the tasks whose jobs are done."""
        if self._native is not None:
            for done in self._native.finished():
                done()
        while self._finished:
            task, result = self._finished.popleft()
            self.working -= 1
            value = result()
            if value is not PARKED:  # else it waits for another job now
                self._scheduler.resume(task, value)

    def close(self) -> None:
        """Stop the threads, without waiting for a device that hangs."""
        for threads in self._threads.values():
            threads.shutdown(wait=False, cancel_futures=True)
        if self._native is not None:
            self._native.close()
