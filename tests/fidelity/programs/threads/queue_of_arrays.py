"""Arrays go from thread to thread and are freed by another than made them: queue, threading.local."""

import queue
import threading

import numpy as np

todo: queue.Queue[np.ndarray | None] = queue.Queue(4)
done: queue.Queue[tuple[int, float]] = queue.Queue()
local = threading.local()


def consume() -> None:
    local.scratch = np.zeros(100_000)
    while (array := todo.get()) is not None:
        local.scratch[:] = array
        done.put((int(array[0]), float(local.scratch.sum())))
        del array


threads = [threading.Thread(target=consume) for _ in range(3)]
for thread in threads:
    thread.start()
for k in range(30):
    todo.put(np.full(100_000, float(k)))
for _ in threads:
    todo.put(None)
for thread in threads:
    thread.join()
print(sorted(done.get() for _ in range(30)))
