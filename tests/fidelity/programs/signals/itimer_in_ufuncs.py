"""A timer interrupts long ufuncs again and again; its handler allocates arrays: signal.setitimer."""

import signal

import numpy as np

ticks = 0


def tick(*_: object) -> None:
    global ticks
    ticks += 1
    np.ones(20_000)[::2] += 1


signal.signal(signal.SIGALRM, tick)
signal.setitimer(signal.ITIMER_REAL, 0.02, 0.02)
a = np.arange(150_000, dtype="f8")
for _ in range(30):
    a = np.sqrt(a * a + 1)
while not ticks:  # on a fast machine
    np.sqrt(a)
signal.setitimer(signal.ITIMER_REAL, 0)
expected = np.arange(150_000, dtype="f8")
for _ in range(30):
    expected = np.sqrt(expected * expected + 1)
print(bool((a == expected).all()), ticks > 0, round(float(a[12345]), 9))
