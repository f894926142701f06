"""NumPy's own files: save, load, memory-mapped load, savez, savez_compressed, object arrays, fortran order."""

import zipfile

import numpy as np

a = np.arange(400_000, dtype="f4").reshape(400, 1000)
np.save("a.npy", a)
np.save("f.npy", np.asfortranarray(a))
np.savez("both.npz", a=a, b=a[::2].astype("i2"))
np.savez_compressed("small.npz", a=a.astype("u1"))
np.save("o.npy", np.array([{"k": 1}, None], dtype=object), allow_pickle=True)
print(np.array_equal(np.load("a.npy"), a), np.load("f.npy").flags.f_contiguous, np.array_equal(np.load("f.npy"), a))
mapped = np.load("a.npy", mmap_mode="r+")
mapped[3] = 7
mapped.flush()
print(type(mapped).__name__, float(np.load("a.npy")[3].sum()))
with np.load("both.npz") as both:
    print(sorted(both), int(both["b"].astype("i8").sum()))
with np.load("small.npz") as small:
    print(int(small["a"].sum()))
print(np.load("o.npy", allow_pickle=True))
try:
    np.load("o.npy")
except ValueError as error:
    print(error)
with zipfile.ZipFile("both.npz") as archive:
    print([(info.filename, info.file_size) for info in archive.infolist()])
for name in ("both.npz", "small.npz"):
    open(name, "w").close()  # what it holds has the time in it
