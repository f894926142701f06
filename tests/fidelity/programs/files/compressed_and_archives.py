"""Arrays through gzip, bz2, lzma, zipfile, tarfile and struct: the bytes of the files, but for times."""

import bz2
import gzip
import io
import lzma
import struct
import tarfile
import zipfile

import numpy as np

a = (np.arange(300_000) % 4099).astype("i4")
for module, name in ((gzip, "gz"), (bz2, "bz2"), (lzma, "xz")):
    packed = module.compress(a)
    print(
        name,
        len(packed) if name != "gz" else len(packed) > 1000,
        np.array_equal(np.frombuffer(module.decompress(packed), "i4"), a),
    )
with gzip.GzipFile("a.gz", "wb", mtime=0) as file:
    print(file.write(a))
with lzma.open("a.xz", "wb") as file:
    print(file.write(a[:50_000]))
with bz2.open("a.bz2") if False else gzip.open("a.gz") as file:
    b = np.zeros_like(a)
    print(file.readinto(b), np.array_equal(a, b))
with zipfile.ZipFile("a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
    archive.writestr(zipfile.ZipInfo("a"), a)
with zipfile.ZipFile("a.zip") as archive:
    print(archive.testzip(), archive.getinfo("a").CRC)
with tarfile.open("a.tar", "w") as archive:
    info = tarfile.TarInfo("a")
    info.size = a.nbytes
    archive.addfile(info, io.BytesIO(a))
with tarfile.open("a.tar") as archive:
    print(len(archive.extractfile("a").read()))
struct.pack_into("<3i", a, 800_000, 1, 2, 3)
print(a[200_000:200_004], struct.unpack_from("<2i", a, 400), sum(x for (x,) in struct.iter_unpack("<i", a)))
