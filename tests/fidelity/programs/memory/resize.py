"""Growing and shrinking in place keeps the bytes and fills with zeros: ndarray.resize, np.append, np.resize."""

import numpy as np

a = np.arange(100_000)
for size in (300_000, 50_000, 600_000, 10, 400_000, 0, 250_000):
    a.resize(size, refcheck=False)
    print(size, a.size, int(a.sum()), a.flags.owndata, int((a == 0).sum()))
try:
    b = a[:10]
    a.resize(5)
except ValueError as error:
    print(error)
c = np.array([], dtype="i4")
for k in range(12):
    c = np.append(c, np.full(30_000, k, dtype="i4"))
print(c.size, int(c.sum()), np.resize(c, (3, 7)).tolist())
grown = bytearray()
for k in range(20):
    grown += np.full(50_000, k, dtype="u1").tobytes()
print(len(grown), sum(np.frombuffer(grown, "u1")[::50_000].tolist()))
