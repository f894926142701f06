"""MemoryError under RLIMIT_DATA: caught, chained, and the memory that is freed can be had again."""

import resource

import numpy as np

a = np.arange(200_000)
resource.setrlimit(resource.RLIMIT_DATA, (400 << 20, resource.RLIM_INFINITY))
blocks = []
try:
    while True:
        blocks.append(bytearray(50 << 20))
except MemoryError as error:
    print(type(error).__name__, len(blocks) > 2)
    blocks.clear()
    try:
        bytearray(1 << 50)
    except MemoryError as other:
        print(repr(other.__context__))
print(len(bytearray(50 << 20)), int((a + 1).sum()))
