"""gc: arrays in cycles are freed when a collection says so, callbacks are told, gc.freeze, thresholds."""

import gc
import weakref

import numpy as np


class Node:
    def __init__(self, k: int) -> None:
        self.array = np.full(150_000, k)
        self.me = self


gc.collect()
gc.disable()
calls: list[str] = []
gc.callbacks.append(lambda phase, info: calls.append(f"{phase} {info['generation']}"))
nodes = [weakref.ref(Node(k)) for k in range(6)]
print([node() is not None for node in nodes])
print(gc.collect(), [node() is None for node in nodes], calls)
print(gc.garbage, gc.isenabled(), gc.get_threshold())
gc.freeze()
gc.unfreeze()
gc.enable()
gc.set_threshold(10, 2, 2)
for k in range(40):
    Node(k)
gc.callbacks.clear()
gc.collect()
print(float(np.ones(400_000).sum()))
