"""ThreadPoolExecutor: exceptions, cancellations, and a pool that is shut down at exit with work left to do."""

import threading
from concurrent.futures import ThreadPoolExecutor, wait

import numpy as np

gate = threading.Event()


def work(k: int) -> float:
    gate.wait()
    a = np.arange(150_000) * k
    if k == 3:
        raise KeyError(k)
    return float(a.sum())


pool = ThreadPoolExecutor(2)
futures = [pool.submit(work, k) for k in range(8)]
print([future.cancel() for future in futures[6:]])
gate.set()
done, _ = wait(futures)
print([future.exception() if future.exception() else future.result() for future in futures[:6]], len(done))
for k in range(4):
    pool.submit(lambda k=k: [np.ones(100_000).sum() for _ in range(5)])
print("end of main")
