"""Errors of buffers: exports that forbid a resize, read-only and strided buffers, sizes that do not fit."""

import ctypes
import io

import numpy as np

a = np.arange(300_000)
view = memoryview(a)
for attempt in (
    lambda: a.resize(10),
    lambda: np.frombuffer(b"abc", "i8"),
    lambda: np.frombuffer(a, "i8", 300_001),
    lambda: io.BytesIO(b"x").readinto(a[::2]),
    lambda: (ctypes.c_char * 10).from_buffer(a[:1]),
    lambda: view.cast("f"),
    lambda: np.asarray(view[::2].toreadonly()).__setitem__(0, 1),
    lambda: a.view("S7"),
    lambda: np.ndarray((10, 10), buffer=a[:5]),
    lambda: a.astype("i4", casting="safe"),
    lambda: np.broadcast_to(a, (3, 300_001)),
    lambda: a[:, None, None][5, 6],
    lambda: np.concatenate([a.reshape(2, -1), a.reshape(3, -1)]),
    lambda: open("/dev/full", "wb", 0).write(a),
    lambda: np.load(io.BytesIO(a)),
    lambda: a.tofile("/no/such/dir/a"),
):
    try:
        print("no error:", attempt())
    except (ValueError, TypeError, BufferError, OSError, IndexError) as error:
        print(type(error).__name__, error)
view.release()
a.resize(10, refcheck=False)
print(a)
