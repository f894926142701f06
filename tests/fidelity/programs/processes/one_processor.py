"""On one processor, at the lowest priority: nothing waits for what cannot run.

Started by: taskset -c 0 nice -n 19
"""

import os
import threading

import numpy as np

a = np.zeros(500_000)


def spin(k: int) -> None:
    a[k * 100_000 : (k + 1) * 100_000] += np.full(100_000, k)


threads = [threading.Thread(target=spin, args=(k,)) for k in range(5)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(len(os.sched_getaffinity(0)), os.nice(0), float(a.sum()))
