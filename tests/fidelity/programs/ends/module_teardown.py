"""Arrays that die with the modules, in __del__ and in cycles, when the interpreter is finalized."""

import sys

import numpy as np


class Late:
    def __init__(self, k: int) -> None:
        self.k = k
        self.array = np.full(200_000, k)
        self.cycle = [self]

    def __del__(self, write=sys.stdout.write) -> None:
        self.array += 1
        write(f"late {self.k} {int(self.array[-1])}\n")


keep = [Late(1), Late(2)]
sys.modules["keeper"] = Late(3)
sys.keeper = Late(4)
view = np.arange(300_000)[::7]
print("end of main")
