"""What no machine has is a MemoryError with NumPy's own words, and the program goes on."""

import numpy as np

kept = np.arange(500_000)
for make in (np.empty, np.zeros, np.ones):
    for count in (1 << 50, 1 << 58, 1 << 62):
        try:
            make(count, "f8")
        except (MemoryError, ValueError) as error:
            print(make.__name__, type(error).__name__, error)
try:
    kept.repeat(1 << 30)
except MemoryError as error:
    print(type(error).__name__, error)
try:
    np.arange(1 << 45)
except MemoryError as error:
    print(error)
try:
    kept.resize(1 << 50, refcheck=False)
except MemoryError as error:
    print(error, kept.shape)
try:
    np.concatenate([np.broadcast_to(kept, (1 << 25, 500_000))])
except MemoryError as error:
    print(error)
print(int(kept.sum()), float(np.ones(400_000).sum()))
