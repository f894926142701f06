"""A thread forks while others write to arrays: the child goes on with the one thread, and its own array."""

import os
import threading

import numpy as np

a = np.zeros(400_000)
stop = threading.Event()


def scribble() -> None:
    own = np.ones(200_000)
    while not stop.is_set():
        own += 1


writers = [threading.Thread(target=scribble) for _ in range(2)]
for writer in writers:
    writer.start()


def fork(results: list[int]) -> None:
    for k in range(5):
        a[:] = k
        child = os.fork()
        if not child:
            alive = threading.active_count()
            fresh = np.full(300_000, 2.0)
            os._exit(int(a.mean() + fresh.mean()) * 10 + alive)
        a[:] = 77
        results.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))


results: list[int] = []
forker = threading.Thread(target=fork, args=(results,))
forker.start()
forker.join()
stop.set()
for writer in writers:
    writer.join()
print(results)
