"""Thousands of arrays of all sizes come and go in an odd order: each keeps its own bytes until it is freed."""

import random

import numpy as np

random.seed(4)
alive: dict[int, np.ndarray] = {}
checks = 0
for step in range(1500):
    key = random.randrange(60)
    if key in alive:
        array = alive.pop(key)
        assert (array == key + array.size % 7).all(), key
        checks += 1
    else:
        size = random.choice([10, 900, 9_000, 20_000, 70_000])
        alive[key] = np.full(size, key + size % 7, random.choice(["i2", "i4", "f8"]))
print(checks, sorted(alive)[:5], sum(array.nbytes for array in alive.values()))
for key, array in alive.items():
    array.resize(array.size * 2, refcheck=False)
    assert (array[: array.size // 2] == key + array.size // 2 % 7).all() and not array[array.size // 2 :].any()
print("end")
