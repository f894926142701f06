"""Views outlive all else: slices, transposes, memoryviews, buffers, sliding windows, as_strided, weakrefs."""

import gc
import weakref

import numpy as np


def make() -> list[np.ndarray]:
    a = np.arange(600_000).reshape(600, 1000)
    gone = weakref.finalize(a, print, "owner is gone")
    gone.atexit = False
    return [
        a[::7, ::-3],
        a.T[5],
        np.lib.stride_tricks.sliding_window_view(a[0], 10)[::100],
        np.lib.stride_tricks.as_strided(a[3:], (5, 5), (8, 8)),
        np.asarray(memoryview(a)[10:12]),
        np.frombuffer(a.data, "u1")[-80:].view("i8"),
    ]


views = make()
np.ones(700_000)
while views:
    view = views.pop(0)
    print(view.shape, int(view.sum()), view.base is not None)
    del view
    gc.collect()
print("end")
