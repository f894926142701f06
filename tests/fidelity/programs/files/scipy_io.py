"""SciPy's readers and writers: wavfile, mmwrite, savemat, netcdf, hb, FortranFile, sparse save_npz.

Needs: scipy
"""

import io

import numpy as np
import scipy.io
import scipy.sparse
from scipy.io import wavfile

a = (np.sin(np.arange(400_000)) * 20_000).astype("i2")
wavfile.write("a.wav", 44_100, a)
rate, back = wavfile.read("a.wav")
mapped = wavfile.read("a.wav", mmap=True)[1]
print(rate, np.array_equal(a, back), np.array_equal(mapped, a))
stereo = np.stack([a, a[::-1]], axis=1)
wavfile.write("s.wav", 8_000, stereo)
print(np.array_equal(wavfile.read("s.wav")[1], stereo))
m = scipy.sparse.diags_array([np.arange(1.0, 30_001)] * 3, offsets=[0, 3, -70], shape=(30_000, 30_000), format="csr")
scipy.io.mmwrite("m.mtx", m, precision=6)
print(scipy.io.mminfo("m.mtx"), abs(scipy.io.mmread("m.mtx") - m).max() < 1e-5)
dense = np.arange(60_000).reshape(300, 200)
scipy.io.mmwrite("d.mtx", dense)
print(np.array_equal(scipy.io.mmread("d.mtx"), dense))
for compress in (False, True):
    target = io.BytesIO()
    scipy.io.savemat(target, {"a": a, "m": m, "d": dense.astype("f8")}, do_compression=compress)
    target.seek(0)
    mat = scipy.io.loadmat(target)
    print(np.array_equal(mat["a"][0], a), (mat["m"] != m).nnz, float(mat["d"].sum()))
with scipy.io.netcdf_file("n.nc", "w") as file:
    file.createDimension("t", len(a))
    file.createVariable("v", "i2", ("t",))[:] = a
with scipy.io.netcdf_file("n.nc", mmap=False) as file:
    print(np.array_equal(file.variables["v"][:], a))
with scipy.io.FortranFile("f.unf", "w") as file:
    file.write_record(dense)
with scipy.io.FortranFile("f.unf") as file:
    print(np.array_equal(file.read_ints("i8").reshape(dense.shape), dense))
scipy.sparse.save_npz("m.npz", m, compressed=False)
print((scipy.sparse.load_npz("m.npz") != m).nnz)
open("m.npz", "w").close()
