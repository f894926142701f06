"""Digests and checksums of arrays, with the GIL released: hashlib, zlib, hmac, binascii, crc32 in threads."""

import binascii
import hashlib
import hmac
import zlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np

a = np.arange(600_000)
for name in ("md5", "sha1", "sha256", "sha3_256", "blake2b", "sha512"):
    print(name, hashlib.new(name, a).hexdigest()[:16])
print(zlib.crc32(a), zlib.adler32(a), binascii.crc32(a[1000:]), hmac.new(b"k", a, "sha256").hexdigest()[:16])
print(hash(a.tobytes()) == hash(bytes(a)), binascii.b2a_base64(a[:3]))
packer = zlib.compressobj(1)
packed = b"".join([packer.compress(a[k : k + 100_000]) for k in range(0, 600_000, 100_000)] + [packer.flush()])
print(len(packed), zlib.decompress(packed) == a.tobytes())
with ThreadPoolExecutor(4) as pool:
    print(list(pool.map(zlib.crc32, np.split(a, 8))))
a.setflags(write=False)
print(
    hash(a[:100].data.cast("B").tobytes()) is not None,
    hash(memoryview(a.view("u1")[:5])) == hash(bytes(a.view("u1")[:5])),
)
