"""Subclasses, records, masked arrays and matrices keep their class and data through pickles and arithmetic."""

import pickle

import numpy as np


class Tagged(np.ndarray):
    def __array_finalize__(self, other: object) -> None:
        self.tag = getattr(other, "tag", "none")

    def __reduce__(self):
        function, args, state = super().__reduce__()
        return function, args, (*state, self.tag)

    def __setstate__(self, state) -> None:
        super().__setstate__(state[:-1])
        self.tag = state[-1]


t = np.arange(300_000).view(Tagged)
t.tag = "mine"
u = pickle.loads(pickle.dumps(t * 2, 5))
print(type(u).__name__, u.tag, int(u.sum()), type(u[::3]).__name__, u[::3].tag)
m = np.ma.masked_array(np.arange(200_000.0), mask=np.arange(200_000) % 3 == 0)
n = pickle.loads(pickle.dumps(m))
print(float(n.mean()), int(n.count()), np.ma.allequal(m, n), (m + n)[:4])
r = np.rec.fromarrays([np.arange(100_000), np.arange(100_000.0)], names="x,y")
s = pickle.loads(pickle.dumps(r))
print(type(s).__name__, s.x[-1], s[5], s.y.sum())
structured = np.zeros(100_000, [("a", "i4"), ("b", "f8", (2,)), ("c", "S3")])
structured["b"][:, 1] = np.arange(100_000)
print(pickle.loads(pickle.dumps(structured))[99_999], structured[["a", "b"]].dtype)
