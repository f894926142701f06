"""os._exit with unflushed output, arrays alive and threads at work: the output is lost, the status is not."""

import os
import sys
import threading

import numpy as np

a = np.ones(700_000)
threading.Thread(target=lambda: [a + k for k in range(1000)]).start()
print("flushed", float(a.sum()), flush=True)
sys.stdout.write("lost")
os._exit(11)
