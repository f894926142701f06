"""Output whose reader has gone, and streams that are closed at the end: BrokenPipeError, status 120."""

import os

import numpy as np

a = np.ones(700_000) * 2
reader, writer = os.pipe()
os.close(reader)
os.dup2(writer, 1)
print("nobody reads this", float(a.sum()))
