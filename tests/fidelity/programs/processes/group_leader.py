"""Whether the program leads its process group, and may so not make a session of its own: os.setsid, os.getppid."""

import os

import numpy as np

a = np.ones(600_000)
a += 1
print("leads its group:", os.getpgrp() == os.getpid(), float(a.sum()))
try:
    os.setsid()
    print("has a session of its own now")
except PermissionError as error:
    print(error)
