"""h5py: datasets with chunks and filters, partial reads into an array, strings, attributes, an image in memory.

Needs: h5py
"""

import h5py
import numpy as np

a = np.arange(500_000, dtype="i4").reshape(500, 1000)
with h5py.File("a.h5", "w") as file:
    file.create_dataset("plain", data=a)
    file.create_dataset("packed", data=a, chunks=(50, 100), compression="gzip", shuffle=True, fletcher32=True)
    grows = file.create_dataset("grows", (0, 1000), "i4", maxshape=(None, 1000), chunks=True)
    for k in range(0, 500, 100):
        grows.resize(k + 100, axis=0)
        grows[k:] = a[k : k + 100]
    file["plain"].attrs["unit"] = "m"
    file["words"] = np.array(["a", "bc"], dtype=h5py.string_dtype())
with h5py.File("a.h5") as file:
    target = np.zeros((500, 1000), "i4")
    file["plain"].read_direct(target)
    print(np.array_equal(target, a), np.array_equal(file["packed"][()], a), np.array_equal(file["grows"][:], a))
    target[:] = 0
    file["packed"].read_direct(target, np.s_[100:200, ::2], np.s_[0:100, 0:500])
    print(int(target.sum()), file["plain"].attrs["unit"], file["words"][:].tolist(), file["plain"][7, [1, 5]].tolist())
    big = np.zeros((500, 1000), "f8")
    file["plain"].read_direct(big)
    print(float(big.sum()))
with h5py.File("m", "w", driver="core", backing_store=False) as file:
    file["x"] = a
    file.flush()
    print(len(file.id.get_file_image()) > a.nbytes)
open("a.h5", "w").close()  # what HDF5 leaves unused in a file is not defined
