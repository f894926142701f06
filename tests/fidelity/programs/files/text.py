"""Text files: savetxt, loadtxt, genfromtxt, and printing large arrays."""

import numpy as np

a = (np.arange(120_000) % 977).reshape(-1, 12) / 8
np.savetxt("a.txt", a, fmt="%.3f", header="columns", delimiter=",")
b = np.loadtxt("a.txt", delimiter=",")
print(np.array_equal(a, b), b.shape)
np.savetxt("a.gz", a[:500], fmt="%g")
print(float(np.loadtxt("a.gz").sum()))
open("a.gz", "w").close()  # its header has the time in it
with open("gaps.csv", "w") as file:
    file.write("x,y\n" + "\n".join(f"{k}," if k % 3 else f"{k},{k / 2}" for k in range(30_000)))
c = np.genfromtxt("gaps.csv", delimiter=",", names=True)
print(c.dtype.names, int(np.isnan(c["y"]).sum()), float(np.nansum(c["y"])))
print(np.fromregex("gaps.csv", r"(\d+),(\d+\.\d)", [("x", "i8"), ("y", "f8")])[-1])
print(a, repr(c[:3]), np.array2string(a[0], precision=1), str(np.ones(300_000, "?")), sep="\n")
