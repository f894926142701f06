"""Children that are still alive when the program ends, with arrays, write what they have to when they get to it."""

import os
import sys

import numpy as np

a = np.arange(400_000)
reader, writer = os.pipe()
keeper = os.fork()
if keeper:
    # What the shell waits for lives as long as the last of them; the parent of the workers does not.
    os.close(writer)
    os.waitpid(keeper, 0)
    while os.read(reader, 100):
        pass
    print(sorted(os.listdir()), [int(np.load(f"{k}.npy").sum()) for k in range(3)])
    sys.exit()
for k in range(3):
    if not os.fork():
        a *= k
        np.save(f"{k}.npy", a)
        os._exit(0)
    a += 1
os._exit(0)
