"""The usual timeout: a handler raises out of array work, and the program goes on: SIGALRM, contextlib."""

import contextlib
import signal

import numpy as np


@contextlib.contextmanager
def limit(seconds: float):
    def ring(*_: object) -> None:
        raise TimeoutError("too long")

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


kept = np.arange(400_000)
interrupted = 0
for k in range(40):
    try:
        with limit(0.005 + k * 0.0002):
            while True:
                a = np.ones(60_000)
                b = a + a
                del a
    except TimeoutError:
        interrupted += 1
print(interrupted, int(kept.sum()), float(np.ones(500_000).sum()))
