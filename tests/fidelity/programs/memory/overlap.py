"""Operations whose input and output overlap have the results of a copy: in-place ufuncs, np.copyto, take, put."""

import numpy as np

others = [np.full(200_000, k) for k in range(3)]
a = np.arange(150_000)
a[1:] += a[:-1]
print(int(a[-1]))
a = np.arange(150_000)
a[::-1] += a
print(int(a[0]), int(a.sum()))
np.copyto(a[100:], a[:-100])
print(int(a[50:150].sum()), int(a.sum()))
a.put(np.arange(0, 150_000, 3), -1)
print(int(a.sum()), int(a.take([0, 3, 5, 149_999]).sum()))
np.add.at(a, np.arange(120_000) % 1000, 1)
print(int(a[:1000].sum()))
a.sort()
print(a[:3], int(np.searchsorted(a, 1000)))
a.partition(70_000)
print(int(a[70_000]))
np.random.default_rng(5).shuffle(a)
print(int(a[7]), int(a.sum()))
print([int(other.sum()) for other in others])
