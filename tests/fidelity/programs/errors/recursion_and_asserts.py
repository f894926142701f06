"""Array work in a deep recursion, in __del__ and in a generator that is thrown into."""

import sys

import numpy as np


def deep(n: int, a: np.ndarray) -> float:
    return deep(n - 1, a[1:]) if n else float(a.sum())


class Holder:
    def __init__(self, k: int) -> None:
        self.array = np.full(200_000, k)

    def __del__(self) -> None:
        print("gone", int(self.array.sum()))
        raise RuntimeError("in __del__")


def generate():
    a = np.arange(300_000)
    while True:
        try:
            a = a + (yield int(a[-1]))
        except ValueError as error:
            print("thrown", error)


sys.unraisablehook = lambda unraisable: print("unraisable", unraisable.exc_value)
print(deep(500, np.ones(300_000)))
try:
    deep(10**6, np.ones(300_000))
except RecursionError as error:
    print(type(error).__name__)
Holder(3)
generator = generate()
print(next(generator), generator.send(5), generator.throw(ValueError("x")), generator.send(1))
generator.close()
