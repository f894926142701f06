"""SIGINT to the process becomes a KeyboardInterrupt in the middle of array work, and ends it as ever."""

import os
import signal
import threading

import numpy as np

a = np.zeros(500_000)
threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()
try:
    while True:
        a += 1
except KeyboardInterrupt:
    print("interrupted", bool((a == a[0]).all()) or "in the middle")
os.kill(os.getpid(), signal.SIGINT)
while True:
    a += 1
