"""SciPy: sparse products and solvers, FFT, signals, distances, interpolation, linear algebra.

Needs: scipy
"""

import numpy as np
import scipy.fft
import scipy.interpolate
import scipy.linalg
import scipy.ndimage
import scipy.optimize
import scipy.signal
import scipy.sparse
import scipy.sparse.linalg
import scipy.spatial

n = 20_000
m = scipy.sparse.diags_array(
    [np.full(n, 4.0), np.full(n, -1.0), np.full(n, -1.0)], offsets=[0, 1, -1], shape=(n, n), format="csr"
)
b = np.sin(np.arange(n))
x = scipy.sparse.linalg.spsolve(m.tocsc(), b)
y, info = scipy.sparse.linalg.cg(m, b, rtol=1e-10)
print(np.allclose(x, y), info, (m @ m).nnz, (m.T - m).nnz, m.tocoo().row[-1], m[5].toarray().sum())
f = scipy.fft.fft(np.cos(np.arange(1 << 17)), workers=2)
print(int(np.argmax(abs(f[: 1 << 16]))), np.allclose(scipy.fft.ifft(f).real[:5], np.cos(np.arange(5))))
print(scipy.signal.fftconvolve(b, np.ones(500), mode="same").round(6)[1000])
tree = scipy.spatial.cKDTree(np.stack([b, np.cos(np.arange(n) * 0.7)], axis=1))
print(tree.query([[0.1, 0.2], [0.5, -0.5]], k=2, workers=2)[1].tolist())
a = np.cos(np.arange(90_000.0)).reshape(300, 300) + 300 * np.eye(300)
lu = scipy.linalg.lu_factor(a)
print(np.allclose(a @ scipy.linalg.lu_solve(lu, a[0]), a[0]), scipy.linalg.cholesky(a @ a.T)[0, 0].round(4))
print(scipy.ndimage.gaussian_filter(a, 3).sum().round(3), scipy.interpolate.interp1d(np.arange(n), b)(100.5).round(8))
print(scipy.optimize.curve_fit(lambda t, p: p * t, np.arange(n), 3.0 * np.arange(n))[0].round(6))
