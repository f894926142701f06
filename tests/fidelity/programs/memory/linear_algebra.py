"""BLAS and LAPACK with their threads on large matrices: products, solves, decompositions, einsum."""

import numpy as np

a = np.cos(np.arange(62_500.0)).reshape(250, 250) + 250 * np.eye(250)
b = a @ a.T
print(b.trace().round(4), np.linalg.solve(a, b)[3, 3].round(4), np.linalg.slogdet(a)[1].round(4))
q, r = np.linalg.qr(a)
print(
    np.allclose(q @ r, a), np.linalg.svd(a[:, :100], compute_uv=False)[:2].round(4), np.linalg.eigvalsh(b)[-1].round(3)
)
print(np.einsum("ij,kj->i", a, a[:50]).sum().round(4), np.inner(a, a)[0, 0].round(4), np.dot(a[:, 0], a[0]).round(4))
c = np.fft.rfft2(a)
print(
    np.allclose(np.fft.irfft2(c), a), np.kron(a[:20, :20], a[:20, :20]).sum().round(2), np.tensordot(a, a, 2).round(2)
)
try:
    np.linalg.inv(np.zeros((400, 400)))
except np.linalg.LinAlgError as error:
    print(error)
out = np.empty_like(a)
print(np.matmul(a, b, out=out) is out, out[5, 5].round(3), np.cumsum(a, axis=1, out=out)[0, -1].round(4))
