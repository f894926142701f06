"""A program that kills itself: no byte is printed by others, the status is the signal's."""

import os
import signal

import numpy as np

a = np.arange(800_000)
a *= 2
print(int(a.sum()), flush=True)
os.kill(os.getpid(), signal.SIGKILL)
